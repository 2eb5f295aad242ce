"""What can be done with runs: cancel and replay, one or many, and reading their attempts."""

from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from fastapi import Body, Request, Response, status
from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.api.companion import only_looks
from app.api.dependencies import Caller, SchedulerOf
from app.api.examples import BULK_CANCEL_EXAMPLES, BULK_REPLAY_EXAMPLES, CANCEL_EXAMPLES, REPLAY_EXAMPLES
from app.api.guards import OPERATE, READ, guarded
from app.api.idempotency import repeatable
from app.api.pagination import FilterText
from app.api.problems import READS_ONE, WRITES, WRITES_ONE
from app.api.routing import resource_router
from app.api.runs import Run, run_location, run_made
from app.scheduling.config import QueueName
from app.scheduling.inputs import Instant
from app.scheduling.run_operations import Attempts, Bulk
from app.scheduling.selecting import RunFilter
from app.scheduling.states import FAILED, RunState

MAX_BULK = 10_000
MAX_NOTE = 1000
FILTERS = ("schedule_id", "task", "queue", "exception", "since", "until")

router = resource_router("/runs", "Runs")


class CancelRequest(BaseModel):
    """How to cancel."""

    model_config = ConfigDict(extra="forbid")

    force: bool = Field(False, description="Do not wait for it to clean up.")
    reason: str | None = Field(None, max_length=MAX_NOTE, description="For whoever wonders.")


class ReplayRequest(BaseModel):
    """With which arguments; those of the old run when absent."""

    model_config = ConfigDict(extra="forbid")

    args: list[Any] | None = None
    kwargs: dict[str, Any] | None = None


class BulkRequest(BaseModel):
    """Which runs; at least one field, so that nothing happens to all of them by mistake."""

    model_config = ConfigDict(extra="forbid")

    schedule_id: UUID | None = None
    states: list[RunState] = Field(default_factory=list, max_length=len(RunState))
    task: FilterText | None = Field(None, description="Registered name.")
    queue: QueueName | None = None
    exception: FilterText | None = Field(None, description="Type of the error: `ValueError`, `module.Name`.")
    since: Instant | None = None
    until: Instant | None = None
    dry_run: bool = Field(False, description="Count, and do nothing.")
    limit: int = Field(1000, ge=1, le=MAX_BULK)

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if not self.states and all(getattr(self, name) is None for name in FILTERS):
            raise ValueError(f"give at least one of states, {', '.join(FILTERS)}")
        return self

    def filter(self, default: tuple[RunState, ...]) -> RunFilter:
        """The domain's form; ``default`` are the states that are meant when none is given."""
        return RunFilter(states=self.states or default, **self.model_dump(include=set(FILTERS)))


class BulkCancelRequest(BulkRequest):
    """Which runs to cancel; queued and running ones when no state is given."""

    reason: str | None = Field(None, max_length=MAX_NOTE)


class Done(BaseModel):
    """What was done, or would be."""

    dry_run: bool
    matched: int = Field(description="Runs that the filter finds, up to the limit.")
    changed: int = Field(description="Runs that were cancelled, asked to stop, or replayed.")
    more: bool = Field(description="There are more; call again.")

    @classmethod
    def of(cls, bulk: Bulk, *, dry_run: bool) -> Self:
        """The wire form."""
        return cls(dry_run=dry_run, matched=bulk.matched, changed=bulk.changed, more=bulk.more)


class Attempt(BaseModel):
    """One try at a run."""

    attempt: int
    outcome: str = Field(description="Of the newest one: the state of the run.")
    worker: str | None
    started_at: datetime | None
    finished_at: datetime | None
    error: dict[str, Any] | None


class LateOutcome(BaseModel):
    """What a worker reported after its attempt had been decided without it; it changed nothing."""

    attempt: int
    outcome: str
    worker_id: UUID | None
    result: Any | None
    error: dict[str, Any] | None
    reported_at: datetime


class RunAttempts(BaseModel):
    """The attempts of a run, oldest first."""

    items: list[Attempt]
    late: list[LateOutcome]

    @classmethod
    def of(cls, found: Attempts) -> Self:
        """The wire form."""
        run = found.run
        newest = Attempt(
            attempt=run.attempt,
            outcome=run.state,
            worker=run.worker,
            started_at=run.started_at,
            finished_at=run.finished_at,
            error=run.error,
        )
        return cls(
            items=[*(Attempt.model_validate(row, from_attributes=True) for row in found.ended), newest],
            late=[LateOutcome.model_validate(row, from_attributes=True) for row in found.late],
        )


class RunWhy(BaseModel):
    """What became of a run, or what it waits for."""

    state: RunState
    reason: str | None = Field(description="The reason code; of a run that waits, why it does.")
    explanation: str = Field(description="In a sentence.")


@router.get("/{run_id}/why", responses=READS_ONE, summary="Why does it wait, or why didn't it run?")
@guarded(READ)
async def explain_run(run_id: UUID, scheduler: SchedulerOf) -> RunWhy:
    """Of a run that waits: a paused queue, a limit, another run, no worker, or its time; else how it ended."""
    return RunWhy.model_validate(await scheduler.explain_run(run_id), from_attributes=True)


@router.post("/cancel", responses=WRITES, dependencies=[repeatable(parts=True)], summary="Cancel many runs")
@guarded(OPERATE)
async def cancel_runs(
    body: Annotated[BulkCancelRequest, Body(openapi_examples=BULK_CANCEL_EXAMPLES)],
    request: Request,
    scheduler: SchedulerOf,
    user: Caller,
) -> Done:
    """Cancel the runs that the filter finds, the oldest first, up to `limit`."""
    if body.dry_run:
        only_looks(request)
    bulk = await scheduler.cancel_runs(
        body.filter((RunState.QUEUED, RunState.RUNNING)),
        actor=user.username,
        limit=body.limit,
        dry_run=body.dry_run,
        note=body.reason,
    )
    return Done.of(bulk, dry_run=body.dry_run)


@router.post("/replay", responses=WRITES, dependencies=[repeatable(parts=True)], summary="Replay many runs")
@guarded(OPERATE)
async def replay_runs(
    body: Annotated[BulkRequest, Body(openapi_examples=BULK_REPLAY_EXAMPLES)],
    request: Request,
    scheduler: SchedulerOf,
    user: Caller,
) -> Done:
    """Replay the runs that the filter finds and that were not replayed yet; failed ones when no state is given."""
    if body.dry_run:
        only_looks(request)
    bulk = await scheduler.replay_runs(
        body.filter(FAILED), actor=user.username, limit=body.limit, dry_run=body.dry_run
    )
    return Done.of(bulk, dry_run=body.dry_run)


@router.post(
    "/{run_id}/cancel",
    status_code=status.HTTP_202_ACCEPTED,
    responses=WRITES_ONE,
    summary="Cancel a run",
)
@guarded(OPERATE)
async def cancel_run(
    run_id: UUID,
    scheduler: SchedulerOf,
    user: Caller,
    body: Annotated[CancelRequest | None, Body(openapi_examples=CANCEL_EXAMPLES)] = None,
) -> Run:
    """A queued run never starts; a running one is asked to stop, and after a grace made to."""
    wish = body or CancelRequest()
    return Run.of(await scheduler.cancel_run(run_id, actor=user.username, force=wish.force, note=wish.reason))


@router.post(
    "/{run_id}/replay",
    status_code=status.HTTP_202_ACCEPTED,
    responses=WRITES_ONE,
    dependencies=[repeatable(run_made)],
    summary="Replay a run",
)
@guarded(OPERATE)
async def replay_run(
    run_id: UUID,
    response: Response,
    scheduler: SchedulerOf,
    user: Caller,
    body: Annotated[ReplayRequest | None, Body(openapi_examples=REPLAY_EXAMPLES)] = None,
) -> Run:
    """Make a new run of the same task, with the same or other arguments; the old one stays as it is."""
    wish = body or ReplayRequest()
    run = await scheduler.replay_run(run_id, actor=user.username, args=wish.args, kwargs=wish.kwargs)
    response.headers["Location"] = run_location(run)
    return Run.of(run)


@router.get("/{run_id}/attempts", responses=READS_ONE, summary="Read the attempts of a run")
@guarded(READ)
async def get_attempts(run_id: UUID, scheduler: SchedulerOf) -> RunAttempts:
    """Every attempt with its worker and its error, and what came too late."""
    return RunAttempts.of(await scheduler.attempts(run_id))
