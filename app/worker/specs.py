"""What the catalogue says of a Celery task."""

import inspect
from typing import Any

from app.scheduling.catalogue import TaskSpec
from app.scheduling.limiting import spacing
from app.scheduling.parameters import Parameters
from app.worker import codec


def spec_of(task: Any) -> TaskSpec:
    """Name, path, parameters and defaults of a registered task; with `typing=False` arguments are not checked."""
    function = inspect.unwrap(task.run)
    bound = inspect.ismethod(task.run)
    lines = (inspect.getdoc(function) or "").strip().splitlines()
    return TaskSpec(
        name=task.name,
        path=f"{task.__module__}.{getattr(task, '__qualname__', type(task).__qualname__)}",
        aliases=tuple(task.aliases),
        description=lines[0] if lines else "",
        schedulable=task.schedulable,
        queue=task.default_queue,
        soft_time_limit=task.soft_time_limit,
        time_limit=task.time_limit,
        max_attempts=task.max_attempts,
        on_worker_lost=task.on_worker_lost,
        concurrency_key=task.concurrency_key,
        concurrency_limit=task.concurrency_limit,
        rate_limit=_rate(task),
        parameters=Parameters(function, bound=bound, decode=codec.from_stored) if task.typing else None,
    )


def _rate(task: Any) -> str | None:
    """Raises ValueError when it is not a rate."""
    rate: str | None = task.rate_limit
    if rate is not None:
        spacing(rate)
    return rate
