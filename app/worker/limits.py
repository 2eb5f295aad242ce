"""The limits of plain functions. A thread of the process that executes them watches, and acts when one has passed.

A soft limit raises `SoftTimeLimitExceeded` in the body, and only there: in a prefork child and in the solo pool by a
signal, at once; in the threads pool, where signals reach no thread, as soon as it executes Python again, so not
while it is inside one blocking call (`time.sleep`, a query). A coroutine is cancelled by the bridge.

At its hard limit a prefork child is killed by its parent. In the other pools a plain function cannot be stopped, nor a
coroutine that computes without awaiting: the run is recorded as timed out, and this worker is replaced.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from billiard.exceptions import TimeLimitExceeded
from celery import signals

from app.worker import liveness, outcomes, replacement
from app.worker.bridge import CLEAN_UP
from app.worker.deadlines import deadlines
from app.worker.execution import Execution
from app.worker.interruption import interrupted


def of(request: Any, task: Any) -> tuple[float | None, float | None]:
    """Hard and soft limit of a run in seconds: those of its message, of its task, of its worker's command line."""
    hard, soft = getattr(request, "timelimit", None) or (None, None)
    return hard or task.time_limit or _worker.hard, soft or task.soft_time_limit or _worker.soft


@contextmanager
def watched(app: Any, running: Execution, task: Any, *, awaits: bool) -> Iterator[None]:
    """Watch the limits of a body; a coroutine is first cancelled by the bridge, a pool's child killed by its parent."""
    hard, soft = of(running.request, task)
    with ExitStack() as limits:
        if hard and not liveness.in_pool_child():
            past = time.monotonic() + hard + (CLEAN_UP if awaits else 0.0)
            limits.enter_context(deadlines.until(past, lambda: _exceeded(app, running, hard)))
        if soft and not awaits:
            limits.enter_context(interrupted(soft))
        yield


def _exceeded(app: Any, running: Execution, limit: float) -> None:
    outcome = outcomes.outcome_of(TimeLimitExceeded(limit))
    ended = outcomes.finish(app, running.run_id, running.attempt, outcome)
    # Somebody else may have ended the run; what is stuck here is stuck all the same.
    if ended is not None or not running.returned:
        replacement.begin(f"run {running.run_id} cannot be stopped at its hard limit", {str(running.run_id)})


class _Worker:
    """The limits that this worker was started with, for runs that have none."""

    hard: float | None = None
    soft: float | None = None


_worker = _Worker()


@signals.worker_init.connect(weak=False)
def _take_defaults(sender: Any, **_: Any) -> None:
    _worker.hard, _worker.soft = sender.time_limit, sender.soft_time_limit
