"""Workers and beats: who is there, and how fresh its last sign of life is."""

from datetime import datetime
from typing import Annotated, Literal, Self
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel, Field

from app.api.dependencies import ServicesOf
from app.api.guards import READ, guarded
from app.api.pagination import FilterText, NextCursor, PageQuery, encode
from app.api.problems import READS, READS_ONE
from app.api.routing import resource_router
from app.scheduling.config import QueueName
from app.scheduling.observing import BeatView, WorkerView

WorkerState = Literal["starting", "ready", "draining", "stopped"]

workers = resource_router("/workers", "Workers and beats")
beats = resource_router("/beats", "Workers and beats")


class Worker(BaseModel):
    """A worker from its start to its end; a restarted one is another."""

    id: UUID
    name: str = Field(description="Celery's node name.")
    pid: int
    state: str = Field(description="What it said last: `starting`, `ready`, `draining` or `stopped`.")
    alive: bool = Field(description="Whether it holds a lease; without one it can start nothing.")
    lease_left: float = Field(description="Seconds; negative when the lease has ended.")
    lease_expires_at: datetime
    queues: list[str] = Field(description="In the order in which it takes from them.")
    pool: str | None
    concurrency: int | None
    version: str | None
    active_runs: int
    started_at: datetime
    stopped_at: datetime | None
    drain_requested_at: datetime | None = Field(description="When somebody asked it to end.")
    concurrency_wanted: int | None = Field(
        description="The slots that it is asked to have; null when it has."
    )
    wish_refused: str | None = Field(description="Why it did not do what it was asked for last.")

    @classmethod
    def of(cls, view: WorkerView) -> Self:
        """The wire form."""
        own = ("alive", "lease_left", "active_runs")
        values = {name: getattr(view.row, name) for name in cls.model_fields if name not in own}
        return cls(
            **values, alive=view.alive, lease_left=round(view.lease_left, 3), active_runs=view.active_runs
        )


class WorkerPage(BaseModel):
    """Workers, the youngest first."""

    items: list[Worker]
    next_cursor: NextCursor


class WorkerQuery(PageQuery):
    """Which workers."""

    alive: bool | None = Field(None, description="Only those that hold a lease, or only the others.")
    state: WorkerState | None = None
    queue: QueueName | None = Field(None, description="One that it takes from.")
    search: FilterText | None = Field(None, description="Part of the name.")


class BeatQuery(PageQuery):
    """Which beats."""

    alive: bool | None = Field(
        None, description="Only those that passed within 15 seconds, or only the others."
    )
    search: FilterText | None = Field(None, description="Part of the name.")


class Beat(BaseModel):
    """A beat process, or the beat inside an API process."""

    id: UUID
    name: str
    pid: int
    version: str | None
    started_at: datetime
    last_pass_at: datetime
    age: float = Field(description="Seconds since its last good pass.")

    @classmethod
    def of(cls, view: BeatView) -> Self:
        """The wire form."""
        values = {name: getattr(view.row, name) for name in cls.model_fields if name != "age"}
        return cls(**values, age=round(view.age, 3))


class BeatPage(BaseModel):
    """Beats, the youngest first."""

    items: list[Beat]
    next_cursor: NextCursor


@workers.get("", responses=READS, summary="List workers")
@guarded(READ)
async def list_workers(query: Annotated[WorkerQuery, Query()], services: ServicesOf) -> WorkerPage:
    """Workers, the youngest first, filtered by life, state, queue and name; those that ended are kept for a week."""
    page = await services.observer.workers(
        limit=query.limit,
        before=query.position(),
        alive=query.alive,
        state=query.state,
        queue=query.queue,
        search=query.search,
    )
    return WorkerPage(items=[Worker.of(view) for view in page.items], next_cursor=encode(page.next))


@workers.get("/{worker_id}", responses=READS_ONE, summary="Read a worker")
@guarded(READ)
async def get_worker(worker_id: UUID, services: ServicesOf) -> Worker:
    """One worker with its lease and the number of runs that it executes."""
    return Worker.of(await services.observer.worker(worker_id))


@beats.get("", responses=READS, summary="List beats")
@guarded(READ)
async def list_beats(query: Annotated[BeatQuery, Query()], services: ServicesOf) -> BeatPage:
    """Beats, the youngest first; those that ended are kept for a day."""
    page = await services.observer.beats(
        limit=query.limit, before=query.position(), alive=query.alive, search=query.search
    )
    return BeatPage(items=[Beat.of(view) for view in page.items], next_cursor=encode(page.next))


@beats.get("/{beat_id}", responses=READS_ONE, summary="Read a beat")
@guarded(READ)
async def get_beat(beat_id: UUID, services: ServicesOf) -> Beat:
    """One beat and its last good pass."""
    return Beat.of(await services.observer.beat(beat_id))
