"""The versions of a schedule: read, compared, and brought back."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from app.errors import Conflict, NotFound
from app.scheduling import pausing, schedules, versions
from app.scheduling.catalogue import Catalogue
from app.scheduling.config import ScheduleCreate, ScheduleUpdate
from app.scheduling.models import ScheduleRow, ScheduleVersionRow
from app.scheduling.schedules import Comeback, ScheduleView
from app.scheduling.understanding import why

Body = TypeVar("Body", ScheduleCreate, ScheduleUpdate)
# State is not brought back: that is what enable, pause and resume are for.
RESTORED = (
    "task_name",
    "task_path",
    "task_type",
    "schedule",
    "task_args",
    "task_kwargs",
    "task_extra_config",
    "description",
)
_ONE_AT_A_TIME = text("SELECT pg_advisory_xact_lock(hashtextextended('restore ' || :id, 0))")


@dataclass(frozen=True, slots=True)
class Difference:
    """What differs from one version to another: each field from what to what."""

    before: ScheduleVersionRow | None
    after: ScheduleVersionRow
    changes: dict[str, tuple[Any, Any]]


def page(session: Session, schedule_id: UUID, *, limit: int, before: int | None) -> list[ScheduleVersionRow]:
    """Versions, newest first; also of a schedule that was deleted.

    Raises:
        NotFound: there never was a schedule with this id.
    """
    query = select(ScheduleVersionRow).where(ScheduleVersionRow.schedule_id == schedule_id)
    if before is not None:
        query = query.where(ScheduleVersionRow.version < before)
    found = list(session.scalars(query.order_by(ScheduleVersionRow.version.desc()).limit(limit)))
    if not found and before is None:
        raise NotFound("There is no schedule with this id, and never was.")
    return found


def version(session: Session, schedule_id: UUID, number: int) -> ScheduleVersionRow:
    """One version; raises NotFound."""
    row = session.get(ScheduleVersionRow, (schedule_id, number))
    if row is None:
        raise NotFound("The schedule has no version of this number. GET …/history lists them.")
    return row


def difference(session: Session, schedule_id: UUID, number: int, against: int | None) -> Difference:
    """What a version changed, or how it differs from the one ``against`` which it is held.

    Raises:
        NotFound: there is no such schedule or version.
    """
    after = version(session, schedule_id, number)
    if against is None:
        before = next(iter(page(session, schedule_id, limit=1, before=number)), None)
    else:
        before = version(session, schedule_id, against)
    old = {} if before is None else before.config
    names = sorted({*old, *after.config})
    changes = {
        name: (old.get(name), after.config.get(name))
        for name in names
        if old.get(name) != after.config.get(name)
    }
    return Difference(before, after, changes)


def restore(
    session: Session,
    catalogue: Catalogue,
    schedule_id: UUID,
    number: int,
    *,
    actor: str,
    expected: Collection[int] | None,
    reason: str | None,
) -> ScheduleView:
    """Give a schedule the configuration of an earlier version, as a version of its own.

    A deleted one comes back under its id, disabled or paused if it was, and else active from now on: as its own,
    with the runs and the history that it had. `max_runs` counts anew.

    Raises:
        NotFound: there is no such version.
        Conflict: what it says is not valid any more.
        PreconditionFailed, InvalidInput, Conflict: as for `schedules.update`; of a deleted schedule the newest version
            is that of its deletion.
    """
    config = version(session, schedule_id, number).config
    # Of two who bring it back one waits, and finds it there.
    session.execute(_ONE_AT_A_TIME, {"id": str(schedule_id)})
    if session.scalar(select(ScheduleRow.id).where(ScheduleRow.id == schedule_id)) is None:
        last = page(session, schedule_id, limit=1, before=None)[0]
        versions.require(last.version, expected, "deleted schedule")
        return _undelete(session, catalogue, last, config, actor=actor, reason=reason)
    body = _body(ScheduleUpdate, {name: config[name] for name in RESTORED} | {"reason": reason})
    return schedules.update(session, catalogue, schedule_id, body, actor, expected=expected, action="restore")


def _undelete(
    session: Session,
    catalogue: Catalogue,
    last: ScheduleVersionRow,
    config: Mapping[str, Any],
    *,
    actor: str,
    reason: str | None,
) -> ScheduleView:
    was = last.config["state"]
    fields = {name: config[name] for name in RESTORED} | {"task_enabled": was != "disabled"}
    body = _body(ScheduleCreate, fields)
    comeback = Comeback(last.schedule_id, last.version + 1, reason)
    view = schedules.create(session, catalogue, body, actor, comeback=comeback)
    if was != "paused":
        return view
    session.flush()
    note = last.config.get("pause_note") or "It was paused when it was deleted."
    return pausing.pause(session, last.schedule_id, note=note, author=actor)


def _body(kind: type[Body], config: Mapping[str, Any]) -> Body:
    try:
        return kind.model_validate(config)
    except ValidationError as error:
        raise Conflict(f"This version is not valid any more: {why(error)}") from None
