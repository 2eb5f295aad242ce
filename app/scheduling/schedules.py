"""Units of work on schedules, each for a sync session whose owner commits.

Who edits locks the schedule's clock first, as a firing beat does, so an edit and a firing never
overlap. Only a change of timing or of state moves the next tick, and it never fires in the past.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.errors import Conflict, FieldError, InvalidInput, NotFound
from app.scheduling import statements, versions, waiting
from app.scheduling.catalogue import Catalogue
from app.scheduling.config import ScheduleCreate, ScheduleUpdate
from app.scheduling.declarations import Owner
from app.scheduling.ids import new_id
from app.scheduling.models import NOW, ClockRow, ScheduleRow, ScheduleVersionRow
from app.scheduling.passing import passed, record_range
from app.scheduling.plan import Plan
from app.scheduling.policies import LIMIT_REACHED
from app.scheduling.understanding import dump_extra, extra_of, plan_to_save, stated_timing, timing_fields

VERSIONED = (
    "task_name",
    "task_path",
    "task",
    "task_type",
    "state",
    "state_reason",
    "schedule",
    "task_args",
    "task_kwargs",
    "task_extra_config",
    "description",
    "pause_note",
)
# The author of what the product changes by itself.
SELF = "upbeat"
NO_TIMING = ("schedule", "Say when it runs: a schedule object, or task_crontab_minute and the like.")
NOTHING_LEFT = (
    "schedule",
    "Has no tick between now and its end; give it a later ends_at or another schedule.",
)
PLAIN = ("task_name", "task_path", "task_type", "task_args", "task_kwargs")
CALL = ("task_path", "task_args", "task_kwargs")


@dataclass(frozen=True, slots=True)
class ScheduleView:
    """A schedule and its next nominal instant."""

    row: ScheduleRow
    next_run_at: datetime | None


@dataclass(frozen=True, slots=True)
class Comeback:
    """That a new row is a deleted schedule which comes back: whose ``version`` this is, and why."""

    schedule_id: UUID
    version: int
    reason: str | None


def create(
    session: Session,
    catalogue: Catalogue,
    body: ScheduleCreate,
    actor: str,
    *,
    owner: tuple[str, str] | None = None,
    comeback: Comeback | None = None,
) -> ScheduleView:
    """Store a schedule and set its clock; ``owner`` and its key are those of a declared one.

    Raises:
        InvalidInput: the task, its arguments, its timing or a policy is not valid; the error names the field.
    """
    task = catalogue.schedulable(body.task_path, "task_path")
    task.require_fit(body.task_args, body.task_kwargs)
    now = database_time(session)
    parsed = stated_timing(body, now)
    if parsed is None:
        raise InvalidInput(FieldError(*NO_TIMING))
    row = ScheduleRow(
        id=new_id() if comeback is None else comeback.schedule_id,
        version=1 if comeback is None else comeback.version,
        task_name=body.task_name,
        task_path=body.task_path,
        task=task.name,
        task_type=body.task_type,
        state="active" if body.task_enabled else "disabled",
        schedule=parsed.as_dict(),
        task_args=body.task_args,
        task_kwargs=body.task_kwargs,
        task_extra_config=dump_extra(body.task_extra_config),
        description=body.description,
        owner=owner[0] if owner else None,
        owner_key=owner[1] if owner else None,
        created_at=now,
        updated_at=now,
    )
    clock = ClockRow(schedule_id=row.id)
    session.add(row)
    session.flush()
    session.add(clock)
    plan = plan_to_save(session, row)
    if body.task_enabled:
        clock.next_run_at = plan.first_tick(now)
        if clock.next_run_at is None:
            raise InvalidInput(FieldError(*NOTHING_LEFT))
    action, reason = ("create", None) if comeback is None else ("restore", comeback.reason)
    keep_version(session, row, action, actor, reason)
    session.execute(statements.NOTIFY_BEATS)
    return ScheduleView(row, clock.next_run_at)


def update(
    session: Session,
    catalogue: Catalogue,
    schedule_id: UUID,
    body: ScheduleUpdate,
    actor: str,
    *,
    expected: Collection[int] | None = None,
    declared: bool = False,
    action: str = "update",
) -> ScheduleView:
    """Change what ``body`` gives and nothing else; ``declared``: as its declaration says.

    ``expected`` are the versions that its author has seen; None for whichever there is.

    An invalid or completed schedule becomes active again when its timing or task is mended.

    Raises:
        NotFound: there is none with this id.
        PreconditionFailed: it is at another version.
        InvalidInput: as for `create`.
        Conflict: it would be active, and no tick is left in it or it does not fit its task; or it is declared, and
            more than `task_enabled` is to change.
    """
    row, clock = locked(session, schedule_id)
    versions.require(row.version, expected, "schedule")
    if not declared and body.model_fields_set - {"task_enabled", "reason"}:
        _refuse_declared(row, "Change")
    now = database_time(session)
    timed, limited = timing_fields(row.schedule, row.task_extra_config), row.task_extra_config.get("max_runs")
    gap = passed(session, row, clock, now)
    _change_fields(row, catalogue, body)
    parsed = stated_timing(body, None)
    if parsed is not None and parsed.as_dict() != row.schedule:
        # What has passed meanwhile may be said again.
        stated_timing(body, now)
        row.schedule = parsed.as_dict()
    plan = plan_to_save(session, row)
    moved = timing_fields(row.schedule, row.task_extra_config) != timed
    # An edit of anything else leaves the next tick alone.
    retimed = moved or row.task_extra_config.get("max_runs") != limited
    recalled = any(getattr(body, name) is not None for name in CALL)
    mended = retimed or body.task_path is not None or (row.drifted and recalled)
    state = _state_after(row, body, mended=mended)
    if recalled:
        catalogue.schedulable(row.task_path, "task_path").require_fit(row.task_args, row.task_kwargs)
    elif state == "active" and row.state != "active":
        require_fit(catalogue, row)
    used_up = retimed and state == row.state and state in ("active", "paused") and _used_up(row, clock)
    if used_up:
        state = "completed"
    if state != row.state or (retimed and state == "active") or (moved and state == "paused"):
        record_range(session, row.id, gap)
        awaits_end = plan.estimated and waiting.active(session, row.id) is not None
        fires = state == "active" and not awaits_end
        clock.next_run_at = _next_tick(plan, now, anew=parsed is not None) if fires else None
    if state != row.state:
        _enter(row, clock, state, LIMIT_REACHED if used_up else None)
    if extra_of(row).policies().follows_ends or plan.estimated:
        session.execute(statements.FOLLOW_ENDS, {"schedule_id": row.id})
    row.version += 1
    row.updated_at = now
    keep_version(session, row, action, actor, body.reason)
    session.execute(statements.NOTIFY_BEATS)
    return ScheduleView(row, clock.next_run_at)


def remove(
    session: Session,
    schedule_id: UUID,
    actor: str,
    *,
    expected: Collection[int] | None = None,
    declared: bool = False,
    reason: str | None = None,
) -> None:
    """Delete a schedule; its runs and its versions stay, the last with the ``reason``. ``declared``: its declaration is gone.

    Raises:
        NotFound: there is none with this id.
        PreconditionFailed: it is at another version than the ``expected`` ones.
        Conflict: it is declared, so it is deleted where it is declared.
    """
    row, _ = locked(session, schedule_id)
    versions.require(row.version, expected, "schedule")
    if not declared:
        _refuse_declared(row, "Delete")
    row.version += 1
    row.updated_at = database_time(session)
    keep_version(session, row, "delete", actor, reason)
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
    """One schedule, its clock locked until the transaction ends; both as they are now, whatever the session has read.

    Raises:
        NotFound: there is none with this id.
    """
    clock = session.scalar(
        select(ClockRow)
        .where(ClockRow.schedule_id == schedule_id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    row = session.get(ScheduleRow, schedule_id, populate_existing=True) if clock is not None else None
    if clock is None or row is None:
        raise _no_schedule()
    return row, clock


def lock_all(session: Session, ids: Collection[UUID]) -> dict[UUID, datetime | None]:
    """The next ticks of many schedules, whose clocks are locked until the transaction ends: in the order of their
    ids, as everybody locks who needs several."""
    clocks = (
        select(ClockRow.schedule_id, ClockRow.next_run_at)
        .where(ClockRow.schedule_id.in_(ids))
        .order_by(ClockRow.schedule_id)
        .with_for_update(key_share=True)
    )
    return dict(session.execute(clocks).all())


def database_time(session: Session) -> datetime:
    """What the one clock that decides says."""
    return session.execute(select(NOW)).scalar_one()  # type: ignore[no-any-return]


def require_fit(catalogue: Catalogue, row: ScheduleRow) -> None:
    """Refuse to go on with a schedule that does not fit its task any more.

    Raises:
        Conflict: the task is gone, may not be scheduled, or takes other arguments.
    """
    try:
        catalogue.schedulable(row.task_path, "task_path").require_fit(row.task_args, row.task_kwargs)
    except InvalidInput as error:
        words = error.detail.rstrip(".")
        raise Conflict(f"The schedule does not fit its task: {words}. Change it first.") from None


def _refuse_declared(row: ScheduleRow, verb: str) -> None:
    if row.owner is None:
        return
    raise Conflict(
        f"This schedule is declared in {Owner(row.owner).place} as {row.owner_key}. {verb} it there, then run `upbeat schedules apply`"
        f"{' --prune' if verb == 'Delete' else ''}. Here it can be enabled, disabled, paused, resumed and run."
    )


def _change_fields(row: ScheduleRow, catalogue: Catalogue, body: ScheduleUpdate) -> None:
    if body.task_path is not None:
        row.task = catalogue.schedulable(body.task_path, "task_path").name
    for name in PLAIN:
        value = getattr(body, name)
        if value is not None:
            setattr(row, name, value)
    if "description" in body.model_fields_set:
        row.description = body.description
    if body.task_extra_config is not None:
        row.task_extra_config = dump_extra(body.task_extra_config)


def _state_after(row: ScheduleRow, body: ScheduleUpdate, *, mended: bool) -> str:
    if body.task_enabled is False:
        return "disabled"
    if body.task_enabled and row.state != "paused":
        return "active"
    return "active" if mended and row.state in ("invalid", "completed") else row.state


def change_state(
    session: Session,
    row: ScheduleRow,
    state: str,
    *,
    action: str,
    author: str,
    reason: str | None = None,
    why: str | None = None,
) -> None:
    """Another state and its ``reason``, as a version of its own (``why``, says its author); the clock is its caller's."""
    row.state, row.state_reason = state, reason
    row.version += 1
    row.updated_at = database_time(session)
    keep_version(session, row, action, author, why)


def _used_up(row: ScheduleRow, clock: ClockRow) -> bool:
    most = extra_of(row).max_runs
    return most is not None and clock.run_count >= most


def _enter(row: ScheduleRow, clock: ClockRow, state: str, reason: str | None) -> None:
    """Another state, and what was counted for the one before."""
    if state == "active" and _used_up(row, clock):
        clock.run_count = 0
    clock.failures = 0
    row.state, row.state_reason, row.drifted = state, reason, False
    row.paused_at = row.paused_by = row.pause_note = None


def _next_tick(plan: Plan, now: datetime, *, anew: bool) -> datetime:
    # Only a one-off that has just been written may run although its time has passed.
    upcoming = plan.first_tick(now) if anew else plan.next_after(now)
    if upcoming is None:
        raise Conflict("No tick is left in this schedule. Give it a new schedule in the same change.")
    return upcoming


def _no_schedule() -> NotFound:
    return NotFound("There is no schedule with this id. GET /api/v1/scheduled-tasks lists them.")


def keep_version(
    session: Session, row: ScheduleRow, action: str, author: str, reason: str | None = None
) -> None:
    """Add the schedule as it is now to its history."""
    config = {name: getattr(row, name) for name in VERSIONED}
    session.add(
        ScheduleVersionRow(
            schedule_id=row.id,
            version=row.version,
            action=action,
            config=config,
            author=author,
            reason=reason,
            changed_at=row.updated_at,
        )
    )
