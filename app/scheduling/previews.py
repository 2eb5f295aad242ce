"""What schedules will do, asked before they do it: previews and simulations of stored and of unsaved schedules.

The answers come from the evaluator and the policies that beats use, and cost the database one read.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from app.errors import FieldError, InvalidInput
from app.scheduling import schedules, understanding
from app.scheduling.calculating import calculated
from app.scheduling.config import ScheduleDraft
from app.scheduling.describe import describe
from app.scheduling.models import ClockRow
from app.scheduling.plan import Plan
from app.scheduling.policies import Policies
from app.scheduling.preview import PreviewTick, preview
from app.scheduling.simulation import SimulatedRun, simulate

T = TypeVar("T")
NOBODY = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Preview:
    """The next ticks of a schedule, after `after`, and the schedule in words."""

    description: str
    timezone: str
    after: datetime
    ticks: list[PreviewTick]


@dataclass(frozen=True, slots=True)
class Simulation:
    """What a schedule would do from `start` to `end`; `complete` unless the limit of ticks cut it short."""

    description: str
    start: datetime
    end: datetime
    runs: list[SimulatedRun]
    complete: bool


@dataclass(frozen=True, slots=True)
class _Subject:
    """A schedule that is asked about. `first` is where its clock stands, `remaining` what is left of `max_runs`."""

    schedule_id: UUID
    plan: Plan
    policies: Policies
    now: datetime
    first: datetime | None
    remaining: int | None


class Previews:
    """Previews and simulations, as methods; nothing is changed by them."""

    def __init__(self, sessions: async_sessionmaker[AsyncSession]) -> None:
        self._sessions = sessions

    async def of_schedule(self, schedule_id: UUID, *, n: int, after: datetime | None = None) -> Preview:
        """The next ``n`` ticks: those of an inactive schedule as if it were active.

        Raises:
            NotFound: there is none with this id.
            Conflict: it is invalid, so nothing can be said of it.
        """
        subject = await self._read(lambda session: _stored(session, schedule_id))
        return await calculated(_preview, subject, n, after)

    async def of_draft(self, draft: ScheduleDraft, *, n: int, after: datetime | None = None) -> Preview:
        """The next ``n`` ticks of what is not saved yet. Jitter is an example: it depends on the schedule's id.

        Raises:
            InvalidInput: as saving it would.
        """
        subject = await self._read(lambda session: _drafted(session, draft))
        return await calculated(_preview, subject, n, after)

    async def simulate(
        self,
        schedule_id: UUID,
        *,
        start: datetime | None,
        end: datetime,
        duration: timedelta,
        limit: int,
    ) -> Simulation:
        """What a schedule would do in ``(start, end]`` (from now on without a start) if each run took ``duration``.

        Raises:
            NotFound: there is none with this id.
            Conflict: it is invalid, so nothing can be said of it.
            InvalidInput: the period ends before it starts.
        """
        subject = await self._read(lambda session: _stored(session, schedule_id))
        start = start or subject.now
        if end <= start:
            raise InvalidInput(
                FieldError("end", "Must be later than start, which is now when it is left out.")
            )
        return await calculated(_simulate, subject, start, end, duration, limit)

    async def _read(self, work: Callable[[Session], T]) -> T:
        async with self._sessions() as session:
            return await session.run_sync(work)


def _stored(session: Session, schedule_id: UUID) -> _Subject:
    view = schedules.view(session, schedule_id)
    plan, extra = understanding.sound_plan(session, view.row), understanding.extra_of(view.row)
    clock = session.get_one(ClockRow, schedule_id)
    remaining = None if extra.max_runs is None else max(0, extra.max_runs - clock.run_count)
    now = schedules.database_time(session)
    return _Subject(schedule_id, plan, extra.policies(), now, clock.next_run_at, remaining)


def _drafted(session: Session, draft: ScheduleDraft) -> _Subject:
    now = schedules.database_time(session)
    parsed = understanding.stated_timing(draft, now)
    if parsed is None:
        raise InvalidInput(FieldError(*schedules.NO_TIMING))
    extra = draft.task_extra_config
    plan = understanding.checked_plan(session, parsed, extra)
    return _Subject(NOBODY, plan, extra.policies(), now, plan.first_tick(now), extra.max_runs)


def _preview(subject: _Subject, n: int, after: datetime | None) -> Preview:
    plan = subject.plan
    ticks = preview(
        plan,
        subject.schedule_id,
        after or subject.now,
        n,
        first=subject.first if after is None else None,
        remaining=subject.remaining,
    )
    return Preview(describe(plan, subject.now), plan.timing.timezone or "UTC", after or subject.now, ticks)


def _simulate(
    subject: _Subject, start: datetime, end: datetime, duration: timedelta, limit: int
) -> Simulation:
    plan, policies = subject.plan, subject.policies
    runs: list[SimulatedRun] = []
    if subject.remaining != 0:
        rules = replace(policies, max_runs=subject.remaining)
        runs = simulate(plan, rules, subject.schedule_id, start, end, durations=duration, limit=limit + 1)
    return Simulation(describe(plan, subject.now), start, end, runs[:limit], len(runs) <= limit)
