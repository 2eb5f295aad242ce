"""Queues: how much waits in them, who takes from them, and pausing, resuming and purging them."""

from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from fastapi import Body, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from app.api.companion import in_parts, only_looks
from app.api.dependencies import Caller, SchedulerOf
from app.api.examples import PURGE_EXAMPLES, QUEUE_EXAMPLE, QUEUE_PAUSE_EXAMPLES
from app.api.guards import OPERATE, READ, guarded
from app.api.idempotency import repeatable
from app.api.pagination import NO_CURSOR, FilterText, NextCursor, PageQuery, decode, encode
from app.api.problems import ACTS_ON_ONE, READS, READS_ONE, WRITES_ONE
from app.api.routing import resource_router
from app.api.schedule_actions import PauseRequest
from app.errors import FieldError, InvalidInput
from app.scheduling.models import WorkerRow
from app.scheduling.queues import Purged, QueueView

MAX_PURGED = 10_000

router = resource_router("/queues", "Queues")

QueuePath = Annotated[FilterText, Path(description="The queue's name.")]


class QueueConsumer(BaseModel):
    """A living worker that takes from the queue."""

    id: UUID
    name: str
    state: str
    concurrency: int | None

    @classmethod
    def of(cls, row: WorkerRow) -> Self:
        """The wire form."""
        return cls.model_validate(row, from_attributes=True)


class Queue(BaseModel):
    """A queue, as PostgreSQL knows it."""

    model_config = ConfigDict(json_schema_extra={"examples": [QUEUE_EXAMPLE]})

    name: str
    depth: int = Field(description="Runs that are due and wait for a worker.")
    oldest_age: float | None = Field(
        description="Seconds since the first of them was due; null when none waits."
    )
    held: int = Field(description="Runs that wait for a concurrency or rate limit.")
    delayed: int = Field(description="Runs that are due later.")
    blocked: int = Field(description="Runs that wait for the end of another one.")
    running: int
    messages: int | None = Field(
        description="Wake-ups in the broker, which may be fewer or more; null when it does not answer."
    )
    consumers: list[QueueConsumer] = Field(
        description="Who takes from it now; nobody while it is paused. Depth without consumers means that work waits"
        " for a worker that is not there."
    )
    paused: bool
    paused_at: datetime | None
    paused_by: str | None
    pause_note: str | None

    @classmethod
    def of(cls, view: QueueView) -> Self:
        """The wire form."""
        pause, counts = view.pause, view.counts
        return cls(
            name=view.name,
            depth=counts["queued"],
            oldest_age=None if view.oldest is None else round(view.oldest, 3),
            held=counts["held"],
            delayed=counts["delayed"],
            blocked=counts["blocked"],
            running=counts["running"],
            messages=view.messages,
            consumers=[QueueConsumer.of(row) for row in view.consumers],
            paused=pause is not None,
            paused_at=None if pause is None else pause.paused_at,
            paused_by=None if pause is None else pause.paused_by,
            pause_note=None if pause is None else pause.note,
        )


class QueuePage(BaseModel):
    """Queues, in the order in which workers take from them."""

    items: list[Queue]
    next_cursor: NextCursor


class QueueQuery(PageQuery):
    """Which queues."""

    search: FilterText | None = Field(None, description="Part of the name.")
    paused: bool | None = None


class PurgeRequest(BaseModel):
    """What is purged, said twice."""

    model_config = ConfigDict(extra="forbid")

    confirm: str = Field(
        "", max_length=300, description="The queue's name once more; not needed for a dry run."
    )
    dry_run: bool = Field(False, description="Count, and do nothing.")
    limit: int = Field(MAX_PURGED, ge=1, le=MAX_PURGED, description="Runs at most.")


class QueuePurged(BaseModel):
    """What was purged, or would be."""

    queue: str
    dry_run: bool
    matched: int = Field(description="Runs that waited, up to the limit.")
    cancelled: int = Field(description="Runs that were cancelled, with the reason `purged`.")
    more: bool = Field(description="There are more; call again.")
    messages: int | None = Field(
        description="Wake-ups that were dropped; null when there are more, or the broker did not answer."
    )

    @classmethod
    def of(cls, name: str, done: Purged, *, dry_run: bool) -> Self:
        """The wire form."""
        return cls(
            queue=name,
            dry_run=dry_run,
            matched=done.matched,
            cancelled=done.cancelled,
            more=done.more,
            messages=done.messages,
        )


@router.get("", responses=READS, summary="List queues")
@guarded(READ)
async def list_queues(query: Annotated[QueueQuery, Query()], scheduler: SchedulerOf) -> QueuePage:
    """All queues with what waits in them, who takes from them, and whether they are paused."""
    after = decode(query.cursor)
    found = await scheduler.queues.list()
    names = [view.name for view in found]
    if after is not None and after not in names:
        raise InvalidInput(FieldError("cursor", NO_CURSOR))
    rest = found if after is None else found[names.index(after) + 1 :]
    wanted = [
        view
        for view in rest
        if (query.search or "").lower() in view.name and query.paused in (None, view.pause is not None)
    ]
    page = wanted[: query.limit]
    more = encode(page[-1].name) if len(wanted) > query.limit else None
    return QueuePage(items=[Queue.of(view) for view in page], next_cursor=more)


@router.get("/{name}", responses=READS_ONE, summary="Read a queue")
@guarded(READ)
async def get_queue(name: QueuePath, scheduler: SchedulerOf) -> Queue:
    """One queue with what waits in it, who takes from it, and whether it is paused."""
    return Queue.of(await scheduler.queues.get(name))


@router.post("/{name}/pause", responses=WRITES_ONE, summary="Pause a queue")
@guarded(OPERATE)
async def pause_queue(
    name: QueuePath,
    body: Annotated[PauseRequest, Body(openapi_examples=QUEUE_PAUSE_EXAMPLES)],
    scheduler: SchedulerOf,
    user: Caller,
) -> Queue:
    """From now on no run of it starts, at whatever worker; what runs goes on, what waits stays.

    `GET /runs/{id}/why` says of a run that waits in it who paused it, and why.
    """
    return Queue.of(await scheduler.queues.pause(name, body.note, actor=user.username))


@router.post("/{name}/resume", responses=ACTS_ON_ONE, summary="Resume a queue")
@guarded(OPERATE)
async def resume_queue(name: QueuePath, scheduler: SchedulerOf) -> Queue:
    """What waits in it starts, but for what has passed its start deadline meanwhile."""
    return Queue.of(await scheduler.queues.resume(name))


@router.post("/{name}/purge", responses=WRITES_ONE, dependencies=[repeatable()], summary="Purge a queue")
@guarded(OPERATE)
async def purge_queue(
    name: QueuePath,
    body: Annotated[PurgeRequest, Body(openapi_examples=PURGE_EXAMPLES)],
    request: Request,
    scheduler: SchedulerOf,
) -> QueuePurged:
    """Cancel the runs that wait in it, with the reason `purged`; type its name once more as `confirm`.

    Running ones are not touched. Runs are cancelled in batches, each with its audit, so what was done stays when a
    batch fails; what is queued while the purge is under way stays too.
    """
    if body.dry_run:
        only_looks(request)
    elif body.confirm != name:
        raise InvalidInput(FieldError("confirm", "Must be the name of the queue that is purged."))
    else:
        in_parts(request)
    done = await scheduler.queues.purge(name, limit=body.limit, dry_run=body.dry_run)
    return QueuePurged.of(name, done, dry_run=body.dry_run)
