"""What else can be done with a scheduled task: pause, resume, backfill, and why it did not run."""

from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from fastapi import Body, Query, Request, status
from pydantic import BaseModel, ConfigDict, Field

from app.api.companion import only_looks
from app.api.dependencies import Caller, SchedulerOf
from app.api.examples import BACKFILL_EXAMPLES, PAUSE_EXAMPLES, RESUME_EXAMPLES
from app.api.guards import OPERATE, READ, guarded
from app.api.idempotency import Answer, answer, repeatable
from app.api.problems import READS_ONE, WRITES_ONE
from app.api.routing import resource_router
from app.api.schedule_history import ScheduleVersion
from app.api.schedules import ScheduledTask
from app.scheduling.backfill import Backfill
from app.scheduling.config import BackfillRequest
from app.scheduling.explaining import Explanation, Verdict
from app.scheduling.inputs import Instant
from app.scheduling.pausing import MAX_NOTE
from app.scheduling.policies import CatchUp, Reason
from app.scheduling.resuming import Resumption

router = resource_router("/scheduled-tasks", "Scheduled tasks")


class PauseRequest(BaseModel):
    """Why it is paused."""

    model_config = ConfigDict(extra="forbid")

    note: str = Field(
        min_length=1, max_length=MAX_NOTE, description="For whoever wonders; kept with author and time."
    )


class ResumeRequest(BaseModel):
    """How to go on."""

    model_config = ConfigDict(extra="forbid")

    catch_up: CatchUp = Field(
        CatchUp.NONE, description="Which of the ticks that passed meanwhile run now, within `catchup_window`."
    )
    dry_run: bool = Field(False, description="Say what would be done, and do nothing.")


class Tick(BaseModel):
    """One decided tick."""

    scheduled_for: datetime
    runs: bool = Field(description="At once, or when its turn comes.")
    reason: Reason | None = Field(description="Why it does not run.")


class MissedTicks(BaseModel):
    """Ticks that are not decided one by one, from the first to the last, both included."""

    first: datetime
    last: datetime
    count: int | None = Field(description="Null when counting them would cost too much.")
    reason: Reason


class Resumed(BaseModel):
    """What resuming did, or would do."""

    dry_run: bool
    paused_at: datetime
    ticks_passed: int | None = Field(
        description="While it was paused; null when there are too many to count."
    )
    ticks: list[Tick] = Field(description="Those that are caught up with.")
    missed: list[MissedTicks]
    next_run_at: datetime | None
    scheduled_task: ScheduledTask

    @classmethod
    def of(cls, done: Resumption, *, dry_run: bool) -> Self:
        """The wire form."""
        return cls(
            dry_run=dry_run,
            paused_at=done.paused_at,
            ticks_passed=done.ticks,
            ticks=[
                Tick(scheduled_for=tick.scheduled_for, runs=tick.reason is None, reason=tick.reason)
                for tick in done.firing.ticks
            ],
            missed=[MissedTicks.model_validate(gap, from_attributes=True) for gap in done.firing.missed],
            next_run_at=done.view.next_run_at,
            scheduled_task=ScheduledTask.of(done.view),
        )


class Backfilled(BaseModel):
    """What a backfill did, or would do."""

    dry_run: bool
    ticks: int = Field(description="How many lie in the period.")
    runs: int = Field(description="How many of them get a run.")
    first: datetime | None = Field(description="The earliest of these.")
    last: datetime | None = Field(description="The latest of these.")
    left_out: dict[str, int] = Field(
        description="The others, by what became of them: active, succeeded, failed or calendar."
    )
    run_ids: list[UUID] = Field(description="In the order in which they run; empty for a dry run.")

    @classmethod
    def of(cls, done: Backfill, *, dry_run: bool) -> Self:
        """The wire form."""
        return cls(
            dry_run=dry_run,
            ticks=done.ticks,
            runs=len(done.chosen),
            first=done.chosen[0] if done.chosen else None,
            last=done.chosen[-1] if done.chosen else None,
            left_out=done.left_out,
            run_ids=list(done.run_ids),
        )


class ExplainedRun(BaseModel):
    """What there is to say of the tick's run; `GET /runs/{id}` has the rest."""

    id: UUID
    state: str
    reason: str | None
    attempt: int
    scheduled_for: datetime | None
    due_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    worker: str | None


class Why(BaseModel):
    """What became of an instant of a schedule, and why."""

    at: datetime
    verdict: Verdict
    reason: str | None = Field(
        description="The reason code of the run, of the range, or of the schedule's state."
    )
    explanation: str = Field(description="In a sentence.")
    previous_tick: datetime | None = Field(
        description="Before the instant, by the version that was in force."
    )
    next_tick: datetime | None = Field(description="After it.")
    run: ExplainedRun | None
    backfilled: list[ExplainedRun] = Field(description="Runs that were made for it afterwards.")
    missed: MissedTicks | None = Field(description="The range of undecided ticks in which it lies.")
    version: ScheduleVersion = Field(description="The schedule as it was then (or at first).")
    last_beat_pass_at: datetime | None

    @classmethod
    def of(cls, found: Explanation) -> Self:
        """The wire form."""
        return cls.model_validate(found, from_attributes=True)


class WhyQuery(BaseModel):
    """Which instant."""

    model_config = ConfigDict(extra="forbid")

    at: Instant = Field(description="With an offset: 2026-03-01T09:00:00+01:00 (`+` is %2B in a URL).")


def _backfilled(done: Backfill) -> Answer | None:
    if not done.run_ids:
        return None
    return answer(status.HTTP_202_ACCEPTED, Backfilled.of(done, dry_run=False))


@router.post("/{schedule_id}/pause", responses=WRITES_ONE, summary="Pause a scheduled task")
@guarded(OPERATE)
async def pause_scheduled_task(
    schedule_id: UUID,
    body: Annotated[PauseRequest, Body(openapi_examples=PAUSE_EXAMPLES)],
    scheduler: SchedulerOf,
    user: Caller,
) -> ScheduledTask:
    """It fires no more until it is resumed; runs that exist are not touched. The note says why."""
    return ScheduledTask.of(await scheduler.pause(schedule_id, body.note, actor=user.username))


@router.post("/{schedule_id}/resume", responses=WRITES_ONE, summary="Resume a scheduled task")
@guarded(OPERATE)
async def resume_scheduled_task(
    schedule_id: UUID,
    body: Annotated[ResumeRequest, Body(openapi_examples=RESUME_EXAMPLES)],
    request: Request,
    scheduler: SchedulerOf,
    user: Caller,
) -> Resumed:
    """From now on. Ticks that passed meanwhile run only if asked for; a dry run says how many there are."""
    if body.dry_run:
        only_looks(request)
    done = await scheduler.resume(
        schedule_id, actor=user.username, catch_up=body.catch_up, dry_run=body.dry_run
    )
    return Resumed.of(done, dry_run=body.dry_run)


@router.post(
    "/{schedule_id}/backfill",
    status_code=status.HTTP_202_ACCEPTED,
    responses=WRITES_ONE,
    dependencies=[repeatable(_backfilled)],
    summary="Backfill a scheduled task",
)
@guarded(OPERATE)
async def backfill_scheduled_task(
    schedule_id: UUID,
    body: Annotated[BackfillRequest, Body(openapi_examples=BACKFILL_EXAMPLES)],
    request: Request,
    scheduler: SchedulerOf,
    user: Caller,
) -> Backfilled:
    """Runs for the ticks of `(start, end]`, with today's arguments. A tick whose run is on its way gets no other."""
    if body.dry_run:
        only_looks(request)
    done = await scheduler.backfill(schedule_id, body, actor=user.username)
    return Backfilled.of(done, dry_run=body.dry_run)


@router.get("/{schedule_id}/why", responses=READS_ONE, summary="Why didn't it run?")
@guarded(READ)
async def explain_scheduled_task(
    schedule_id: UUID, query: Annotated[WhyQuery, Query()], scheduler: SchedulerOf
) -> Why:
    """What became of one instant: for any instant of any schedule, before its creation and after its deletion too."""
    return Why.of(await scheduler.explain(schedule_id, query.at))
