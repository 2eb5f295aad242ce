"""What a beat would decide now of the ticks that have come, for a locked schedule; nothing is written."""

from datetime import datetime

from sqlalchemy.orm import Session

from app.scheduling import policies, waiting
from app.scheduling.config import ExtraConfig
from app.scheduling.models import ClockRow
from app.scheduling.plan import Plan
from app.scheduling.policies import CATCH_UP_AFTER, Firing


def foreseen(
    session: Session, clock: ClockRow, plan: Plan, extra: ExtraConfig, *, first: datetime, now: datetime
) -> Firing:
    """What becomes of the ticks of `[first, now]`, all at once, beside the runs that are active or wait."""
    active, waits = waiting.counts(session, clock.schedule_id)
    return policies.fire(
        plan,
        extra.policies(),
        next_run_at=first,
        now=now,
        active=active,
        waiting=waits,
        remaining=None if extra.max_runs is None else extra.max_runs - clock.run_count,
        limit=extra.max_catchup_runs + int(CATCH_UP_AFTER.total_seconds()) + 1,
    )
