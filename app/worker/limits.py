"""Hard limits where no pool can end a run: in the threads and solo pools.

There a plain function cannot be stopped, nor a coroutine that computes without awaiting. When its hard
limit has passed, the run is recorded as timed out by a thread that watches, and this worker is replaced.
"""

import heapq
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from billiard.exceptions import TimeLimitExceeded

from app.worker import liveness, outcomes, replacement
from app.worker.bridge import CLEAN_UP
from app.worker.execution import Execution

logger = logging.getLogger(__name__)


def of(request: Any, task: Any) -> tuple[float | None, float | None]:
    """Hard and soft limit of a run in seconds: those of its message, then those of its task."""
    hard, soft = getattr(request, "timelimit", None) or (None, None)
    return hard or task.time_limit, soft or task.soft_time_limit


@contextmanager
def watched(app: Any, running: Execution, task: Any, *, awaits: bool) -> Iterator[None]:
    """Watch the hard limit of a body, unless the pool does; a coroutine is first cancelled by the bridge."""
    hard, _ = of(running.request, task)
    if not hard or not liveness.in_main_process():
        yield
        return
    entry = _watch.add(app, running, hard, time.monotonic() + hard + (CLEAN_UP if awaits else 0.0))
    try:
        yield
    finally:
        entry.over = True


class _Entry:
    def __init__(self, app: Any, running: Execution, limit: float) -> None:
        self.app = app
        self.running = running
        self.limit = limit
        self.over = False


class _Watch:
    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._deadlines: list[tuple[float, int, _Entry]] = []
        self._numbers = count()
        self._thread: threading.Thread | None = None

    def add(self, app: Any, running: Execution, limit: float, deadline: float) -> _Entry:
        entry = _Entry(app, running, limit)
        with self._changed:
            heapq.heappush(self._deadlines, (deadline, next(self._numbers), entry))
            if self._thread is None:
                self._thread = threading.Thread(target=self._keep, name="upbeat-limits", daemon=True)
                self._thread.start()
            self._changed.notify()
        return entry

    def _keep(self) -> None:
        while True:
            with self._changed:
                while not self._deadlines or self._deadlines[0][0] > time.monotonic():
                    first = self._deadlines[0][0] if self._deadlines else None
                    self._changed.wait(None if first is None else max(0.0, first - time.monotonic()))
                _, _, entry = heapq.heappop(self._deadlines)
            if not entry.over:
                try:
                    self._exceeded(entry)
                except Exception:
                    logger.exception("hard limit not recorded", extra={"action": "limit_not_recorded"})

    @staticmethod
    def _exceeded(entry: _Entry) -> None:
        running = entry.running
        outcome = outcomes.outcome_of(TimeLimitExceeded(entry.limit))
        if outcomes.finish(entry.app, running.run_id, running.attempt, outcome) is not None:
            replacement.begin(
                f"run {running.run_id} cannot be stopped at its hard limit", {str(running.run_id)}
            )


_watch = _Watch()
