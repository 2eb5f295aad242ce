"""Stores what runs tell, in batches, from one thread a process with a connection of its own.

Nothing here may hold up or fail a task: what waits is bounded, and while the database is away it
waits, up to that bound. The last lines of a run are taken from here by the transaction that ends it,
so that a run that is over has its whole log, at the price of one statement.
"""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from app.db import sync_engine, sync_sessions
from app.db.outages import is_away
from app.scheduling.run_logs import Line, store
from app.settings import get_settings
from app.worker import bookkeeping

logger = logging.getLogger(__name__)

BATCH = 500
WAITING_LINES = 20_000
WAITING_BYTES = 16 * 1_048_576
FIRST_PAUSE = 0.2
LONGEST_PAUSE = 5.0
CLOSE_PATIENCE = 2.0
IDLE_ROUNDS = 10


class Flusher:
    """The lines and the progress that wait to be stored; a forked child starts with none."""

    def __init__(self) -> None:
        self._reset()
        os.register_at_fork(after_in_child=self._forget)

    def _reset(self) -> None:
        # Entered as it is, not through the condition: an interruption of the body inside of that would leave it locked.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._lines: deque[Line] = deque()
        self._in_flight: list[Line] = []
        self._storing: set[tuple[UUID, int]] = set()
        self._bytes = 0
        self._progress: dict[tuple[UUID, int], Mapping[str, Any]] = {}
        self._asleep = False
        self._wanted = self._done = 0
        self._urgent = False
        self._closing = False
        self._away = False
        self._thread: threading.Thread | None = None
        self._engine: Engine | None = None

    def _forget(self) -> None:
        # The parent's connection is still the parent's: it must not be closed here.
        if self._engine is not None:
            self._engine.dispose(close=False)
        self._reset()

    def add(self, line: Line) -> bool:
        """Take a line; False if there is no room for it."""
        with self._lock:
            size = len(line.message)
            if len(self._lines) + len(self._in_flight) >= WAITING_LINES or self._bytes + size > WAITING_BYTES:
                return False
            self._lines.append(line)
            self._bytes += size
            self._note(full=len(self._lines) >= BATCH)
            return True

    def progress(self, run_id: UUID, attempt: int, document: Mapping[str, Any]) -> None:
        """Take the latest progress of an attempt; an older one that waits is forgotten."""
        with self._lock:
            self._progress[run_id, attempt] = document
            self._note(full=False)

    def take(self, run_id: UUID, attempt: int, patience: float) -> list[Line]:
        """Give up the lines of an attempt to whoever stores them now, with its end.

        Those that are being stored are waited for, for ``patience`` seconds; so is progress.
        """
        end = time.monotonic() + patience
        with self._lock:
            while self._is_on_its_way(run_id, attempt) and not self._away:
                left = end - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            taken = [line for line in self._lines if (line.run_id, line.attempt) == (run_id, attempt)]
            if taken:
                rest = [line for line in self._lines if (line.run_id, line.attempt) != (run_id, attempt)]
                self._lines = deque(rest)
                self._bytes -= sum(len(line.message) for line in taken)
                self._settle()
            return taken

    def restore(self, lines: list[Line]) -> None:
        """Take back what was given up and could not be stored."""
        for line in lines:
            self.add(line)

    def _is_on_its_way(self, run_id: UUID, attempt: int) -> bool:
        if (run_id, attempt) in self._progress or (run_id, attempt) in self._storing:
            self._urgent = True
            self._changed.notify_all()
            return True
        return any((line.run_id, line.attempt) == (run_id, attempt) for line in self._in_flight)

    def _settle(self) -> None:
        """Nothing is wanted any more when nothing is left."""
        if not (self._lines or self._in_flight or self._progress):
            self._done, self._urgent = self._wanted, False

    def flush(self, patience: float) -> bool:
        """Store what waits now; False if that was not done within ``patience`` seconds, or is hopeless."""
        end = time.monotonic() + patience
        with self._lock:
            wanted = self._wanted
            if self._done >= wanted:
                return True
            self._urgent = True
            self._changed.notify_all()
            while self._done < wanted:
                left = end - time.monotonic()
                if self._away or left <= 0:
                    return False
                self._changed.wait(left)
            return True

    def close(self) -> None:
        """Store the rest, for a bounded time, and give the connection up."""
        self.flush(CLOSE_PATIENCE)
        with self._lock:
            thread, self._closing = self._thread, True
            self._changed.notify_all()
        if thread is not None:
            thread.join(CLOSE_PATIENCE)
        with self._lock:
            self._thread, self._closing = None, False

    def _note(self, *, full: bool) -> None:
        # Waking the thread for each line would cost a run more than storing it does.
        self._wanted += 1
        if self._thread is None:
            self._thread = threading.Thread(target=self._keep, name="upbeat-run-logs", daemon=True)
            self._thread.start()
        elif full or self._asleep:
            self._changed.notify_all()

    def _keep(self) -> None:
        every, pause = get_settings().log.flush_every, 0.0
        while self._await_work(every):
            with self._lock:
                lines = [self._lines.popleft() for _ in range(min(BATCH, len(self._lines)))]
                self._in_flight = lines
                progress, self._progress = self._progress, {}
                self._storing = set(progress)
            try:
                self._store(lines, progress)
            except Exception as error:  # noqa: BLE001 - the thread must outlive every outage
                pause = min(LONGEST_PAUSE, max(FIRST_PAUSE, pause * 2))
                self._failed(error, progress, pause)
                continue
            pause = 0.0
            with self._lock:
                self._landed()
                self._away = False
                self._settle()
                self._changed.notify_all()
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    def _landed(self) -> None:
        self._bytes -= sum(len(line.message) for line in self._in_flight)
        self._in_flight, self._storing = [], set()

    def _await_work(self, every: float) -> bool:
        """Until something has waited for ``every`` seconds at most, or is wanted now; False when this is the end."""
        idle = 0
        with self._lock:
            while not self._closing:
                if self._urgent or len(self._lines) >= BATCH:
                    return True
                self._asleep = idle > IDLE_ROUNDS
                self._changed.wait(None if self._asleep else every)
                self._asleep = False
                if self._lines or self._progress:
                    return True
                idle += 1
            return False

    def _store(self, lines: list[Line], progress: Mapping[tuple[UUID, int], Mapping[str, Any]]) -> None:
        with self._sessions().begin() as session:
            store(session, lines, progress)

    def _sessions(self) -> sessionmaker[Session]:
        if self._engine is None:
            self._engine = sync_engine(get_settings().database, name="upbeat-run-logs", pool_size=1)
        return sync_sessions(self._engine)

    def _failed(
        self, error: Exception, progress: Mapping[tuple[UUID, int], Mapping[str, Any]], pause: float
    ) -> None:
        if not is_away(error):
            logger.error(
                "lines of runs could not be stored: %s",
                bookkeeping.first_line(error),
                extra={"action": "run_log"},
            )
        with self._lock:
            if is_away(error):
                self._away = True
                self._progress = {**progress, **self._progress}
                self._lines.extendleft(reversed(self._in_flight))
                self._in_flight, self._storing = [], set()
            else:
                # What the database refuses once it refuses always: it must not hold up the rest.
                self._landed()
                self._settle()
            self._changed.notify_all()
            if not self._closing:
                self._changed.wait(pause)


flusher = Flusher()
