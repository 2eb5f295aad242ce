"""Schedules that are declared, in code beside their task or in a file: what can be written, and what is wrong with it.

Each has a key that stays the same for its life; owner and key together say which stored schedule it is.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, Literal

from pydantic import Field, ValidationError

from app.errors import FieldError, InvalidInput
from app.scheduling.config import CRONTAB_FIELDS, ExtraConfig, ScheduleCreate, ScheduleFields, TaskType
from app.scheduling.findings import message_of

MAX_KEY = 200
_DATA = ("schedule", "task_args", "task_kwargs")


class Owner(StrEnum):
    """Where a schedule is declared."""

    CODE = "code"
    FILE = "file"

    @property
    def place(self) -> str:
        """In words."""
        return "the code" if self is Owner.CODE else "the file of schedules"


@dataclass(frozen=True, slots=True)
class Declaration:
    """One declared schedule. ``source`` says where it stands, for messages."""

    owner: Owner
    key: str
    body: ScheduleCreate
    source: str


@dataclass(frozen=True, slots=True)
class Declared:
    """All that is declared by ``owners``: what one of them has stored and is not here has lost its declaration."""

    owners: frozenset[Owner]
    declarations: tuple[Declaration, ...]


class TaskSchedule(ScheduleFields):
    """A schedule beside its task: `@app.task(schedules=[TaskSchedule(schedule=cron("0 6 * * *"))])`.

    ``key`` is the task's name when it is absent, ``task_name`` the first line of the task's documentation.
    """

    key: str | None = Field(None, min_length=1, max_length=MAX_KEY)
    task_name: str | None = Field(None, min_length=1, max_length=200)
    task_type: TaskType = "business"
    task_enabled: bool = True
    task_args: list[Any] = Field(default_factory=list)
    task_kwargs: dict[str, Any] = Field(default_factory=dict)
    task_extra_config: ExtraConfig = Field(default_factory=ExtraConfig)


def cron(
    expression: str,
    timezone: str = "UTC",
    *,
    day_match: Literal["or", "and"] = "or",
    dst_gap: Literal["run", "skip"] = "run",
) -> dict[str, Any]:
    """The `schedule` of a crontab expression."""
    given = {"expression": expression, "timezone": timezone, "day_match": day_match, "dst_gap": dst_gap}
    return {"type": "crontab", **given}


def every(interval: timedelta, *, fixed_delay: bool = False) -> dict[str, Any]:
    """The `schedule` of an interval of whole seconds; ``fixed_delay`` counts from the end of each run.

    Elapsed time: for days of wall time write `{"type": "interval", "every": 1, "unit": "days", "timezone": …}`.
    """
    seconds = interval / timedelta(seconds=1)
    if seconds < 1 or seconds != int(seconds):
        raise ValueError("an interval is a whole number of seconds, and at least one")
    return {"type": "interval", "every": int(seconds), "unit": "seconds"} | (
        {"fixed_delay": True} if fixed_delay else {}
    )


def beside_task(
    task: str, summary: str, schedules: Iterable[TaskSchedule | Mapping[str, Any]]
) -> Iterator[Declaration]:
    """What `@app.task(schedules=…)` declares.

    Raises:
        InvalidInput: a schedule is not valid; the field starts with the task's name.
    """
    for each in schedules:
        given = each.model_dump(exclude_unset=True) if isinstance(each, TaskSchedule) else dict(each)
        key = given.pop("key", None) or task
        given.setdefault("task_name", summary[:200] or task)
        yield read(Owner.CODE, key, {"task_path": task} | given, f"the task {task}")


def in_module(module: str, schedules: Iterable[Mapping[str, Any]]) -> Iterator[Declaration]:
    """What a module's `DEFAULT_SCHEDULES` declares; each has a `key`.

    Raises:
        InvalidInput: a schedule is not valid; the field starts with the module's name.
    """
    for number, each in enumerate(schedules):
        given = dict(each)
        key = given.pop("key", None)
        if not isinstance(key, str):
            raise InvalidInput(FieldError(f"{module}: [{number}].key", _NO_KEY))
        yield read(Owner.CODE, key, given, f"{module}: {key}")


def read(owner: Owner, key: str, given: Mapping[str, Any], source: str) -> Declaration:
    """One declaration.

    Raises:
        InvalidInput: a field is not valid; its name starts with ``source``.
    """
    if not key or len(key) > MAX_KEY or not key.isprintable():
        raise InvalidInput(FieldError(source, f"A key has 1 to {MAX_KEY} printable characters."))
    wrong: list[FieldError] = []
    plain = {
        name: _plain(value, f"{source}.{name}", wrong) if name in _DATA else value
        for name, value in given.items()
    }
    for part in CRONTAB_FIELDS:
        # A lone number is a field of a crontab, however the file's language reads it.
        value = plain.get(f"task_crontab_{part}")
        if isinstance(value, int) and not isinstance(value, bool):
            plain[f"task_crontab_{part}"] = str(value)
    if wrong:
        raise InvalidInput(wrong)
    try:
        body = ScheduleCreate.model_validate(plain)
    except ValidationError as error:
        findings = error.errors(include_url=False, include_input=False)
        raise InvalidInput([_told(finding, source) for finding in findings]) from None
    return Declaration(owner, key, body, source)


def unique(declarations: Sequence[Declaration]) -> tuple[Declaration, ...]:
    """The same, when each key of an owner is there once.

    Raises:
        InvalidInput: a key is there twice.
    """
    first: dict[tuple[Owner, str], str] = {}
    wrong = []
    for each in declarations:
        before = first.setdefault((each.owner, each.key), each.source)
        if before is not each.source:
            problem = f"The key {each.key} is also declared in {before}. Give one of them another `key`."
            wrong.append(FieldError(each.source, problem))
    if wrong:
        raise InvalidInput(wrong)
    return tuple(declarations)


_NO_KEY = "Each needs a key: a name that stays the same as long as the schedule exists."


def _told(finding: Mapping[str, Any], source: str) -> FieldError:
    path = [str(part) for part in finding["loc"]]
    field = ".".join([source, *path])
    if finding["type"] != "extra_forbidden":
        return FieldError(field, message_of(finding))
    model = ExtraConfig if path[:-1] == ["task_extra_config"] else ScheduleCreate
    near = difflib.get_close_matches(path[-1], list(model.model_fields), n=1, cutoff=0.7)
    hint = (
        f" Did you mean {near[0]}?" if near else f" Known keys are {', '.join(sorted(model.model_fields))}."
    )
    return FieldError(field, f"Unknown key.{hint}")


def _plain(value: Any, path: str, wrong: list[FieldError]) -> Any:
    """The value as JSON has it; what JSON has no form of is added to ``wrong``."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float) and value - value == 0:
        return value
    if isinstance(value, list | tuple):
        return [_plain(part, f"{path}[{number}]", wrong) for number, part in enumerate(value)]
    if isinstance(value, dict):
        wrong += [
            FieldError(path, "Keys must be strings; put numbers in quotes.")
            for key in value
            if not isinstance(key, str)
        ]
        return {str(key): _plain(part, f"{path}.{key}", wrong) for key, part in value.items()}
    problem = (
        "Must be what JSON has: text, a number, true, false, null, a list or an object. Write dates as text."
    )
    wrong.append(FieldError(path, problem))
    return None
