"""Units of work on schedules, each for a sync session whose owner commits.

Who edits locks the schedule's clock first, as a firing beat does, so an edit and a firing never
overlap. Only a change of timing or of state moves the next tick, and it never fires in the past.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.errors import Conflict, FieldError, InvalidInput, NotFound
from app.scheduling import statements, timing
from app.scheduling.calendars import require
from app.scheduling.catalogue import Catalogue
from app.scheduling.config import CRONTAB_FIELDS, ExtraConfig, ScheduleCreate, ScheduleUpdate
from app.scheduling.ids import new_id
from app.scheduling.models import NOW, ClockRow, ScheduleRow, ScheduleVersionRow

VERSIONED = (
    "task_name",
    "task_path",
    "task",
    "task_type",
    "state",
    "schedule",
    "task_args",
    "task_kwargs",
    "task_extra_config",
    "description",
)
PLAIN = ("task_name", "task_path", "task_type", "task_args", "task_kwargs")


@dataclass(frozen=True, slots=True)
class ScheduleView:
    """A schedule and its next nominal instant."""

    row: ScheduleRow
    next_run_at: datetime | None


def create(session: Session, catalogue: Catalogue, body: ScheduleCreate, actor: str) -> ScheduleView:
    """Store a schedule and set its clock.

    Raises:
        InvalidInput: the task, its timing or a policy is not valid; the error names the field.
    """
    task = catalogue.schedulable(body.task_path, "task_path")
    now = database_time(session)
    parsed = _timing(body, now)
    require(session, body.task_extra_config.calendars)
    if parsed is None:
        problem = "Say when it runs: a schedule object, or task_crontab_minute and the like."
        raise InvalidInput(FieldError("schedule", problem))
    row = ScheduleRow(
        id=new_id(),
        version=1,
        task_name=body.task_name,
        task_path=body.task_path,
        task=task.name,
        task_type=body.task_type,
        state="active" if body.task_enabled else "disabled",
        schedule=parsed.as_dict(),
        task_args=body.task_args,
        task_kwargs=body.task_kwargs,
        task_extra_config=_dump(body.task_extra_config),
        description=body.description,
        created_at=now,
        updated_at=now,
    )
    clock = ClockRow(schedule_id=row.id, next_run_at=_first_tick(parsed, now) if body.task_enabled else None)
    session.add(row)
    session.flush()
    session.add(clock)
    _keep_version(session, row, "create", actor)
    session.execute(statements.NOTIFY_BEATS)
    return ScheduleView(row, clock.next_run_at)


def update(
    session: Session, catalogue: Catalogue, schedule_id: UUID, body: ScheduleUpdate, actor: str
) -> ScheduleView:
    """Change what ``body`` gives and nothing else.

    An invalid or completed schedule becomes active again when its timing or task is mended.

    Raises:
        NotFound: there is none with this id.
        InvalidInput: as for `create`.
        Conflict: it would be active, and no tick is left in it.
    """
    row, clock = locked(session, schedule_id)
    now = database_time(session)
    _change_fields(session, row, catalogue, body)
    parsed = _timing(body, now)
    if parsed is not None:
        row.schedule = parsed.as_dict()
    state = _state_after(row, body)
    if parsed is not None or state != row.state:
        clock.next_run_at = _next_tick(row, now) if state == "active" else None
    row.state = state
    if state == "active":
        row.state_reason = None
    row.version += 1
    row.updated_at = now
    _keep_version(session, row, "update", actor)
    session.execute(statements.NOTIFY_BEATS)
    return ScheduleView(row, clock.next_run_at)


def remove(session: Session, schedule_id: UUID, actor: str) -> None:
    """Delete a schedule; its runs and its versions stay.

    Raises:
        NotFound: there is none with this id.
    """
    row, _ = locked(session, schedule_id)
    row.version += 1
    _keep_version(session, row, "delete", actor)
    session.flush()
    session.execute(delete(ScheduleRow).where(ScheduleRow.id == schedule_id))


def view(session: Session, schedule_id: UUID) -> ScheduleView:
    """One schedule.

    Raises:
        NotFound: there is none with this id.
    """
    found = session.execute(
        select(ScheduleRow, ClockRow.next_run_at)
        .join(ClockRow, ClockRow.schedule_id == ScheduleRow.id)
        .where(ScheduleRow.id == schedule_id)
    ).one_or_none()
    if found is None:
        raise _no_schedule()
    return ScheduleView(found[0], found[1])


def locked(session: Session, schedule_id: UUID) -> tuple[ScheduleRow, ClockRow]:
    """One schedule, its clock locked until the transaction ends.

    Raises:
        NotFound: there is none with this id.
    """
    clock = session.scalar(
        select(ClockRow).where(ClockRow.schedule_id == schedule_id).with_for_update(key_share=True)
    )
    row = session.get(ScheduleRow, schedule_id) if clock is not None else None
    if clock is None or row is None:
        raise _no_schedule()
    return row, clock


def database_time(session: Session) -> datetime:
    """What the one clock that decides says."""
    return session.execute(select(NOW)).scalar_one()  # type: ignore[no-any-return]


def _change_fields(session: Session, row: ScheduleRow, catalogue: Catalogue, body: ScheduleUpdate) -> None:
    if body.task_path is not None:
        row.task = catalogue.schedulable(body.task_path, "task_path").name
    for name in PLAIN:
        value = getattr(body, name)
        if value is not None:
            setattr(row, name, value)
    if "description" in body.model_fields_set:
        row.description = body.description
    if body.task_extra_config is not None:
        require(session, body.task_extra_config.calendars)
        row.task_extra_config = _dump(body.task_extra_config)


def _state_after(row: ScheduleRow, body: ScheduleUpdate) -> str:
    if body.task_enabled is not None:
        return "active" if body.task_enabled else "disabled"
    mends = body.schedule is not None or body.flat() or body.task_path is not None
    return "active" if mends and row.state in ("invalid", "completed") else row.state


def _timing(body: ScheduleCreate | ScheduleUpdate, now: datetime) -> timing.Timing | None:
    stated = body.timing()
    if stated is None:
        return None
    try:
        parsed = timing.parse(stated)
        timing.refuse_past(parsed, now)
    except timing.TimingError as error:
        field = f"schedule.{error.field}" if body.schedule is not None else _flat_field(error, stated)
        raise InvalidInput(FieldError(field, error.problem)) from None
    return parsed


def _flat_field(error: timing.TimingError, stated: dict[str, Any]) -> str:
    """Which flat field is wrong: the one that is so also among stars."""
    if error.field == "timezone":
        return "task_crontab_timezone"
    parts = stated["expression"].split()
    for position, name in enumerate(CRONTAB_FIELDS):
        alone = ["*"] * len(CRONTAB_FIELDS)
        alone[position] = parts[position]
        try:
            timing.parse({"type": "crontab", "expression": " ".join(alone), "day_match": "and"})
        except timing.TimingError:
            return f"task_crontab_{name}"
    return "task_crontab_day_of_month"


def _first_tick(parsed: timing.Timing, now: datetime) -> datetime | None:
    # A one-off in the past got here because it asked to run at once.
    return max(parsed.at, now) if isinstance(parsed, timing.OneOff) else parsed.next_after(now)


def _next_tick(row: ScheduleRow, now: datetime) -> datetime:
    upcoming = timing.parse(row.schedule).next_after(now)
    if upcoming is None:
        raise Conflict("No tick is left in this schedule. Give it a new schedule in the same change.")
    return upcoming


def _dump(extra: ExtraConfig) -> dict[str, Any]:
    return extra.model_dump(mode="json", exclude_unset=True)


def _no_schedule() -> NotFound:
    return NotFound("There is no schedule with this id. GET /api/v1/scheduled-tasks lists them.")


def _keep_version(session: Session, row: ScheduleRow, action: str, author: str) -> None:
    config = {name: getattr(row, name) for name in VERSIONED}
    session.add(
        ScheduleVersionRow(
            schedule_id=row.id, version=row.version, action=action, config=config, author=author
        )
    )
