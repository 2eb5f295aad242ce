"""Statistics of runs: how many there were in each interval, what became of them, how late they started, how long they ran.

Computed from the runs themselves in one scan that keeps no order. A run belongs to the interval of its nominal time, or
of its making if it is none of a schedule's; both are in its id, so only the partitions and the part of the index that
the range names are read; a schedule has an index of its own.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Interval,
    Select,
    and_,
    case,
    cast,
    func,
    literal,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, DOUBLE_PRECISION
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.errors import FieldError, InvalidInput
from app.scheduling import histogram
from app.scheduling.histogram import LIMITS, Percentiles
from app.scheduling.models import RunRow
from app.scheduling.selecting import RunFilter
from app.scheduling.states import FAILED, RunState

Group = ColumnElement[Any] | InstrumentedAttribute[Any]
WIDTHS = tuple(timedelta(seconds=each) for each in (60, 300, 900, 3600, 21_600, 86_400))
MAX_INTERVALS = 500
MAX_RANGE = timedelta(days=400)
PATIENCE = 8000  # milliseconds
CANCELED = "57014"
ORIGIN = datetime(2000, 1, 1, tzinfo=UTC)
"""A Saturday: intervals of a day begin at midnight, UTC."""

# The planner overestimates how many groups there are, and would sort every run.
_HASHED = (
    f"SET LOCAL statement_timeout = {PATIENCE}",
    "SET LOCAL enable_sort = off",
    "SET LOCAL work_mem = '64MB'",
)


@dataclass(slots=True)
class Counted:
    """How many runs are in each state; classes of `app.scheduling.histogram` of start lateness and of duration."""

    states: dict[str, int] = field(default_factory=dict)
    late: dict[int, int] = field(default_factory=dict)
    long: dict[int, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """All runs."""
        return sum(self.states.values())

    @property
    def failures(self) -> int:
        """Those that failed, timed out or were lost."""
        return sum(self.states.get(state, 0) for state in FAILED)

    @property
    def failure_rate(self) -> float | None:
        """The share of failures in what was executed to its end; None when nothing was."""
        ended = self.failures + self.states.get(RunState.SUCCEEDED, 0)
        return self.failures / ended if ended else None

    @property
    def lateness(self) -> Percentiles:
        """Of the newest attempts that started: seconds after they were due."""
        return histogram.percentiles(self.late)

    @property
    def duration(self) -> Percentiles:
        """Of the newest attempts that ended: seconds from start to end."""
        return histogram.percentiles(self.long)


@dataclass(frozen=True, slots=True)
class Series:
    """Intervals of ``width`` from ``since`` to ``until``, every one of them, and all together."""

    since: datetime
    until: datetime
    width: timedelta
    intervals: list[tuple[datetime, Counted]]
    total: Counted


def width_for(since: datetime, until: datetime, width: timedelta | None) -> timedelta:
    """The width that is asked for, or the finest that makes no more than about a hundred intervals.

    Raises:
        InvalidInput: the range is empty or too long, or would make too many intervals.
    """
    span = until - since
    if span <= timedelta(0):
        raise InvalidInput(FieldError("until", "Must be later than since."))
    if span > MAX_RANGE:
        raise InvalidInput(FieldError("since", f"Must be at most {MAX_RANGE.days} days before until."))
    chosen = width or next((each for each in WIDTHS if span / each <= 100), WIDTHS[-1])
    if span / chosen > MAX_INTERVALS:
        raise InvalidInput(
            FieldError("interval", f"Makes more than {MAX_INTERVALS} intervals; take a wider one.")
        )
    return chosen


class Statistics:
    """Statistics, as methods; they read, and give up after eight seconds."""

    def __init__(self, sessions: async_sessionmaker[AsyncSession]) -> None:
        self._sessions = sessions

    async def series(self, which: RunFilter, since: datetime, until: datetime, width: timedelta) -> Series:
        """By interval. Raises InvalidInput when there are too many runs to count in time."""
        counted = await self._count(which, since, until, _interval_of(width))
        starts = list(_starts(since, until, width))
        intervals = [(start, counted.get(start, Counted())) for start in starts]
        return Series(since, until, width, intervals, _together(counted.values()))

    async def by_task(self, which: RunFilter, since: datetime, until: datetime) -> dict[str, Counted]:
        """By the name of the task. Raises InvalidInput when there are too many runs to count in time."""
        return await self._count(which, since, until, RunRow.task)

    async def now(self) -> datetime:
        """What the database's clock says."""
        async with self._sessions() as session:
            return (await session.execute(select(func.clock_timestamp()))).scalar_one()  # type: ignore[no-any-return]

    async def _count(
        self, which: RunFilter, since: datetime, until: datetime, group: Group
    ) -> dict[Any, Counted]:
        query = _query(which, since, until, group)

        def work(session: Session) -> dict[Any, Counted]:
            for setting in _HASHED:
                session.execute(text(setting))
            return _read(session.execute(query))

        async with self._sessions() as session:
            try:
                return await session.run_sync(work)
            except DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) != CANCELED:
                    raise
                words = f"There are too many runs in this range to count them in {PATIENCE / 1000:g} s; take a shorter one."
                raise InvalidInput(FieldError("since", words)) from error


def _query(which: RunFilter, since: datetime, until: datetime, group: Group) -> Select[Any]:
    narrowed = RunFilter(
        schedule_id=which.schedule_id, task=which.task, queue=which.queue, since=since, until=until
    )
    runs = (
        select(
            group.label("part"),
            RunRow.state,
            _class(RunRow.started_at - RunRow.due_at).label("late"),
            _class(RunRow.finished_at - RunRow.started_at).label("long"),
        )
        .where(*narrowed.conditions())
        .subquery()
    )
    groups = (runs.c.part, runs.c.state, runs.c.late, runs.c.long)
    return select(*groups, func.count()).group_by(*groups)


def _interval_of(width: timedelta) -> ColumnElement[Any]:
    at = case(
        (and_(RunRow.origin == "schedule", RunRow.scheduled_for.is_not(None)), RunRow.scheduled_for),
        else_=RunRow.created_at,
    )
    return func.date_bin(cast(literal(width), Interval), at, literal(ORIGIN))


def _class(interval: ColumnElement[Any]) -> ColumnElement[Any]:
    """NULL where there is nothing to measure."""
    # Not `extract`, whose numeric costs as much as the rest of the scan.
    seconds = cast(func.date_part("epoch", interval), DOUBLE_PRECISION)
    return func.width_bucket(
        seconds, cast(literal(list(LIMITS), ARRAY(DOUBLE_PRECISION)), ARRAY(DOUBLE_PRECISION))
    )


def _read(rows: Iterable[Any]) -> dict[Any, Counted]:
    found: dict[Any, Counted] = {}
    for part, state, late, long, number in rows:
        counted = found.setdefault(part, Counted())
        for classes, key in ((counted.states, state), (counted.late, late), (counted.long, long)):
            if key is not None:
                classes[key] = classes.get(key, 0) + number
    return found


def _starts(since: datetime, until: datetime, width: timedelta) -> Iterator[datetime]:
    start = ORIGIN + (since - ORIGIN) // width * width
    while start < until:
        yield start
        start += width


def _together(parts: Iterable[Counted]) -> Counted:
    every = list(parts)
    states: Mapping[str, int] = {
        state: sum(each.states.get(state, 0) for each in every)
        for state in {s for e in every for s in e.states}
    }
    return Counted(
        dict(states),
        histogram.merged([each.late for each in every]),
        histogram.merged([each.long for each in every]),
    )
