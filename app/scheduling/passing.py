"""Ticks that pass and that nobody decides one by one: while a schedule is paused, or when it is changed."""

from contextlib import suppress
from datetime import datetime
from itertools import pairwise
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.errors import InvalidInput
from app.scheduling import statements
from app.scheduling.models import ClockRow, ScheduleRow, ScheduleVersionRow
from app.scheduling.plan import Plan
from app.scheduling.policies import MissedRange, Reason, missed
from app.scheduling.understanding import plan_of, timing_fields


def passed(session: Session, row: ScheduleRow, clock: ClockRow, now: datetime) -> MissedRange | None:
    """The ticks that nobody has decided, and nobody will once the schedule has changed."""
    if row.state != "paused" or row.paused_at is None:
        return undecided(session, row, clock, now, Reason.EDITED)
    # The edit may be what mends a schedule that cannot be understood.
    with suppress(ValueError, InvalidInput):
        return paused_range(plan_of(session, row), paused_since(session, row, row.paused_at), now)
    return None


def undecided(
    session: Session, row: ScheduleRow, clock: ClockRow, now: datetime, reason: Reason
) -> MissedRange | None:
    """The ticks that have come and that no beat has decided: nobody can tell them of a schedule that cannot be
    understood, so they are a range without a number then."""
    first = clock.next_run_at
    if first is None or first > now:
        return None
    try:
        return missed(plan_of(session, row), first, now, reason)
    except (ValueError, InvalidInput):
        return MissedRange(first, now, None, reason)


def paused_since(session: Session, row: ScheduleRow, paused_at: datetime) -> datetime:
    """Since when ticks of the present timing pass while the schedule is paused: the pause, or an edit during it."""
    query = select(ScheduleVersionRow.changed_at, ScheduleVersionRow.config).where(
        ScheduleVersionRow.schedule_id == row.id, ScheduleVersionRow.changed_at >= paused_at
    )
    found = session.execute(query.order_by(ScheduleVersionRow.version)).all()
    timed = [timing_fields(each.config["schedule"], each.config["task_extra_config"]) for each in found]
    steps = zip(found[1:], pairwise(timed), strict=True)
    edits = [each.changed_at for each, (before, after) in steps if before != after]
    return edits[-1] if edits else paused_at


def paused_range(plan: Plan, since: datetime, now: datetime) -> MissedRange | None:
    """The ticks that passed while a schedule was paused."""
    first = None if plan.estimated else plan.next_after(since)
    return None if first is None else missed(plan, first, now, Reason.PAUSED)


def record_range(session: Session, schedule_id: UUID, gap: MissedRange | None) -> None:
    """Store a range of ticks that were not decided one by one."""
    if gap is not None:
        values = {name: getattr(gap, name) for name in ("first", "last", "count", "reason")}
        session.execute(statements.INSERT_MISSED, {"schedule_id": schedule_id, **values})
