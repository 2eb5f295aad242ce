"""Runs: what was executed, is being executed, or was decided not to be."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from fastapi import Query, Response, status
from pydantic import BaseModel, Field
from pydantic_core import to_json

from app.api.dependencies import CatalogueOf, SchedulerOf
from app.api.guards import READ, guarded
from app.api.idempotency import Answer
from app.api.pagination import FilterText, NextCursor, PageQuery, encode
from app.api.problems import READS, READS_ONE
from app.api.routing import resource_router
from app.scheduling.catalogue import Catalogue
from app.scheduling.config import QueueName
from app.scheduling.enqueueing import NewRun
from app.scheduling.inputs import Instant
from app.scheduling.models import RunRow
from app.scheduling.policies import Reason
from app.scheduling.runs import Origin, RunState
from app.scheduling.selecting import RunFilter
from app.worker.results import CELERY_STATES

router = resource_router("/runs", "Runs")

_FILTERS = {
    *("schedule_id", "task", "queue", "origin", "reason", "worker_id", "requested_by", "exception"),
    *("since", "until"),
}


class Run(BaseModel):
    """One intended execution, from its tick or request to its outcome."""

    id: UUID = Field(description="Also the Celery task id.")
    state: RunState
    celery_state: str = Field(description="The state by Celery's names.")
    reason: str | None = Field(description="Why it did not run, or not to its end.")
    origin: Origin
    task: str
    queue: str
    schedule_id: UUID | None
    schedule_version: int | None
    scheduled_for: datetime | None = Field(description="Nominal time: the tick.")
    due_at: datetime = Field(description="Effective time: nominal plus jitter, countdown or back-off.")
    published_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    blocked_by: UUID | None = Field(description="The run after whose end this one has its turn.")
    cancel_requested_at: datetime | None
    attempt: int
    worker: str | None
    args: list[Any]
    kwargs: dict[str, Any]
    options: dict[str, Any]
    result: Any | None
    error: dict[str, Any] | None
    progress: dict[str, Any] | None = Field(
        description="What the body said last: `done`, `total`, `message`, `attempt`, `at`."
    )
    requested_by: str | None
    replay_of: UUID | None = Field(description="The run that this one repeats.")
    created_at: datetime

    @classmethod
    def of(cls, row: RunRow | NewRun) -> Self:
        """The wire form of a row."""
        return cls(**told(row))


class RunPage(BaseModel):
    """Runs, newest first."""

    items: list[Run]
    next_cursor: NextCursor


class RunQuery(PageQuery):
    """Which runs."""

    schedule_id: UUID | None = None
    state: RunState | None = None
    task: FilterText | None = Field(None, description="Registered name.")
    queue: QueueName | None = None
    exception: FilterText | None = Field(
        None, description="Type of the error of a failed run: `ValueError`, `package.module.Name`."
    )
    search: FilterText | None = Field(None, description="Part of the name of a registered task.")
    origin: Origin | None = None
    reason: Reason | None = Field(None, description="Why it did not run, or not to its end.")
    worker_id: UUID | None = Field(None, description="Who executes it, or did so last.")
    requested_by: FilterText | None = None
    sort: Literal["-created", "created"] = Field(
        "-created", description="By the time that `since` and `until` mean; `-` is the newest first."
    )
    since: Instant | None = Field(
        None, description="Nominal time of a scheduled run, else of its making; included."
    )
    until: Instant | None = Field(None, description="Excluded.")

    def filter(self, catalogue: Catalogue) -> RunFilter:
        """The domain's form; a search is one among the names of the catalogue, not among millions of runs."""
        sought = None if self.search is None else self.search.lower()
        return RunFilter(
            states=() if self.state is None else (self.state,),
            tasks=None
            if sought is None
            else [spec.name for spec in catalogue if sought in spec.name.lower()],
            **self.model_dump(include=_FILTERS),
        )


def told(row: RunRow | NewRun) -> dict[str, Any]:
    """The fields of a `Run`. What is told of many, or very often, is made into JSON from here: the tables and our own
    code hold the types, and `Run` would look at each value once more."""
    found = {name: getattr(row, name, None) for name in Run.model_fields}
    retrying = row.state == RunState.QUEUED and row.attempt > 1
    found["celery_state"] = "RETRY" if retrying else CELERY_STATES[row.state]
    return found


def run_location(run: RunRow | NewRun) -> str:
    """The path of a run."""
    return f"/api/v1/runs/{run.id}"


def run_made(run: RunRow | NewRun) -> Answer:
    """The answer to what made a run."""
    return Answer(status.HTTP_202_ACCEPTED, {"Location": run_location(run)}, to_json(told(run)).decode())


@router.get("", response_model=RunPage, responses=READS, summary="List runs")
@guarded(READ)
async def list_runs(
    query: Annotated[RunQuery, Query()], scheduler: SchedulerOf, catalogue: CatalogueOf
) -> Response:
    """Runs, newest first, filtered by schedule, state, task, queue, origin, reason, worker, error and time.

    A page reads a bounded part of the history: while `next_cursor` is there, it may hold fewer than `limit`, or none.
    """
    page = await scheduler.list_runs(
        limit=query.limit,
        before=query.position(),
        which=query.filter(catalogue),
        oldest_first=query.sort == "created",
    )
    found = {"items": [told(row) for row in page.items], "next_cursor": encode(page.next)}
    return Response(to_json(found), media_type="application/json")


@router.get("/{run_id}", responses=READS_ONE, summary="Read a run")
@guarded(READ)
async def get_run(run_id: UUID, scheduler: SchedulerOf) -> Run:
    """One run with its arguments, its outcome and, if it did not execute, the reason."""
    return Run.of(await scheduler.get_run(run_id))
