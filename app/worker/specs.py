"""What the catalogue says of a Celery task."""

import inspect
from collections.abc import Callable
from typing import Any

from app.scheduling.catalogue import TaskSpec


def spec_of(task: Any) -> TaskSpec:
    """Name, path, parameters and defaults of a registered task."""
    function = inspect.unwrap(task.run)
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
        parameters=_parameters(function, bound=inspect.ismethod(task.run)),
    )


def _parameters(function: Callable[..., Any], *, bound: bool) -> dict[str, Any]:
    described: dict[str, Any] = {}
    for position, parameter in enumerate(inspect.signature(function).parameters.values()):
        if bound and position == 0:
            continue
        entry: dict[str, Any] = {
            "kind": parameter.kind.name.lower(),
            "required": parameter.default is parameter.empty
            and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD),
        }
        if parameter.annotation is not parameter.empty:
            entry["type"] = inspect.formatannotation(parameter.annotation)
        if isinstance(parameter.default, str | int | float | bool | None):
            entry["default"] = parameter.default
        described[parameter.name] = entry
    return described
