"""Statistics: throughput, failures and lateness of runs by interval, and by task."""

from datetime import datetime, timedelta
from enum import IntEnum
from typing import Annotated, Self
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field

from app.api.dependencies import ServicesOf
from app.api.examples import STATISTICS_EXAMPLE
from app.api.guards import READ, guarded
from app.api.pagination import FilterText
from app.api.problems import READS
from app.api.routing import resource_router
from app.scheduling.config import QueueName
from app.scheduling.histogram import Percentiles
from app.scheduling.inputs import Instant
from app.scheduling.selecting import RunFilter
from app.scheduling.states import RunState
from app.scheduling.statistics import Counted, Statistics, width_for

DEFAULT_RANGE = timedelta(days=1)

router = resource_router("/statistics", "Statistics")


class Interval(IntEnum):
    """Widths of intervals, in seconds."""

    MINUTE = 60
    FIVE_MINUTES = 300
    QUARTER_OF_AN_HOUR = 900
    HOUR = 3600
    QUARTER_OF_A_DAY = 21_600
    DAY = 86_400


class Spread(BaseModel):
    """Seconds below which half, 95 % and 99 % lie; estimated from classes, each up to 1.58 times its lower limit."""

    count: int = Field(description="How many were measured.")
    p50: float | None
    p95: float | None
    p99: float | None

    @classmethod
    def of(cls, found: Percentiles) -> Self:
        """The wire form."""
        rounded = {name: getattr(found, name) for name in ("p50", "p95", "p99")}
        return cls(
            count=found.count,
            **{name: None if value is None else round(value, 6) for name, value in rounded.items()},
        )


class RunStatistics(BaseModel):
    """Runs, and what became of them."""

    total: int = Field(description="All runs, whatever their state.")
    states: dict[RunState, int] = Field(
        description="How many are in each state now; those with none are absent."
    )
    failures: int = Field(description="Failed, timed out or lost.")
    failure_rate: float | None = Field(
        description="The share of failures among failures and successes; null when there is neither."
    )
    lateness: Spread = Field(description="From when a run was due to its start, of those that started.")
    duration: Spread = Field(description="From start to end, of those that ended.")

    @classmethod
    def of(cls, counted: Counted) -> Self:
        """The wire form."""
        return cls(**cls.fields_of(counted))

    @staticmethod
    def fields_of(counted: Counted) -> dict[str, object]:
        """What each of these has."""
        rate = counted.failure_rate
        return {
            "total": counted.total,
            "states": counted.states,
            "failures": counted.failures,
            "failure_rate": None if rate is None else round(rate, 6),
            "lateness": Spread.of(counted.lateness),
            "duration": Spread.of(counted.duration),
        }


class IntervalStatistics(RunStatistics):
    """The runs of one interval."""

    start: datetime


class StatisticsSeries(BaseModel):
    """Every interval of the range, from the earliest on, also those without runs."""

    model_config = ConfigDict(json_schema_extra={"examples": [STATISTICS_EXAMPLE]})

    since: datetime
    until: datetime
    interval: int = Field(description="Seconds. Intervals are counted from midnight, UTC.")
    items: list[IntervalStatistics]
    all: RunStatistics = Field(description="All intervals together.")


class TaskStatistics(RunStatistics):
    """The runs of one task."""

    task: str


class StatisticsByTask(BaseModel):
    """Tasks that had runs in the range, by name."""

    since: datetime
    until: datetime
    items: list[TaskStatistics]


class StatisticsQuery(BaseModel):
    """Which runs. A mistyped parameter is refused: ignored, it would answer another question."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    since: Instant | None = Field(None, description="Included; a day before `until` when absent.")
    until: Instant | None = Field(None, description="Excluded; now when absent.")
    task: FilterText | None = Field(None, description="Registered name.")
    queue: QueueName | None = None
    schedule_id: UUID | None = None

    async def range(self, statistics: Statistics) -> tuple[datetime, datetime]:
        """The range in full."""
        until = self.until or await statistics.now()
        return self.since or until - DEFAULT_RANGE, until

    def filter(self) -> RunFilter:
        """The domain's form."""
        return RunFilter(task=self.task, queue=self.queue, schedule_id=self.schedule_id)


class SeriesQuery(StatisticsQuery):
    """Which runs, and how wide the intervals are."""

    interval: Interval | None = Field(
        None, description="Seconds; the finest that makes about a hundred when absent. At most 500 of them."
    )


@router.get("/runs", responses=READS, summary="Statistics of runs by interval")
@guarded(READ)
async def get_run_statistics(
    query: Annotated[SeriesQuery, Query()], services: ServicesOf
) -> StatisticsSeries:
    """Throughput, failures, lateness and duration, of all runs or of a task's, a queue's or a schedule's.

    A run counts in the interval of its nominal time, or of its making if it is none of a schedule's.
    """
    since, until = await query.range(services.statistics)
    width = width_for(since, until, None if query.interval is None else timedelta(seconds=query.interval))
    found = await services.statistics.series(query.filter(), since, until, width)
    return StatisticsSeries(
        since=since,
        until=until,
        interval=int(width.total_seconds()),
        items=[
            IntervalStatistics(start=start, **RunStatistics.fields_of(counted))
            for start, counted in found.intervals
        ],
        all=RunStatistics.of(found.total),
    )


@router.get("/tasks", responses=READS, summary="Statistics of runs by task")
@guarded(READ)
async def get_task_statistics(
    query: Annotated[StatisticsQuery, Query()], services: ServicesOf
) -> StatisticsByTask:
    """The same figures for each task over the whole range, also of tasks that are not registered any more."""
    since, until = await query.range(services.statistics)
    width_for(since, until, timedelta(days=1))
    found = await services.statistics.by_task(query.filter(), since, until)
    items = [
        TaskStatistics(task=task, **RunStatistics.fields_of(each)) for task, each in sorted(found.items())
    ]
    return StatisticsByTask(since=since, until=until, items=items)
