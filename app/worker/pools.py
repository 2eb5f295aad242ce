"""Celery's threads and prefork pools, mended.

Threads: with prefetch disabled, the worker asks for its next message only when a slot is free, and looks
for that when its loop turns. Nothing turns the loop when a thread ends: a stock pool runs two tasks a
second. And until Python 3.12 an executor counts a thread as idle that has found its next task already: a
pool that has not all its threads yet may let a task wait behind a long one.

Prefork: a child that is killed closes its files before it can be waited for. A stock pool looks once when
they close, often finds nothing, and looks again up to five seconds later.
"""

import os
from contextlib import suppress
from typing import Any

from billiard.einfo import ExceptionInfo
from celery import concurrency
from celery.concurrency.asynpool import AsynPool
from celery.concurrency.prefork import TaskPool as CeleryPrefork
from celery.concurrency.thread import TaskPool as CeleryThreads

# Seconds after a child's files were closed.
LOOK_AGAIN = (0.02, 0.2, 1.0)


class _NoneIdle:
    """What an executor counts its idle threads with: none ever is, so each task brings a thread until all are there."""

    def acquire(self, timeout: float) -> bool:
        return False

    def release(self) -> None:
        """Nothing is counted."""


class Threads(CeleryThreads):  # type: ignore[misc]
    """`celery worker -P threads`."""

    _wake: int | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.executor._idle_semaphore = _NoneIdle()

    def register_with_event_loop(self, hub: Any) -> None:
        """Let the loop watch a pipe that every finished thread writes to; called again after each reconnection."""
        if self._wake is None:
            self._watched, self._wake = os.pipe()
            os.set_blocking(self._watched, False)
            os.set_blocking(self._wake, False)
        hub.add_reader(self._watched, self._drain)

    def on_apply(
        self, target: Any, args: Any, kwargs: Any, callback: Any, accept_callback: Any, **options: Any
    ) -> Any:
        """As prefork, tell of what escapes from ``target``; a stock pool would never give its slot back."""
        failed = options.get("error_callback")

        def caught(*given: Any, **named: Any) -> Any:
            try:
                return target(*given, **named)
            except Exception:  # noqa: BLE001 - it is told
                return ExceptionInfo()

        def told(answer: Any) -> None:
            (failed if failed is not None and isinstance(answer, ExceptionInfo) else callback)(answer)

        result = super().on_apply(caught, args, kwargs, told, accept_callback)
        result.f.add_done_callback(self._notify)
        return result

    def grow(self, n: int = 1) -> None:
        """Have ``n`` more slots (fewer when negative); threads that are idle may stay, they get nothing."""
        self.limit += n
        self.executor._max_workers = self.limit
        semaphore = self.options.get("semaphore")
        if semaphore is not None:
            (semaphore.grow if n > 0 else semaphore.shrink)(abs(n))

    def shrink(self, n: int = 1) -> None:
        """Have ``n`` fewer slots; what runs is not touched."""
        self.grow(-n)

    def _notify(self, _: Any) -> None:
        if self._wake is not None:
            with suppress(OSError):  # full: the loop is awake already
                os.write(self._wake, b".")

    def _drain(self) -> None:
        with suppress(BlockingIOError):
            while os.read(self._watched, 4096):
                pass


class _Children(AsynPool):  # type: ignore[misc]
    def _event_process_exit(self, hub: Any, proc: Any) -> None:
        super()._event_process_exit(hub, proc)
        for delay in LOOK_AGAIN:
            hub.call_later(delay, self.maintain_pool)

    def apply_async(self, *args: Any, soft_timeout: float | None = None, **kwargs: Any) -> Any:
        """The child keeps soft limits itself: a signal from here may come when the body is over."""
        return super().apply_async(*args, **kwargs)

    def grow(self, n: int = 1) -> None:
        super().grow(n)
        self.maintain_pool()

    def shrink(self, n: int = 1) -> None:
        """End ``n`` children, or as many as are idle; raises ValueError when some are left. A stock pool may count
        one that is ending twice."""
        idle = [child for child in self._iterinactive() if not child._controlled_termination][:n]
        for child in idle:
            self._processes -= 1
            if self._putlock:
                self._putlock.shrink()
            child.terminate_controlled()
            self.on_shrink(1)
        if len(idle) < n:
            raise ValueError("children are busy")


class Prefork(CeleryPrefork):  # type: ignore[misc]
    """`celery worker -P prefork`, the default."""

    Pool = _Children

    def on_start(self) -> None:
        self.options["soft_timeout"] = None
        super().on_start()


def register() -> None:
    """Make `-P threads` and `-P prefork` mean these pools."""
    for pool in (Threads, Prefork):
        concurrency.ALIASES[pool.__name__.lower()] = f"{__name__}:{pool.__name__}"
