"""What changes, live: runs, scheduled tasks and queues as server-sent events."""

import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import Header, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from app.api import events
from app.api.admissions import Admission
from app.api.dependencies import Services, ServicesOf
from app.api.feed import Change, Client, Feed, Fired, Reset, Topic
from app.api.guards import READ, guarded
from app.api.pagination import FilterText
from app.api.problems import READS
from app.api.routing import resource_router
from app.db.outages import is_away
from app.errors import FieldError, InvalidInput, Unavailable
from app.scheduling.changes import QueueDepth, RunChange, ScheduleChange
from app.scheduling.config import QueueName
from app.scheduling.ids import EPOCH
from app.scheduling.states import Origin, RunState

runs = resource_router("/runs", "Runs")
schedules = resource_router("/scheduled-tasks", "Scheduled tasks")
queues = resource_router("/queues", "Queues")

LONGEST_STREAM: Final = 3600.0
AHEAD: Final = timedelta(minutes=1)
_MICROSECOND: Final = timedelta(microseconds=1)


class RunEvent(BaseModel):
    """A run as it is after a change; `GET /api/v1/runs/{id}` has its arguments and result."""

    id: UUID
    state: RunState
    reason: str | None
    origin: Origin
    attempt: int
    task: str
    queue: str
    schedule_id: UUID | None
    scheduled_for: datetime | None
    due_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    worker: str | None
    created_at: datetime


class ScheduleEvent(BaseModel):
    """A new version of a scheduled task."""

    schedule_id: UUID
    version: int
    action: str = Field(description="As in its history: `create`, `update`, `pause`, `resume`, `delete`, …")
    author: str
    changed_at: datetime
    task_name: str
    task: str
    state: str


class FiredEvent(BaseModel):
    """A tick of a scheduled task that was decided."""

    schedule_id: UUID
    run: RunEvent


class QueueEvent(BaseModel):
    """How many runs of a queue are in each state."""

    queue: str
    queued: int = Field(description="Could start now.")
    held: int = Field(description="By a concurrency or rate limit.")
    delayed: int = Field(description="Due later.")
    blocked: int = Field(description="Wait for the end of another run.")
    running: int
    oldest: float | None = Field(description="Seconds since the earliest of the queued ones was due.")


class ReadyEvent(BaseModel):
    """From here on changes are told as they come; `at` is the database's time."""

    at: datetime


class ResetEvent(BaseModel):
    """There were changes that are not told: read the resource again. The stream goes on."""

    reason: Reset = Field(
        description="`too_old`: the last event received is more than 15 minutes old. `too_many`: more happened than is"
        " told one by one."
    )


class EndEvent(BaseModel):
    """The stream ends; open it again with `Last-Event-ID`."""

    reason: Literal["too_slow", "too_long", "unauthorized", "closing"] = Field(
        description="`too_slow`: what was sent was not read. `too_long`: an hour is over. `unauthorized`: the session or"
        " key has ended, or does not allow this any more. `closing`: the service stops."
    )


MODELS: Final = (RunEvent, ScheduleEvent, FiredEvent, QueueEvent, ReadyEvent, ResetEvent, EndEvent)


class RunEventQuery(BaseModel):
    """Which runs. A run that is told once it has reached a state that is asked for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schedule_id: UUID | None = None
    task: FilterText | None = Field(None, description="Registered name.")
    queue: QueueName | None = None
    state: list[RunState] = Field(default_factory=list, description="Only changes to one of these states.")

    def wants(self, change: RunChange) -> bool:
        """Whether a change is asked for."""
        return (
            (self.schedule_id is None or change.schedule_id == self.schedule_id)
            and (self.task is None or change.task == self.task)
            and (self.queue is None or change.queue == self.queue)
            and (not self.state or change.state in self.state)
        )


class ScheduleEventQuery(BaseModel):
    """Which scheduled tasks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schedule_id: UUID | None = None
    task: FilterText | None = Field(None, description="Registered name.")
    kind: list[Literal["created", "changed", "paused", "deleted", "fired"]] = Field(
        default_factory=list, description="Only these events."
    )

    def wants(self, change: ScheduleChange | Fired) -> bool:
        """Whether a change is asked for."""
        about = change.run if isinstance(change, Fired) else change
        return (
            (self.schedule_id is None or about.schedule_id == self.schedule_id)
            and (self.task is None or about.task == self.task)
            and (not self.kind or _kind(change) in self.kind)
        )


class QueueEventQuery(BaseModel):
    """Which queue."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    queue: QueueName | None = None

    def wants(self, change: QueueDepth) -> bool:
        """Whether a change is asked for."""
        return self.queue is None or change.queue == self.queue


def _documented(**kinds: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI declaration: which events there are, and the schema of the data of each."""
    always: dict[str, type[BaseModel]] = {"ready": ReadyEvent, "reset": ResetEvent, "end": EndEvent}
    schemas = {
        kind: {"$ref": f"#/components/schemas/{model.__name__}"}
        for kind, model in {**kinds, **always}.items()
    }
    told = ", ".join(f"`{kind}`" for kind in schemas)
    content = {"schema": events.schema_of(*schemas), "x-event-data": schemas}
    return {200: {"description": f"Events {told}.", "content": {events.MEDIA_TYPE: content}}}


LastEventId = Annotated[
    str | None,
    Header(
        alias="Last-Event-ID",
        description="The last `id` received: what changed since then is told first.",
    ),
]


@runs.get(
    "/stream",
    responses={**READS, **_documented(run=RunEvent)},
    response_class=StreamingResponse,
    summary="Follow runs",
)
@guarded(READ)
async def stream_runs(
    query: Annotated[RunEventQuery, Query()],
    request: Request,
    services: ServicesOf,
    last_event_id: LastEventId = None,
) -> StreamingResponse:
    """Each run that is queued, starts, ends or goes back to its queue, as it is then; at most four times a second.

    A state that lasted for less may be left out. After a reconnection changes of the last seconds may be told again:
    an event replaces what you knew of its run. Heartbeats come every 15 seconds.
    """
    return await _stream(request, services, Topic.RUNS, query.wants, last_event_id)


@schedules.get(
    "/stream",
    responses={
        **READS,
        **_documented(
            created=ScheduleEvent,
            changed=ScheduleEvent,
            paused=ScheduleEvent,
            deleted=ScheduleEvent,
            fired=FiredEvent,
        ),
    },
    response_class=StreamingResponse,
    summary="Follow scheduled tasks",
)
@guarded(READ)
async def stream_scheduled_tasks(
    query: Annotated[ScheduleEventQuery, Query()],
    request: Request,
    services: ServicesOf,
    last_event_id: LastEventId = None,
) -> StreamingResponse:
    """Each new version of a scheduled task, and each tick that is decided; at most four times a second.

    After a reconnection changes of the last seconds may be told again. A tick that was caught up with more than ten
    seconds late is told when its run starts. Heartbeats come every 15 seconds.
    """
    return await _stream(request, services, Topic.SCHEDULES, query.wants, last_event_id)


@queues.get(
    "/stream",
    responses={**READS, **_documented(queue=QueueEvent)},
    response_class=StreamingResponse,
    summary="Follow queues",
)
@guarded(READ)
async def stream_queues(
    query: Annotated[QueueEventQuery, Query()],
    request: Request,
    services: ServicesOf,
    last_event_id: LastEventId = None,
) -> StreamingResponse:
    """How much is in each queue: all of them first, then each that changes, at most once a second.

    A reconnection begins with all of them again. Heartbeats come every 15 seconds.
    """
    return await _stream(request, services, Topic.QUEUES, query.wants, last_event_id)


async def _stream(
    request: Request,
    services: Services,
    topic: Topic,
    wants: Callable[[Any], bool],
    last_event_id: str | None,
) -> StreamingResponse:
    feed = services.feed
    if feed.full or feed.closing:
        raise Unavailable(
            "Too many streams are open here, or the service stops. Try again, or read the lists."
        )
    position = await feed.now()
    after = _instant(last_event_id, position) if last_event_id else None
    return events.EventStream(
        _events(request, services, topic, wants, (position, after)), headers=dict(events.HEADERS)
    )


async def _events(
    request: Request,
    services: Services,
    topic: Topic,
    wants: Callable[[Any], bool],
    places: tuple[datetime, datetime | None],
) -> AsyncIterator[str]:
    (position, after), feed = places, services.feed
    yield events.BEGINNING
    with (
        feed.reading(topic, wants, position) as client,
        services.admissions.admitted(request, client.tell) as admission,
    ):
        try:
            for change in await _before(feed, topic, wants, after):
                yield rendered(change)
        except Exception as error:
            if not is_away(error):
                raise
            # The reader tries again from where it was.
            return
        # Somebody else's look may have told what happened between the question for the time and the registration.
        ready = ReadyEvent(at=client.position)
        yield events.event("ready", ready.model_dump_json(), _identifier(client.position))
        ends = time.monotonic() + LONGEST_STREAM
        told = time.monotonic()
        while (reason := _ending(feed, client, admission, ends)) is None:
            given = await client.next(events.KEEP_ALIVE)
            for text in _texts(given, client.position):
                yield text
            now = time.monotonic()
            if not given and now - told >= events.KEEP_ALIVE:
                # With the place: what was not wanted in a quiet hour is not looked through again.
                yield f"id: {_identifier(client.position)}\n{events.STILL_HERE}"
            told = now if given or now - told >= events.KEEP_ALIVE else told
        yield events.event("end", json.dumps({"reason": reason}))


def _ending(feed: Feed, client: Client, admission: Admission, ends: float) -> str | None:
    if feed.closing:
        return "closing"
    if admission.over:
        return "unauthorized"
    if client.slow:
        return "too_slow"
    return "too_long" if time.monotonic() >= ends else None


async def _before(
    feed: Feed, topic: Topic, wants: Callable[[Any], bool], after: datetime | None
) -> Sequence[Change]:
    if topic is Topic.QUEUES:
        return [depth for depth in await feed.depths() if wants(depth)]
    return () if after is None else await feed.replay(topic, after, wants)


def _texts(given: Sequence[Change], position: datetime) -> Iterator[str]:
    """Only the last of a batch moves the place: who has lost half of it is told all of it again."""
    for number, change in enumerate(given, 1):
        named = f"id: {_identifier(position)}\n" if number == len(given) else ""
        yield named + rendered(change)


@lru_cache(maxsize=4096)
def rendered(change: Change) -> str:
    """The event of a change, once for all clients."""
    if isinstance(change, Reset):
        return events.event("reset", ResetEvent(reason=change).model_dump_json())
    if isinstance(change, Fired):
        run = RunEvent(**asdict(change.run))
        data: BaseModel = FiredEvent(schedule_id=run.schedule_id or UUID(int=0), run=run)
    elif isinstance(change, RunChange):
        data = RunEvent(**asdict(change))
    elif isinstance(change, ScheduleChange):
        data = ScheduleEvent(**asdict(change))
    else:
        data = QueueEvent(**asdict(change))
    return events.event(_kind(change), data.model_dump_json())


def _kind(change: Change) -> str:
    if isinstance(change, RunChange):
        return "run"
    if isinstance(change, Fired):
        return "fired"
    if isinstance(change, ScheduleChange):
        return {"create": "created", "pause": "paused", "delete": "deleted"}.get(change.action, "changed")
    return "queue"


def _identifier(position: datetime) -> str:
    return str((position - EPOCH) // _MICROSECOND)


def _instant(identifier: str, now: datetime) -> datetime:
    wrong = InvalidInput(FieldError("Last-Event-ID", "Pass it as it was given, or leave it out."))
    if not (identifier.isascii() and identifier.isdigit() and len(identifier) <= 17):
        raise wrong
    instant = (EPOCH + int(identifier) * _MICROSECOND).astimezone(UTC)
    if instant > now + AHEAD:
        raise wrong
    return instant
