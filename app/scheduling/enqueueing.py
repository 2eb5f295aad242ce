"""Runs on demand, many at once: one INSERT and one transaction for all that come together, then one push.

A batch that the database refuses is done again call by call, so that the one that is wrong fails alone. What accompanies
each call (its audit entry, its idempotency key) is committed with the batch.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app import failpoints
from app.db import documents
from app.db.companions import Companion, bring, present
from app.errors import UpbeatError
from app.scheduling import statements, tracing
from app.scheduling.catalogue import TaskSpec
from app.scheduling.config import RunRequest
from app.scheduling.gathering import Call, Gathering
from app.scheduling.ids import new_id
from app.scheduling.messages import RunMessage
from app.scheduling.refusals import refuses_values
from app.scheduling.states import Origin, RunState
from app.settings import BeatSettings

INSERT_MANY = text("""
INSERT INTO celery_task_runs
    (id, state, origin, task, queue, due_at, next_dispatch_at, dispatches, args, kwargs, options, requested_by,
     traceparent, request_id)
SELECT id, 'queued', 'submit', task, queue, statement_timestamp() + make_interval(secs => delay),
       statement_timestamp() + make_interval(secs => CASE WHEN delay > 0 THEN delay ELSE :redispatch_delay END),
       CASE WHEN delay > 0 THEN 0 ELSE 1 END,
       args, kwargs, options, requested_by, traceparent, request_id
FROM json_to_recordset(CAST(:runs AS json)) AS wished (
    id uuid, task text, queue text, delay double precision, args jsonb, kwargs jsonb, options jsonb,
    requested_by text, traceparent text, request_id text
)
RETURNING id, due_at, created_at
""")


@dataclass(slots=True, kw_only=True)
class NewRun:
    """A run that was made now: what `RunRow` would hold, without reading it."""

    id: UUID
    task: str
    queue: str
    due_at: datetime
    created_at: datetime
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    options: Mapping[str, Any]
    requested_by: str | None
    state: RunState = RunState.QUEUED
    origin: Origin = Origin.SUBMIT
    attempt: int = 1
    reason: None = None
    schedule_id: None = None
    schedule_version: None = None
    scheduled_for: None = None
    published_at: None = None
    started_at: None = None
    finished_at: None = None
    blocked_by: None = None
    cancel_requested_at: None = None
    worker: None = None
    result: None = None
    error: None = None
    progress: None = None
    replay_of: None = None


@dataclass(slots=True)
class Wish:
    """One run to be made; ``delay`` in seconds."""

    task: TaskSpec
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    options: dict[str, Any]
    queue: str
    delay: float
    requested_by: str | None
    id: UUID = field(default_factory=new_id)
    traceparent: str | None = field(default_factory=tracing.current)
    request_id: str | None = field(default_factory=tracing.request_id)
    companion: Companion | None = field(default_factory=present)

    @classmethod
    def of(cls, task: TaskSpec, body: RunRequest, actor: str) -> "Wish":
        """What a request asks for, on behalf of whoever is served now."""
        queue = body.options.queue or task.queue
        options = body.options.stored(task)
        return cls(task, body.args, body.kwargs, options, queue, body.countdown or 0.0, actor)

    def message(self) -> RunMessage:
        """Its wake-up."""
        return RunMessage.of(
            self.id, self.task.name, self.queue, 1, self.options, traceparent=self.traceparent
        )


class Enqueuer:
    """Makes runs for any number of callers of this process."""

    def __init__(
        self,
        sessions: async_sessionmaker[AsyncSession],
        publish: Callable[[Sequence[RunMessage]], Awaitable[None]],
        settings: BeatSettings,
    ) -> None:
        self._sessions = sessions
        self._publish = publish
        self._settings = settings
        self._gathering: Gathering[Wish, NewRun] = Gathering(self._serve_traced)
        self._pushing: set[asyncio.Task[None]] = set()

    async def make(self, wish: Wish) -> NewRun:
        """A run that is committed, and whose wake-up is sent if the broker takes it."""
        return await self._gathering.ask(wish)

    async def _serve_traced(self, calls: Sequence[Call[Wish, NewRun]]) -> None:
        """A batch's statements and pushes show in the trace of its first caller."""
        with tracing.resumed(calls[0].wish.traceparent):
            await self._serve(calls)

    async def _serve(self, calls: Sequence[Call[Wish, NewRun]]) -> None:
        try:
            made = await self._store([call.wish for call in calls])
        except Exception as error:
            if len(calls) == 1 or not _is_of_one(error):
                raise
            for call in calls:
                try:
                    await self._serve([call])
                except Exception as error:  # noqa: BLE001 - it is this caller's to handle
                    call.refuse(error)
            return
        failpoints.reach("enqueue.committed")
        # The next batch does not wait for the broker.
        push = asyncio.create_task(self._push(calls, made))
        self._pushing.add(push)
        push.add_done_callback(self._pushing.discard)

    async def _store(self, wishes: Sequence[Wish]) -> dict[UUID, NewRun]:
        async with self._sessions() as session, session.begin():
            rows = await session.execute(INSERT_MANY, self._values(wishes))
            told = {row.id: row for row in rows}
            made = {wish.id: _new(wish, told[wish.id]) for wish in wishes}
            if any(0 < wish.delay < self._settings.max_sleep for wish in wishes):
                await session.execute(statements.NOTIFY_BEATS)
            for wish in wishes:
                bring(session, wish.companion, made[wish.id])
        return made

    async def _push(self, calls: Sequence[Call[Wish, NewRun]], made: Mapping[UUID, NewRun]) -> None:
        try:
            await self._publish([call.wish.message() for call in calls if call.wish.delay <= 0])
        finally:
            for call in calls:
                call.give(made[call.wish.id])

    def _values(self, wishes: Sequence[Wish]) -> dict[str, Any]:
        runs = [
            {
                "id": str(wish.id),
                "task": wish.task.name,
                "queue": wish.queue,
                "delay": wish.delay,
                "args": wish.args,
                "kwargs": wish.kwargs,
                "options": wish.options,
                "requested_by": wish.requested_by,
                "traceparent": wish.traceparent,
                "request_id": wish.request_id,
            }
            for wish in wishes
        ]
        return {"redispatch_delay": self._settings.redispatch_delay, "runs": documents.written(runs)}


def _new(wish: Wish, told: Any) -> NewRun:
    return NewRun(
        id=wish.id,
        task=wish.task.name,
        queue=wish.queue,
        due_at=told.due_at,
        created_at=told.created_at,
        args=wish.args,
        kwargs=wish.kwargs,
        options=wish.options,
        requested_by=wish.requested_by,
    )


def _is_of_one(error: Exception) -> bool:
    """Whether one call's values can have brought it upon the batch; anything else would happen to each alike."""
    if isinstance(error, DBAPIError):
        return refuses_values(error)
    return isinstance(error, UpbeatError | TypeError | ValueError)
