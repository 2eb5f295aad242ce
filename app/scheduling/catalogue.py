"""Which tasks exist, by which names they may be called, and which may be scheduled.

The worker package fills the catalogue from Celery's registry; the domain only asks it.
"""

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from app.errors import FieldError, InvalidInput, NotFound
from app.scheduling.messages import DEFAULT_QUEUE


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """One registered task. ``path`` is the dotted path of its function; limits are seconds."""

    name: str
    path: str
    aliases: tuple[str, ...] = ()
    description: str = ""
    schedulable: bool = True
    queue: str = DEFAULT_QUEUE
    soft_time_limit: float | None = None
    time_limit: float | None = None
    max_attempts: int = 1
    on_worker_lost: str = "fail"
    concurrency_key: str | None = None
    concurrency_limit: int | None = None
    rate_limit: str | None = None
    parameters: dict[str, Any] | None = None


class Catalogue:
    """The tasks of this code, found by registered name, dotted path or declared alias."""

    def __init__(self, tasks: Iterable[TaskSpec]) -> None:
        self._by_name = {task.name: task for task in sorted(tasks, key=lambda task: task.name)}
        self._names: dict[str, str] = {}
        for task in self._by_name.values():
            for alias in (task.path, *task.aliases):
                self._names.setdefault(alias, task.name)
        self._names.update({name: name for name in self._by_name})

    def __iter__(self) -> Iterator[TaskSpec]:
        return iter(self._by_name.values())

    def find(self, path: str) -> TaskSpec | None:
        """The task that ``path`` names in any of the three ways, or None."""
        name = self._names.get(path)
        return None if name is None else self._by_name[name]

    def schedulable(self, path: str, field: str) -> TaskSpec:
        """As `find`, for a caller who wants to schedule it.

        Raises:
            InvalidInput: no such task (near names are suggested), or it may not be scheduled.
        """
        task = self.find(path)
        if task is None:
            raise InvalidInput(FieldError(field, f"No task has this name. {self._suggest(path)}"))
        if not task.schedulable:
            raise InvalidInput(FieldError(field, "This task may not be scheduled (schedulable=False)."))
        return task

    def named(self, name: str) -> TaskSpec:
        """As `find`.

        Raises:
            NotFound: no such task; the message suggests near names.
        """
        task = self.find(name)
        if task is None:
            raise NotFound(f"No task has this name. {self._suggest(name)}")
        return task

    def _suggest(self, path: str) -> str:
        near = difflib.get_close_matches(path, list(self._names), n=3, cutoff=0.6)
        if near:
            return f"Did you mean {' or '.join(near)}?"
        return "GET /api/v1/tasks lists the registered names."
