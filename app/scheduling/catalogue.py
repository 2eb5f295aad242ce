"""Which tasks exist, by which names they may be called, and which may be scheduled.

The worker package fills the catalogue from Celery's registry; the domain only asks it.
"""

import difflib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from app.errors import FieldError, InvalidInput, NotFound
from app.scheduling.messages import DEFAULT_QUEUE
from app.scheduling.parameters import Parameters


class Unfit(InvalidInput):
    """The task does not exist, may not be scheduled, or cannot be called with these arguments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """One registered task. ``path`` is the dotted path of its function; limits are seconds.

    Without ``parameters`` its arguments are not checked.
    """

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
    parameters: Parameters | None = None

    def require_fit(self, args: Sequence[Any], kwargs: Mapping[str, Any], *, prefix: str = "task_") -> None:
        """Refuse arguments that the task cannot be called with.

        Raises:
            Unfit: the fields are `<prefix>args[n]` and `<prefix>kwargs.name`.
        """
        wrong = self.parameters.check(args, kwargs, prefix=prefix) if self.parameters else []
        if wrong:
            raise Unfit(wrong)


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
            Unfit: no such task (near names are suggested), or it may not be scheduled.
        """
        task = self.find(path)
        if task is None:
            raise Unfit(FieldError(field, f"No task has this name. {self._suggest(path)}"))
        if not task.schedulable:
            raise Unfit(FieldError(field, "This task may not be scheduled (schedulable=False)."))
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

    @cached_property
    def fingerprint(self) -> str:
        """Another one whenever a stored schedule may fit no longer, or again."""
        said = [
            (task.name, task.path, task.aliases, task.schedulable, task.parameters and task.parameters.rules)
            for task in self
        ]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    def _suggest(self, path: str) -> str:
        near = difflib.get_close_matches(path, list(self._names), n=3, cutoff=0.6)
        if near:
            return f"Did you mean {' or '.join(near)}?"
        return "GET /api/v1/tasks lists the registered names."
