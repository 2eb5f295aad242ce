"""People's schedules as a document, out and in again: what was exported imports as it is.

    schedules:
      Nightly clean-up:
        task_path: auth.cleanup_old_sessions
        schedule: {type: crontab, expression: "20 3 * * *"}

The form is that of the file of schedules (`app.scheduling.schedule_file`). The key is the schedule's name; where two
schedules share a name it is the id, and `task_name` is said. `pause_note` is of a paused one. Nothing is deleted.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any
from uuid import UUID

import yaml
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from app.db import locks
from app.errors import Conflict, FieldError, InvalidInput
from app.scheduling import declared, pausing, schedule_file, schedules
from app.scheduling.calculating import interruptible
from app.scheduling.catalogue import Catalogue
from app.scheduling.declarations import MAX_KEY, Declaration, Owner, unique
from app.scheduling.models import ScheduleRow

NOTE = "pause_note"

Entry = dict[str, Any]


class ImportAction(StrEnum):
    """What importing does to one entry."""

    CREATE = "create"
    UPDATE = "update"
    UNCHANGED = "unchanged"
    CONFLICT = "conflict"
    """It cannot be told which schedule is meant, or that one is declared elsewhere."""


@dataclass(frozen=True, slots=True)
class Step:
    """One entry, what is done to it, and the fields that change: each from what to what."""

    key: str
    action: ImportAction
    schedule_id: UUID | None
    changes: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    problem: str | None = None


def export(session: Session, rows: Sequence[ScheduleRow]) -> dict[str, Entry]:
    """Schedules by key; declared ones among them are not to be imported, they are someone else's."""
    names = {row.task_name for row in rows}
    counted = session.execute(
        select(ScheduleRow.task_name)
        .where(ScheduleRow.task_name.in_(names))
        .group_by(ScheduleRow.task_name)
        .having(func.count() > 1)
    )
    ambiguous = set(counted.scalars())
    return dict(_entry(row, by_id=row.task_name in ambiguous) for row in rows)


def dumped(entries: Mapping[str, Entry]) -> str:
    """The document in YAML."""
    return yaml.safe_dump({"schedules": dict(entries)}, sort_keys=False, allow_unicode=True, width=100)


def parsed(
    text_of: str | None, given: Mapping[str, Entry] | None
) -> tuple[list[Declaration], dict[str, str]]:
    """What is to be imported, from YAML or from JSON, and the notes of those that are to be paused, by key.

    Raises:
        InvalidInput: each field starts with the entry that is wrong.
    """
    if (text_of is None) == (given is None):
        raise InvalidInput(FieldError("schedules", "Give either schedules or yaml."))
    document = {"schedules": given} if text_of is None else schedule_file.load(text_of, "yaml")
    notes: dict[str, str] = {}
    wrong: list[FieldError] = []
    entries = []
    for key, entry, source in schedule_file.entries(document, "body" if text_of is None else "yaml"):
        note = entry.get(NOTE)
        entries.append((key, {name: value for name, value in entry.items() if name != NOTE}, source))
        if note is not None and not (isinstance(note, str) and 0 < len(note) <= pausing.MAX_NOTE):
            wrong.append(
                FieldError(f"{source}.{NOTE}", f"Must be text of 1 to {pausing.MAX_NOTE} characters.")
            )
        elif note is not None:
            notes[key] = note
    if wrong:
        raise InvalidInput(wrong)
    return list(unique(schedule_file.declarations(entries))), notes


def import_(
    session: Session,
    catalogue: Catalogue,
    declarations: Sequence[Declaration],
    wanted: Mapping[str, Mapping[str, Any]],
    notes: Mapping[str, str],
    *,
    actor: str,
    reason: str | None,
    skip_conflicts: bool,
) -> list[Step]:
    """Create and update what is `wanted`, all or nothing; the caller commits, or, for a plan, takes it back.

    Raises:
        InvalidInput: entries are not valid; each field starts with the entry.
        Conflict: there are conflicts, and they are not to be skipped.
    """
    session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": locks.TRANSFER})
    found = _Stored(session, declarations)
    steps = [_compare(each, wanted[each.key], notes.get(each.key), found) for each in declarations]
    steps = _without_doubles(steps)
    conflicts = [step for step in steps if step.action is ImportAction.CONFLICT]
    if conflicts and not skip_conflicts:
        told = "; ".join(f"{step.key}: {step.problem}" for step in conflicts[:5])
        raise Conflict(f"{told} Nothing was imported. Correct these, or ask to skip conflicts.")
    schedules.lock_all(session, [step.schedule_id for step in steps if step.schedule_id])
    importer = _Importer(session, catalogue, actor, reason)
    done = [
        declared.at(each.source, partial(importer.carry_out, each, step, notes.get(each.key)))
        for each, step in zip(declarations, steps, strict=True)
    ]
    session.flush()
    return done


@dataclass(frozen=True, slots=True)
class _Importer:
    session: Session
    catalogue: Catalogue
    actor: str
    reason: str | None

    def carry_out(self, declaration: Declaration, step: Step, note: str | None) -> Step:
        session, identifier = self.session, step.schedule_id
        if step.action is ImportAction.CREATE:
            identifier = schedules.create(session, self.catalogue, declaration.body, self.actor).row.id
        elif step.action is ImportAction.UPDATE and identifier is not None and set(step.changes) - {NOTE}:
            change = declared.change_of(declaration.body, set(step.changes) - {NOTE})
            change = change.model_copy(update={"reason": self.reason})
            schedules.update(session, self.catalogue, identifier, change, self.actor)
        if note is not None and identifier is not None and NOTE in step.changes:
            session.flush()
            pausing.pause(session, identifier, note=note, author=self.actor)
        return Step(step.key, step.action, identifier, step.changes, step.problem)


class _Stored:
    """The schedules that the entries may mean, by id and by name."""

    def __init__(self, session: Session, declarations: Sequence[Declaration]) -> None:
        ids = [found for each in declarations if (found := _as_id(each.key))]
        names = {each.body.task_name for each in declarations}
        rows = session.scalars(
            select(ScheduleRow).where(ScheduleRow.id.in_(ids) | ScheduleRow.task_name.in_(names))
        ).all()
        self._by_id = {row.id: row for row in rows}
        self._by_name: dict[str, list[ScheduleRow]] = {}
        for row in rows:
            self._by_name.setdefault(row.task_name, []).append(row)

    def meant(self, declaration: Declaration) -> ScheduleRow | str | None:
        """The schedule; None if there is none yet; a text says why it cannot be told."""
        identifier = _as_id(declaration.key)
        if identifier is not None:
            named = self._by_id.get(identifier)
            return _refused(named) or named
        rows = self._by_name.get(declaration.body.task_name, [])
        if len(rows) > 1:
            ids = ", ".join(str(row.id) for row in rows[:3])
            return f"Several schedules have this name; use the id as the key: {ids}."
        return (_refused(rows[0]) or rows[0]) if rows else None


def _refused(row: ScheduleRow | None) -> str | None:
    if row is None or row.owner is None:
        return None
    return f"The schedule of this name is declared in {Owner(row.owner).place} as {row.owner_key}; change it there."


def _compare(declaration: Declaration, wanted: Mapping[str, Any], note: str | None, stored: _Stored) -> Step:
    row = stored.meant(declaration)
    if isinstance(row, str):
        return Step(declaration.key, ImportAction.CONFLICT, None, problem=row)
    if row is None:
        told: dict[str, tuple[Any, Any]] = {} if note is None else {NOTE: (None, note)}
        return Step(declaration.key, ImportAction.CREATE, None, told)
    changes: dict[str, tuple[Any, Any]] = {
        name: (getattr(row, name), wanted[name])
        for name in declared.FIELDS
        if not declared.same(getattr(row, name), wanted[name])
    }
    enabled = row.state != "disabled"
    if declaration.body.task_enabled is not enabled:
        changes["task_enabled"] = (enabled, declaration.body.task_enabled)
    if note is not None and (row.state != "paused" or row.pause_note != note):
        changes[NOTE] = (row.pause_note, note)
    return Step(declaration.key, ImportAction.UPDATE if changes else ImportAction.UNCHANGED, row.id, changes)


def _without_doubles(steps: Sequence[Step]) -> list[Step]:
    seen: dict[UUID, str] = {}
    told = []
    for step in steps:
        first = None if step.schedule_id is None else seen.setdefault(step.schedule_id, step.key)
        double = first is not None and first != step.key
        problem = f"It means the same schedule as {first}."
        told.append(Step(step.key, ImportAction.CONFLICT, None, problem=problem) if double else step)
    return told


def wanted(catalogue: Catalogue, declarations: Iterable[Declaration]) -> dict[str, dict[str, Any]]:
    """What each entry asks for, as it is stored. All of them are checked before anything is refused.

    Raises:
        InvalidInput: entries are not valid; each field starts with the entry.
    """
    found: dict[str, dict[str, Any]] = {}
    wrong: list[FieldError] = []
    for each in interruptible(declarations):
        try:
            found[each.key] = declared.at(each.source, partial(declared.values_of, catalogue, each.body))
        except InvalidInput as error:
            wrong.extend(error.errors)
    if wrong:
        raise InvalidInput(wrong)
    return found


def _entry(row: ScheduleRow, *, by_id: bool) -> tuple[str, Entry]:
    name = row.task_name
    usable = not by_id and _as_id(name) is None and name.isprintable() and 0 < len(name) <= MAX_KEY
    entry: Entry = {} if usable else {"task_name": name}
    entry |= {"task_path": row.task_path, "schedule": row.schedule}
    if row.task_type != "business":
        entry["task_type"] = row.task_type
    if row.state == "disabled":
        entry["task_enabled"] = False
    for column in ("task_args", "task_kwargs", "task_extra_config"):
        if value := getattr(row, column):
            entry[column] = value
    if row.description is not None:
        entry["description"] = row.description
    if row.state == "paused" and row.pause_note:
        entry[NOTE] = row.pause_note
    return name if usable else str(row.id), entry


def _as_id(key: str) -> UUID | None:
    try:
        return UUID(key)
    except ValueError:
        return None
