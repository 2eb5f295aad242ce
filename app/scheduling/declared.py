"""Declared schedules, synchronised with what is stored: create, update, and prune what lost its declaration.

All or nothing, in one transaction under an advisory lock, so that two deployments neither interleave nor leave half
of a set behind. A plan is the same work, taken back. Rows without an owner are people's, and are never touched.

`task_enabled` is how a declared schedule begins. From then on it belongs to operators, like pausing: applying a
declaration again keeps their choice.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from app.db import locks
from app.errors import FieldError, InvalidInput, UpbeatError
from app.scheduling import schedules, understanding
from app.scheduling.catalogue import Catalogue
from app.scheduling.config import ScheduleCreate, ScheduleUpdate
from app.scheduling.declarations import Declaration, Declared, Owner
from app.scheduling.models import ScheduleRow

T = TypeVar("T")
# Is told how many schedules were looked at, of how many, if that is known.
Told = Callable[[int, int | None], object]
FIELDS = (
    "task_name",
    "task_path",
    "task",
    "task_type",
    "schedule",
    "task_args",
    "task_kwargs",
    "task_extra_config",
    "description",
)


class Prune(StrEnum):
    """What becomes of a schedule whose declaration is gone."""

    DELETE = "delete"
    """It goes; its runs and its history stay."""
    DISABLE = "disable"
    """It stays, and fires no more."""


class Action(StrEnum):
    """What synchronising does to one schedule."""

    CREATE = "create"
    UPDATE = "update"
    UNCHANGED = "unchanged"
    ORPHANED = "orphaned"
    """Its declaration is gone; it goes on as it is, because nobody asked to prune."""
    DELETE = "delete"
    DISABLE = "disable"


@dataclass(frozen=True, slots=True)
class Stored:
    """A schedule that is stored for an owner."""

    schedule_id: UUID
    state: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Step:
    """One schedule, what is done to it, and the fields that change: each from what to what."""

    owner: Owner
    key: str
    action: Action
    schedule_id: UUID | None
    changes: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)

    @property
    def changing(self) -> bool:
        return self.action not in (Action.UNCHANGED, Action.ORPHANED)


Key = tuple[Owner, str]


def compare(
    wanted: Mapping[Key, Mapping[str, Any]], stored: Mapping[Key, Stored], prune: Prune | None = None
) -> list[Step]:
    """What would bring ``stored`` to ``wanted``; both map owner and key to the values of `FIELDS`."""
    steps = []
    for key in sorted({*wanted, *stored}):
        there, here = stored.get(key), wanted.get(key)
        if there is None:
            steps.append(Step(*key, Action.CREATE, None))
        elif here is None:
            steps.append(Step(*key, _of_orphan(there, prune), there.schedule_id))
        else:
            changes = {
                name: (there.values[name], here[name])
                for name in FIELDS
                if not same(there.values[name], here[name])
            }
            action = Action.UPDATE if changes else Action.UNCHANGED
            steps.append(Step(*key, action, there.schedule_id, changes))
    return steps


def untold(done: int, total: int | None) -> None:
    """Nobody wants to know."""


def synchronise(
    session: Session,
    catalogue: Catalogue,
    declared: Declared,
    *,
    actor: str,
    prune: Prune | None = None,
    told: Told = untold,
) -> list[Step]:
    """Bring what is stored to what is declared; the caller commits, or, for a plan, takes it back.

    Raises:
        InvalidInput: declarations are not valid; each field starts with where its declaration stands.
    """
    session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": locks.DECLARATIONS})
    by_key = {(each.owner, each.key): each for each in declared.declarations}
    wanted = _wanted(catalogue, declared.declarations)
    steps = compare(wanted, _stored(session, declared.owners), prune)
    schedules.lock_all(session, [step.schedule_id for step in steps if step.changing and step.schedule_id])
    done = []
    for step in steps:
        declaration = by_key.get((step.owner, step.key))
        if declaration is not None:
            done.append(_carry_out(session, catalogue, declaration, step, actor))
        else:
            done.append(_prune(session, catalogue, step, actor))
        told(len(done), len(steps))
    session.flush()
    return done


def _carry_out(
    session: Session, catalogue: Catalogue, declaration: Declaration, step: Step, actor: str
) -> Step:
    body, identifier = declaration.body, step.schedule_id
    if identifier is None:
        owner = (declaration.owner.value, declaration.key)
        view = at(
            declaration.source,
            lambda: schedules.create(session, catalogue, body, actor, owner=owner),
        )
        return Step(step.owner, step.key, step.action, view.row.id)
    if step.changes:
        change = change_of(body, step.changes)
        at(
            declaration.source,
            lambda: schedules.update(session, catalogue, identifier, change, actor, declared=True),
        )
    return step


def _prune(session: Session, catalogue: Catalogue, step: Step, actor: str) -> Step:
    if step.schedule_id is not None and step.action is Action.DELETE:
        schedules.remove(session, step.schedule_id, actor, declared=True)
    if step.schedule_id is not None and step.action is Action.DISABLE:
        off = ScheduleUpdate(task_enabled=False)
        schedules.update(session, catalogue, step.schedule_id, off, actor, declared=True)
    return step


def change_of(body: ScheduleCreate, changes: Iterable[str]) -> ScheduleUpdate:
    """The part of a declaration that differs; a task that an alias now stands for is a change of path."""
    names = {"task_path" if name == "task" else name for name in changes}
    values = {name: getattr(body, name) for name in names}
    if "schedule" in names:
        values["schedule"] = body.timing()
    return ScheduleUpdate(**values)


def _wanted(catalogue: Catalogue, declarations: Iterable[Declaration]) -> dict[Key, dict[str, Any]]:
    """What each declaration asks for, as it is stored. All of them are checked before anything is refused."""
    wanted: dict[Key, dict[str, Any]] = {}
    wrong: list[FieldError] = []
    for each in declarations:
        try:
            wanted[each.owner, each.key] = at(each.source, partial(values_of, catalogue, each.body))
        except InvalidInput as error:
            wrong.extend(error.errors)
    if wrong:
        raise InvalidInput(wrong)
    return wanted


def values_of(catalogue: Catalogue, body: ScheduleCreate) -> dict[str, Any]:
    """What a declaration asks for, as it is stored: the values of `FIELDS`; raises InvalidInput."""
    task = catalogue.schedulable(body.task_path, "task_path")
    task.require_fit(body.task_args, body.task_kwargs)
    parsed = understanding.stated_timing(body, None)
    if parsed is None:
        raise InvalidInput(FieldError(*schedules.NO_TIMING))
    return {
        **{name: getattr(body, name) for name in FIELDS if hasattr(body, name)},
        "task": task.name,
        "schedule": parsed.as_dict(),
        "task_extra_config": understanding.dump_extra(body.task_extra_config),
    }


def _stored(session: Session, owners: Iterable[Owner]) -> dict[Key, Stored]:
    rows = session.scalars(select(ScheduleRow).where(ScheduleRow.owner.in_(list(owners))))
    return {
        (Owner(row.owner), row.owner_key): Stored(
            row.id, row.state, {name: getattr(row, name) for name in FIELDS}
        )
        for row in rows
        if row.owner is not None and row.owner_key is not None
    }


def _of_orphan(stored: Stored, prune: Prune | None) -> Action:
    if prune is Prune.DELETE:
        return Action.DELETE
    if prune is Prune.DISABLE and stored.state != "disabled":
        return Action.DISABLE
    return Action.ORPHANED


def same(stored: Any, declared: Any) -> bool:
    """Equal as JSON: true is not 1."""
    if isinstance(stored, bool) or isinstance(declared, bool):
        return stored is declared
    if isinstance(stored, dict) and isinstance(declared, dict):
        return stored.keys() == declared.keys() and all(same(stored[k], declared[k]) for k in stored)
    if isinstance(stored, list) and isinstance(declared, list):
        return len(stored) == len(declared) and all(map(same, stored, declared))
    return bool(stored == declared)


def at(source: str, work: Callable[[], T]) -> T:
    """``work``, whose errors say where the declaration stands."""
    try:
        return work()
    except InvalidInput as error:
        raise InvalidInput(
            [FieldError(f"{source}.{each.field}", each.message) for each in error.errors]
        ) from None
    except UpbeatError as error:
        raise InvalidInput(FieldError(source, error.detail)) from None
