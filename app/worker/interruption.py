"""A soft limit of a plain function: an exception that is raised in its thread, from outside.

Whatever runs at that moment may take it for an error of its own: handlers of a log swallow it, a call of ours takes it
for an outage, and a lock may stay locked. So it is not raised in such places, but when they are left.
"""

import ctypes
import math
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from types import FrameType
from typing import Any

from billiard.exceptions import SoftTimeLimitExceeded

from app.worker.deadlines import deadlines

# Seconds until it is tried again after a bad moment, and for how long good ones are awaited.
AGAIN = 0.005
LONGEST_DELAY = 5.0
# Below it are the worker's own calls, above it the user's.
BODY = "app.worker.app"
DELICATE = frozenset(
    {
        *("logging", "app.logs", "app.worker.capture", "app.worker.flushing"),
        *("app.worker.bookkeeping", "app.worker.broker", "app.worker.codec"),
    }
)


@contextmanager
def interrupted(limit: float) -> Iterator[None]:
    """Raise SoftTimeLimitExceeded in what runs inside, in this thread, when it takes more than ``limit`` seconds."""
    interruption = _Interruption()
    token = _current.set(interruption)
    try:
        with interruption, deadlines.until(time.monotonic() + limit, interruption.make):
            yield
    finally:
        _current.reset(token)


def heed() -> None:
    """To be called where a delicate place is left: raises SoftTimeLimitExceeded if its moment has come meanwhile."""
    interruption = _current.get()
    if interruption is not None:
        interruption.heed()


class _Interruption:
    """Raises SoftTimeLimitExceeded once in the thread that made it, as long as that is inside."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._by_signal = threading.current_thread() is threading.main_thread()
        self._lock = threading.Lock()
        self._over = self._made = False
        self._in_any_case = math.inf
        self._previous: Any = None

    def __enter__(self) -> None:
        if self._by_signal:
            self._previous = signal.signal(signal.SIGUSR1, self._signalled)

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

    def make(self) -> float | None:
        """Answers in how many seconds to call again; None when it is made."""
        with self._lock:
            if self._over or self._made:
                return None
            self._in_any_case = min(self._in_any_case, time.monotonic() + LONGEST_DELAY)
            if self._by_signal:
                signal.pthread_kill(self._thread, signal.SIGUSR1)
            elif self._may_be(sys._current_frames().get(self._thread)):
                self._made = True
                _raise_in(self._thread, SoftTimeLimitExceeded)
            return AGAIN

    def heed(self) -> None:
        """In the thread itself."""
        # A signal that nobody made here is somebody else's.
        if self._in_any_case < math.inf and threading.get_ident() == self._thread:
            # By signals all happens in this thread, which may be interrupted where it has the lock.
            with nullcontext() if self._by_signal else self._lock:
                if self._over or self._made:
                    return
                self._made = True
            raise SoftTimeLimitExceeded

    def _signalled(self, _number: int, frame: FrameType | None) -> None:
        if self._may_be(frame):
            self.heed()

    def _may_be(self, frame: FrameType | None) -> bool:
        return time.monotonic() >= self._in_any_case or not _is_delicate(frame)


def _is_delicate(frame: FrameType | None) -> bool:
    if frame is not None and frame.f_code.co_name in ("__enter__", "__exit__"):
        return True
    while frame is not None:
        module = frame.f_globals.get("__name__")
        if module == BODY:
            return False
        if module in DELICATE:
            return True
        frame = frame.f_back
    return False


_current: ContextVar[_Interruption | None] = ContextVar("interruption", default=None)


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    given = ctypes.py_object(error) if error is not None else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), given)
