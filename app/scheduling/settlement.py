"""What the end of a run means to its schedule: whose turn is next, the next tick, what is counted.

`settle` runs in the transaction that ends the run, with the schedule's clock locked before the run's row: a beat
that fires locks in the same order. Runs that concern nobody (`settles` is false) never come here.
"""

import logging
from datetime import datetime
from typing import Protocol
from uuid import UUID

from sqlalchemy.orm import Session

from app.errors import InvalidInput
from app.scheduling import pausing, schedules, statements, understanding, waiting
from app.scheduling.config import ExtraConfig
from app.scheduling.models import ClockRow, ScheduleRow
from app.scheduling.policies import LIMIT_REACHED
from app.scheduling.states import FAILED
from app.scheduling.timing import Interval, parse

logger = logging.getLogger(__name__)


class Ended(Protocol):
    """The row of a run that has just become terminal, as the ending statements return it."""

    id: UUID
    schedule_id: UUID | None
    origin: str
    state: str
    attempt: int
    started_at: datetime | None
    finished_at: datetime
    blocked_by: UUID | None
    settles: bool


def lock_schedule_of(session: Session, run_id: UUID) -> None:
    """Lock the clock of the schedule that a run belongs to, if it has one that still exists."""
    session.execute(statements.LOCK_CLOCK_OF, {"id": run_id})


def settle(session: Session, ended: Ended) -> None:
    """Let the end of this run have its effects."""
    _hand_on(session, ended)
    if ended.origin != "schedule" or ended.schedule_id is None:
        return
    clock = session.get(ClockRow, ended.schedule_id)
    row = session.get(ScheduleRow, ended.schedule_id)
    if clock is None or row is None:
        return
    try:
        extra = understanding.extra_of(row)
        if ended.attempt == 1 and ended.started_at is None and extra.max_runs is not None:
            _give_back(session, row, clock, extra.max_runs)
        _count_failures(session, row, clock, extra, ended)
        _count_delay(session, row, clock, ended.finished_at, but=ended.id)
    except (ValueError, InvalidInput):
        # A schedule that cannot be understood any more must not keep its runs from ending.
        logger.exception("end of run %s was not settled", ended.id, extra={"action": "settlement_failed"})


def settle_cancelled(session: Session, row: ScheduleRow, clock: ClockRow, never_started: int) -> None:
    """As `settle`, after runs of a locked schedule were cancelled to make room for one on demand."""
    most = understanding.extra_of(row).max_runs
    if most is not None:
        for _ in range(never_started):
            _give_back(session, row, clock, most)
    _count_delay(session, row, clock, schedules.database_time(session))


def _hand_on(session: Session, ended: Ended) -> None:
    """The place of a run in its line goes to the one behind it."""
    if ended.blocked_by is not None:
        waiting.pass_on(session, ended.id, after=ended.blocked_by)
        return
    if ended.schedule_id is not None and ended.origin == "schedule":
        other = waiting.active(session, ended.schedule_id, but=ended.id)
        if other is not None:
            waiting.pass_on(session, ended.id, after=other)
            return
    waiting.promote(session, ended.id)


def _give_back(session: Session, row: ScheduleRow, clock: ClockRow, most: int) -> None:
    """A run that never started does not count; a schedule that it had completed goes on."""
    clock.run_count -= 1
    if clock.run_count < most and row.state == "completed" and row.state_reason == LIMIT_REACHED:
        upcoming = understanding.plan_of(session, row).next_after(schedules.database_time(session))
        if upcoming is not None:
            schedules.change_state(session, row, "active", action="reactivate", author=schedules.SELF)
            clock.next_run_at = upcoming
            session.execute(statements.NOTIFY_BEATS)


def _count_failures(
    session: Session, row: ScheduleRow, clock: ClockRow, extra: ExtraConfig, ended: Ended
) -> None:
    if extra.pause_on_failure is None:
        return
    if ended.state == "succeeded":
        clock.failures = 0
    elif ended.state in FAILED:
        clock.failures += 1
        if clock.failures >= extra.pause_on_failure and row.state == "active":
            note = f"{clock.failures} runs in a row have failed; the last was {ended.id}."
            pausing.pause(session, row.id, note=note, author=schedules.SELF)


def _count_delay(
    session: Session, row: ScheduleRow, clock: ClockRow, ended_at: datetime, *, but: UUID | None = None
) -> None:
    """The next tick of a fixed delay counts from this end, unless another run is still on its way."""
    if row.state != "active" or clock.next_run_at is not None:
        return
    timing = parse(row.schedule)
    if not isinstance(timing, Interval) or not timing.fixed_delay:
        return
    if waiting.active(session, row.id, but=but) is not None:
        return
    clock.next_run_at = understanding.plan_of(session, row).after_end(ended_at)
    if clock.next_run_at is None:
        schedules.change_state(session, row, "completed", action="complete", author=schedules.SELF)
    session.execute(statements.NOTIFY_BEATS)
