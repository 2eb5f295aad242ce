"""Waiting for results by notification: one listening connection a process, for any number of waiters.

A waiter registers its task ids, lets the rows be watched, looks, and only then waits. The end of a
watched run is notified with its run id and its task id, and wakes those that wait for either. While
the connection is down, and for whatever a notification may have missed, waiters look by themselves.
"""

import logging
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import psycopg

from app.db.listen import Listener, readable
from app.settings import get_settings
from app.worker import bookkeeping

logger = logging.getLogger(__name__)

CHANNEL = "upbeat_results"
CONNECT_PATIENCE = 2.0
# How often a waiter looks by itself, while the connection is up, and while it is down.
LOOK_SELDOM = 10.0
LOOK_OFTEN = 0.5
LONGEST_PAUSE = 2.0
IDLE = 60.0
STOP_PATIENCE = 5.0


class _Waiter:
    """One call that waits; ``heard`` are its ids that something was heard of."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.heard: set[str] = set()


class Waiters:
    """The waiters of this process, and the thread that wakes them; a forked child starts anew."""

    def __init__(self) -> None:
        self._reset()
        os.register_at_fork(after_in_child=self._forget)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, set[_Waiter]] = defaultdict(set)
        self._thread: _Listening | None = None
        self._listening = threading.Event()

    def _forget(self) -> None:
        # The parent's connection is still the parent's: it must not even be closed here.
        _inherited.append(self._thread)
        self._reset()

    @contextmanager
    def waiting(
        self, task_ids: Collection[str], timeout: float | None
    ) -> Iterator[Callable[[], Collection[str] | None]]:
        """Register for those ids; gives a function that waits until it is worth looking again, and says where.

        It answers None when ``timeout`` (seconds, from now on) is over.
        """
        end = None if timeout is None else time.monotonic() + timeout
        waiter, registered = _Waiter(), frozenset(task_ids)
        with self._lock:
            for task_id in registered:
                self._waiting[task_id].add(waiter)
        try:
            if timeout != 0:
                self._start(min(CONNECT_PATIENCE, timeout or CONNECT_PATIENCE))

            def wait() -> Collection[str] | None:
                look = LOOK_SELDOM if self._listening.is_set() else LOOK_OFTEN
                if end is not None:
                    look = min(look, end - time.monotonic())
                    if look <= 0:
                        return None
                heard = waiter.event.wait(look)
                with self._lock:
                    waiter.event.clear()
                    named, waiter.heard = waiter.heard, set()
                return named if heard and named else registered

            yield wait
        finally:
            with self._lock:
                for task_id in registered:
                    self._waiting[task_id].discard(waiter)
                    if not self._waiting[task_id]:
                        del self._waiting[task_id]

    def close(self) -> None:
        """Give the connection up; those who still wait look by themselves, and the next one starts anew."""
        with self._lock:
            thread, self._thread = self._thread, None
            self._listening.clear()
        if thread is not None:
            thread.stop()

    def in_background(self, work: Callable[[], object]) -> None:
        """Do ``work`` in a thread of its own."""
        threading.Thread(target=work, name="upbeat-errbacks", daemon=True).start()

    def _start(self, patience: float) -> None:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = _Listening(self)
                self._thread.start()
        self._listening.wait(patience)

    def heard(self, task_ids: Collection[str]) -> None:
        """Those have ended: wake who waits for them."""
        with self._lock:
            for task_id in task_ids:
                for waiter in self._waiting.get(task_id, ()):
                    waiter.heard.add(task_id)
                    waiter.event.set()

    def listening(self, *, is_so: bool) -> None:
        """The connection is up, or down; either way something may have been missed."""
        if is_so:
            self._listening.set()
        else:
            self._listening.clear()
        with self._lock:
            for task_id, waiters in self._waiting.items():
                for waiter in waiters:
                    waiter.heard.add(task_id)
                    waiter.event.set()

    def retire(self) -> bool:
        """Whether the thread may end, because nobody waits; nobody who comes later is forgotten."""
        with self._lock:
            if self._waiting:
                return False
            self._listening.clear()
            self._thread = None
            return True


class _Listening(threading.Thread):
    """Listens for the ends of runs, and reconnects for as long as somebody waits."""

    def __init__(self, waiters: Waiters) -> None:
        super().__init__(name="upbeat-results", daemon=True)
        self.listener = Listener(get_settings().database, channel=CHANNEL, name="upbeat-results-listen")
        self._waiters = waiters
        self._reader, self._writer = os.pipe()

    def stop(self) -> None:
        """End, and wait for that."""
        os.write(self._writer, b".")
        self.join(STOP_PATIENCE)

    def run(self) -> None:
        pause, idle_since = 0.0, time.monotonic()
        try:
            while True:
                try:
                    if self.listener.connect():
                        # What ended before was not heard.
                        self._waiters.listening(is_so=True)
                        pause = 0.0
                    ready = readable([self.listener, self._reader], LOOK_SELDOM)
                    heard = self.listener.payloads()
                except (psycopg.Error, OSError) as error:
                    self._waiters.listening(is_so=False)
                    logger.warning("results are polled for: %s", bookkeeping.first_line(error))
                    ready = readable([self._reader], pause)
                    pause = min(LONGEST_PAUSE, max(0.1, pause * 2))
                    heard = []
                if self._reader in ready:
                    return
                if heard:
                    self._waiters.heard([task_id for each in heard for task_id in each.split()])
                    idle_since = time.monotonic()
                elif time.monotonic() - idle_since > IDLE and self._waiters.retire():
                    return
        finally:
            self.listener.close()
            os.close(self._reader)
            os.close(self._writer)


_inherited: list[object] = []
waiters = Waiters()
