"""Letting a paused schedule go on: a unit of work for a sync session whose owner commits."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy.orm import Session

from app.errors import Conflict
from app.scheduling import passing, schedules, statements, understanding, waiting
from app.scheduling.catalogue import Catalogue
from app.scheduling.firing import Firer
from app.scheduling.foreseeing import foreseen
from app.scheduling.messages import RunMessage
from app.scheduling.models import ClockRow, ScheduleRow
from app.scheduling.plan import Plan
from app.scheduling.policies import CatchUp, Firing
from app.scheduling.schedules import ScheduleView


@dataclass(frozen=True, slots=True)
class Resumption:
    """What resuming does, or would do.

    ``ticks`` passed while the schedule was paused (None: too many to count cheaply); ``firing`` is what becomes of
    them if they are caught up with.
    """

    view: ScheduleView
    paused_at: datetime
    ticks: int | None
    firing: Firing
    messages: tuple[RunMessage, ...] = ()


def resume(
    session: Session,
    catalogue: Catalogue,
    schedule_id: UUID,
    *,
    author: str,
    catch_up: CatchUp = CatchUp.NONE,
    dry_run: bool = False,
    redispatch_delay: float = 30.0,
) -> Resumption:
    """Let a paused schedule fire again from now on.

    The ticks that passed meanwhile are recorded as a range, or decided as ``catch_up`` says, within the schedule's
    own window and limits. The caller publishes ``messages`` after the commit. A dry run changes nothing.

    Raises:
        NotFound: there is none with this id.
        Conflict: it is not paused, it is not valid, it does not fit its task any more, or no tick is left in it and there is nothing
            to catch up with.
    """
    row, clock = schedules.locked(session, schedule_id)
    if row.state != "paused" or row.paused_at is None:
        raise Conflict(f"The schedule is {row.state}, not paused.")
    schedules.require_fit(catalogue, row)
    now, plan, paused_at = (
        schedules.database_time(session),
        understanding.sound_plan(session, row),
        row.paused_at,
    )
    since = passing.paused_since(session, row, paused_at)
    passed = None if plan.estimated else plan.next_after(since)
    gap = passing.paused_range(plan, since, now)
    firing = _firing(session, row, clock, plan, passed=passed, now=now, catch_up=catch_up)
    if firing.completed and not firing.ticks:
        raise Conflict(
            "No tick is left in this schedule. Resume it with catch_up, or give it a new schedule."
        )
    if dry_run:
        return Resumption(ScheduleView(row, firing.next_run_at), paused_at, gap.count if gap else 0, firing)
    row.paused_at = row.paused_by = row.pause_note = None
    clock.failures = 0
    schedules.change_state(session, row, "active", action="resume", author=author)
    session.flush()
    if catch_up is CatchUp.NONE:
        passing.record_range(session, schedule_id, gap)
        clock.next_run_at = firing.next_run_at
        messages: tuple[RunMessage, ...] = ()
    else:
        firer = Firer(catalogue, redispatch_delay)
        messages = tuple(firer.apply(session, row.id, firing, now))
        session.refresh(clock)
        session.refresh(row)
    session.execute(statements.NOTIFY_BEATS)
    view = ScheduleView(row, clock.next_run_at)
    return Resumption(view, paused_at, gap.count if gap else 0, firing, messages)


def _firing(
    session: Session,
    row: ScheduleRow,
    clock: ClockRow,
    plan: Plan,
    *,
    passed: datetime | None,
    now: datetime,
    catch_up: CatchUp,
) -> Firing:
    if plan.estimated and waiting.counts(session, row.id) != (0, 0):
        return Firing(awaits_end=True)
    if catch_up is CatchUp.NONE or passed is None or passed > now:
        return Firing(next_run_at=plan.next_after(now))
    # All at once: what is left to a beat is decided by the schedule's own policy, not by what was asked for.
    extra = understanding.extra_of(row).model_copy(update={"catch_up": catch_up})
    return foreseen(session, clock, plan, extra, first=passed, now=now)
