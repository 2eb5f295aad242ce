"""Limits where no pool keeps them: in the threads and solo pools. A thread watches, and acts when one has passed.

A soft limit raises `SoftTimeLimitExceeded` in a plain function: in the solo pool at once, by the signal that a
prefork child gets; in the threads pool, where signals reach no thread, as soon as it executes Python again, so not
while it is inside one blocking call (`time.sleep`, a query). A coroutine is cancelled by the bridge.

A plain function cannot be stopped by force, nor a coroutine that computes without awaiting. When its hard limit has
passed, the run is recorded as timed out, and this worker is replaced.
"""

import ctypes
import heapq
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any, NoReturn

from billiard.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded

from app.worker import liveness, outcomes, replacement
from app.worker.bridge import CLEAN_UP
from app.worker.execution import Execution

logger = logging.getLogger(__name__)

CLEAR_FROM = 1000


def of(request: Any, task: Any) -> tuple[float | None, float | None]:
    """Hard and soft limit of a run in seconds: those of its message, then those of its task."""
    hard, soft = getattr(request, "timelimit", None) or (None, None)
    return hard or task.time_limit, soft or task.soft_time_limit


@contextmanager
def watched(app: Any, running: Execution, task: Any, *, awaits: bool) -> Iterator[None]:
    """Watch the limits of a body, unless the pool does; a coroutine is first cancelled by the bridge."""
    hard, soft = of(running.request, task)
    if not (hard or soft) or not liveness.in_main_process():
        yield
        return
    with ExitStack() as limits:
        if hard:
            past = time.monotonic() + hard + (CLEAN_UP if awaits else 0.0)
            limits.enter_context(_watch.until(past, lambda: _exceeded(app, running, hard)))
        if soft and not awaits:
            limits.enter_context(interrupted(soft))
        yield


@contextmanager
def interrupted(limit: float) -> Iterator[None]:
    """Raise SoftTimeLimitExceeded in what runs inside, in this thread, when it takes more than ``limit`` seconds."""
    interruption = _Interruption()
    with interruption, _watch.until(time.monotonic() + limit, interruption.make):
        yield


class _Interruption:
    """Raises SoftTimeLimitExceeded once in the thread that made it, as long as that is inside."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._by_signal = threading.current_thread() is threading.main_thread()
        self._lock = threading.Lock()
        self._over = self._made = False
        self._previous: Any = None

    def __enter__(self) -> None:
        if self._by_signal:
            self._previous = signal.signal(signal.SIGUSR1, _soft_limit_passed)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            with self._lock:
                self._over = True
                if self._made and not self._by_signal and kind is not SoftTimeLimitExceeded:
                    # One that has been made, and came too late to be raised inside.
                    _raise_in(self._thread, None)
        finally:
            if self._by_signal:
                signal.signal(signal.SIGUSR1, self._previous)

    def make(self) -> None:
        with self._lock:
            if self._over:
                return
            self._made = True
            if self._by_signal:
                signal.pthread_kill(self._thread, signal.SIGUSR1)
            else:
                _raise_in(self._thread, SoftTimeLimitExceeded)


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    given = ctypes.py_object(error) if error is not None else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), given)


def _soft_limit_passed(_number: int, _frame: object) -> NoReturn:
    raise SoftTimeLimitExceeded


def _exceeded(app: Any, running: Execution, limit: float) -> None:
    outcome = outcomes.outcome_of(TimeLimitExceeded(limit))
    if outcomes.finish(app, running.run_id, running.attempt, outcome) is not None:
        replacement.begin(f"run {running.run_id} cannot be stopped at its hard limit", {str(running.run_id)})


class _Alarm:
    """``act`` is None when what it watches is over."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.act: Callable[[], None] | None = act


class _Watch:
    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._deadlines: list[tuple[float, int, _Alarm]] = []
        self._clear_at = CLEAR_FROM
        self._numbers = count()
        self._thread: threading.Thread | None = None

    @contextmanager
    def until(self, deadline: float, act: Callable[[], None]) -> Iterator[None]:
        """Call ``act`` in the watching thread if what runs inside is not over by then."""
        alarm = _Alarm(act)
        with self._changed:
            if len(self._deadlines) >= self._clear_at:
                self._clear()
            heapq.heappush(self._deadlines, (deadline, next(self._numbers), alarm))
            if self._thread is None:
                self._thread = threading.Thread(target=self._keep, name="upbeat-limits", daemon=True)
                self._thread.start()
            self._changed.notify()
        try:
            yield
        finally:
            # Without the lock: an interruption that is raised here would leave it locked.
            alarm.act = None

    def _clear(self) -> None:
        """Runs end long before their limits: without this, all of the last hours' would be kept."""
        self._deadlines = [each for each in self._deadlines if each[2].act is not None]
        heapq.heapify(self._deadlines)
        self._clear_at = max(CLEAR_FROM, 2 * len(self._deadlines))

    def _keep(self) -> None:
        while True:
            with self._changed:
                while not self._deadlines or self._deadlines[0][0] > time.monotonic():
                    first = self._deadlines[0][0] if self._deadlines else None
                    self._changed.wait(None if first is None else max(0.0, first - time.monotonic()))
                _, _, alarm = heapq.heappop(self._deadlines)
            act = alarm.act
            if act is not None:
                try:
                    act()
                except Exception:
                    logger.exception("a limit was not kept", extra={"action": "limit_not_recorded"})


_watch = _Watch()
