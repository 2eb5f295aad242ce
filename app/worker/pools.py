"""Celery's threads pool, mended: it wakes the event loop when a thread has become free.

With prefetch disabled, the worker asks for its next message only when a slot is free, and looks for
that when its loop turns. Nothing turns the loop when a thread ends: a stock pool runs two tasks a
second.
"""

import os
from contextlib import suppress
from typing import Any

from celery import concurrency
from celery.concurrency.thread import TaskPool as CeleryThreads


class Threads(CeleryThreads):  # type: ignore[misc]
    """`celery worker -P threads`."""

    _wake: int | None = None

    def register_with_event_loop(self, hub: Any) -> None:
        """Let the loop watch a pipe that every finished thread writes to."""
        self._watched, self._wake = os.pipe()
        os.set_blocking(self._watched, False)
        os.set_blocking(self._wake, False)
        hub.add_reader(self._watched, self._drain)

    def on_apply(self, *args: Any, **kwargs: Any) -> Any:
        result = super().on_apply(*args, **kwargs)
        result.f.add_done_callback(self._notify)
        return result

    def _notify(self, _: Any) -> None:
        if self._wake is not None:
            with suppress(OSError):  # full: the loop is awake already
                os.write(self._wake, b".")

    def _drain(self) -> None:
        with suppress(BlockingIOError):
            while os.read(self._watched, 4096):
                pass


def register() -> None:
    """Make `-P threads` mean this pool."""
    concurrency.ALIASES["threads"] = f"{__name__}:{Threads.__name__}"
