"""Previews and simulations of scheduled tasks: what they will do, before they do it."""

from datetime import datetime, timedelta
from typing import Annotated, Self
from uuid import UUID

from fastapi import Body, Query
from pydantic import BaseModel, ConfigDict, Field

from app.api.dependencies import SchedulerOf
from app.api.examples import DRAFT_EXAMPLES, PREVIEW_EXAMPLE, SIMULATION_EXAMPLE, SIMULATION_EXAMPLES
from app.api.guards import READ, guarded
from app.api.problems import WRITES, WRITES_ONE, problems
from app.api.routing import resource_router
from app.scheduling.config import ScheduleDraft
from app.scheduling.inputs import Instant
from app.scheduling.policies import Reason
from app.scheduling.preview import DstMark, PreviewTick
from app.scheduling.previews import Preview, Simulation
from app.scheduling.simulation import Outcome, SimulatedRun

router = resource_router("/scheduled-tasks", "Scheduled tasks")

MAX_TICKS = 1000
MAX_SIMULATED = 5000


class PreviewedTick(BaseModel):
    """One tick to come."""

    scheduled_for: datetime = Field(description="Nominal time.")
    due_at: datetime = Field(description="Nominal time plus jitter.")
    local_time: datetime = Field(description="Nominal time in the schedule's zone, with its offset.")
    dst: DstMark | None = Field(
        description="`gap`: the local time is absent that day, and it runs at the end of the gap."
        " `repeated_first`, `repeated_second`: the local time comes twice."
    )
    skipped_local_time: str | None = Field(description="The absent local time that a `gap` stands for.")
    offset_change: float | None = Field(
        description="Seconds by which the zone's offset has changed since the tick before; null when it has not."
    )
    excluded_by: str | None = Field(description="The calendar for which it will be skipped.")
    estimated: bool = Field(description="True for a fixed delay, whose ticks depend on when runs end.")

    @classmethod
    def of(cls, tick: PreviewTick) -> Self:
        """The wire form of a tick."""
        return cls(
            scheduled_for=tick.nominal,
            due_at=tick.due_at,
            local_time=tick.local,
            dst=tick.dst,
            skipped_local_time=None if tick.asked_for is None else tick.asked_for.isoformat(),
            offset_change=None if tick.offset_change is None else tick.offset_change.total_seconds(),
            excluded_by=tick.excluded_by,
            estimated=tick.estimated,
        )


class SchedulePreview(BaseModel):
    """The next ticks of a schedule, and the schedule in words."""

    model_config = ConfigDict(json_schema_extra={"examples": [PREVIEW_EXAMPLE]})

    description: str
    timezone: str
    after: datetime
    items: list[PreviewedTick]

    @classmethod
    def of(cls, found: Preview) -> Self:
        """The wire form of a preview."""
        items = [PreviewedTick.of(tick) for tick in found.ticks]
        return cls(description=found.description, timezone=found.timezone, after=found.after, items=items)


class SimulatedTick(BaseModel):
    """One tick and what would become of its run."""

    scheduled_for: datetime
    due_at: datetime
    state: Outcome
    reason: Reason | None = Field(description="Why it was skipped or cancelled.")
    started_at: datetime | None
    ended_at: datetime | None
    waited: float = Field(description="Seconds between due_at and its start: its turn came no earlier.")

    @classmethod
    def of(cls, run: SimulatedRun) -> Self:
        """The wire form of a simulated run."""
        return cls(
            scheduled_for=run.scheduled_for,
            due_at=run.due_at,
            state=run.outcome,
            reason=run.reason,
            started_at=run.started_at,
            ended_at=run.ended_at,
            waited=run.waited.total_seconds(),
        )


class ScheduleSimulation(BaseModel):
    """What a schedule would do in a period."""

    model_config = ConfigDict(json_schema_extra={"examples": [SIMULATION_EXAMPLE]})

    description: str
    start: datetime
    end: datetime
    counts: dict[Outcome, int] = Field(description="How many of the items are in each state.")
    complete: bool = Field(description="False when `limit` cut the period short.")
    items: list[SimulatedTick]

    @classmethod
    def of(cls, found: Simulation) -> Self:
        """The wire form of a simulation."""
        items = [SimulatedTick.of(run) for run in found.runs]
        counts = {outcome: sum(item.state is outcome for item in items) for outcome in Outcome}
        return cls(
            description=found.description,
            start=found.start,
            end=found.end,
            counts=counts,
            complete=found.complete,
            items=items,
        )


class PreviewQuery(BaseModel):
    """How many ticks, from when."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n: int = Field(10, ge=1, le=MAX_TICKS, description="Number of ticks.")
    after: Instant | None = Field(
        None, description="Ticks strictly after this instant; from now on when it is left out."
    )


class SimulationRequest(BaseModel):
    """Which period, and how long each run is assumed to take."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    start: Instant | None = Field(None, description="Not included; now when it is left out.")
    end: Instant = Field(description="Included.")
    duration: float = Field(ge=0, le=2_592_000, description="Seconds that each run takes.")
    limit: int = Field(1000, ge=1, le=MAX_SIMULATED, description="Number of ticks at which it stops.")


@router.get(
    "/{schedule_id}/preview",
    responses=problems(401, 403, 404, 409, 422, 429, 503),
    summary="Preview the next ticks of a scheduled task",
)
@guarded(READ)
async def preview_scheduled_task(
    schedule_id: UUID, query: Annotated[PreviewQuery, Query()], scheduler: SchedulerOf
) -> SchedulePreview:
    """Nominal and effective times with what changes of clocks and calendars do to them.

    A schedule that is not active is shown as if it were. Overlap is not looked at: simulate it.
    """
    found = await scheduler.previews.of_schedule(schedule_id, n=query.n, after=query.after)
    return SchedulePreview.of(found)


@router.post("/preview", responses=WRITES, summary="Preview a scheduled task that is not saved")
@guarded(READ)
async def preview_draft(
    body: Annotated[ScheduleDraft, Body(openapi_examples=DRAFT_EXAMPLES)],
    query: Annotated[PreviewQuery, Query()],
    scheduler: SchedulerOf,
) -> SchedulePreview:
    """For editors: what saving would refuse is refused alike, and nothing is stored.

    With jitter, `due_at` is an example, for the offset depends on the id that the schedule will have.
    """
    return SchedulePreview.of(await scheduler.previews.of_draft(body, n=query.n, after=query.after))


@router.post(
    "/{schedule_id}/simulate", responses=WRITES_ONE, summary="Simulate a scheduled task over a period"
)
@guarded(READ)
async def simulate_scheduled_task(
    schedule_id: UUID,
    body: Annotated[SimulationRequest, Body(openapi_examples=SIMULATION_EXAMPLES)],
    scheduler: SchedulerOf,
) -> ScheduleSimulation:
    """Which ticks would run, wait, be skipped or be cancelled, if each run took `duration` seconds.

    Downtime, busy workers and failures are not simulated. Nothing is active at the start.
    """
    found = await scheduler.previews.simulate(
        schedule_id,
        start=body.start,
        end=body.end,
        duration=timedelta(seconds=body.duration),
        limit=body.limit,
    )
    return ScheduleSimulation.of(found)
