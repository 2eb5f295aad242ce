"""The versions of a schedule: read, compared, and brought back."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.errors import NotFound
from app.scheduling import schedules
from app.scheduling.catalogue import Catalogue
from app.scheduling.config import ScheduleUpdate
from app.scheduling.models import ScheduleVersionRow
from app.scheduling.schedules import ScheduleView

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

    Raises:
        NotFound: there is no such version, or the schedule was deleted.
        PreconditionFailed, InvalidInput, Conflict: as for `schedules.update`.
    """
    config = version(session, schedule_id, number).config
    body = ScheduleUpdate.model_validate({name: config[name] for name in RESTORED} | {"reason": reason})
    return schedules.update(session, catalogue, schedule_id, body, actor, expected=expected, action="restore")
