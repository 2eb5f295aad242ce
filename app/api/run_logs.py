"""The log of a run: pages, and a live stream of lines, progress and state."""

import json
import time
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Literal, Self
from uuid import UUID

from fastapi import Header, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from app.api.dependencies import Services, ServicesOf
from app.api.events import AWAY, BEGINNING, HEADERS, KEEP_ALIVE, STILL_HERE, EventStream, event, schema_of
from app.api.following import Follower
from app.api.guards import READ, guarded
from app.api.pagination import NextCursor, PageQuery, decode, encode
from app.api.problems import READS_ONE
from app.api.routing import resource_router
from app.db.outages import is_away
from app.errors import FieldError, InvalidInput, Unavailable
from app.scheduling.models import LogRow
from app.scheduling.observing import Observer
from app.scheduling.run_logs import Place, Standing
from app.scheduling.states import RunState

router = resource_router("/runs", "Runs")

BATCH = 500
LONGEST_STREAM = 3600.0

EVENT = schema_of("log", "progress", "state", "end")

Level = Literal["debug", "info", "warning", "error", "critical"]


class LogLine(BaseModel):
    """One line that a run logged or printed; secrets are blacked out."""

    attempt: int
    number: int = Field(description="Counted in each attempt, from 1.")
    logged_at: datetime = Field(description="By the worker's clock.")
    level: Level
    logger: str = Field(description="The logger's name; `stdout` or `stderr` for what was printed.")
    message: str

    @classmethod
    def of(cls, row: LogRow) -> Self:
        """The wire form of a row."""
        return cls.model_validate(row, from_attributes=True)


class LogPage(BaseModel):
    """Lines, in the order in which they were written."""

    items: list[LogLine]
    next_cursor: NextCursor


class LogQuery(PageQuery):
    """Which lines."""

    level: Level = Field("debug", description="Of this level or a graver one.")

    def place(self) -> Place | None:
        """The line that the cursor stands for.

        Raises:
            InvalidInput: it is not a cursor that this service gave.
        """
        return _place(decode(self.cursor), "cursor")


@router.get("/{run_id}/logs", responses=READS_ONE, summary="Read the log of a run")
@guarded(READ)
async def get_run_logs(run_id: UUID, query: Annotated[LogQuery, Query()], services: ServicesOf) -> LogPage:
    """What the run logged and printed, attempt by attempt; long logs are cut, with a last line that says so."""
    found = await services.observer.log(
        run_id, after=query.place(), limit=query.limit + 1, at_least=query.level
    )
    page = found[: query.limit]
    more = encode(_text(page[-1])) if len(found) > query.limit else None
    return LogPage(items=[LogLine.of(row) for row in page], next_cursor=more)


@router.get(
    "/{run_id}/logs/stream",
    responses={
        **READS_ONE,
        200: {
            "description": "Events `log`, `progress`, `state` and, when the run is over, `end`.",
            "content": {"text/event-stream": {"schema": EVENT}},
        },
    },
    response_class=StreamingResponse,
    summary="Follow the log of a run",
)
@guarded(READ)
async def stream_run_logs(
    run_id: UUID,
    request: Request,
    services: ServicesOf,
    last_event_id: Annotated[
        str | None, Header(alias="Last-Event-ID", description="`id` of the last `log` event received.")
    ] = None,
) -> StreamingResponse:
    """Server-sent events, from the first line or after `Last-Event-ID`, until the run is over.

    Without `end` it ended for another reason (the service stops, the session has ended): ask again.
    """
    after = _place(last_event_id or None, "Last-Event-ID")
    if services.following.full or services.following.closing:
        raise Unavailable("Too many streams are open here. Try again, or read the pages of the log.")
    await services.observer.log(run_id, after=after, limit=1)
    return EventStream(_events(request, services, run_id, after), headers=dict(HEADERS))


async def _events(
    request: Request, services: Services, run_id: UUID, after: Place | None
) -> AsyncIterator[str]:
    told: Standing | None = None
    ends = time.monotonic() + LONGEST_STREAM
    yield BEGINNING
    following, observer = services.following, services.observer
    with (
        following.following(run_id) as follower,
        services.admissions.admitted(request, follower.tell) as admission,
    ):
        while not (following.closing or admission.over) and time.monotonic() < ends:
            # Looked at before the lines are read: all lines of a run are stored before it ends.
            standing = follower.standing
            lines = await _lines(observer, run_id, after, follower)
            if lines is None:
                yield AWAY
                continue
            for row in lines:
                after = Place(row.attempt, row.number)
                yield event("log", LogLine.of(row).model_dump_json(), _text(row))
            if len(lines) == BATCH:
                continue
            for text in _changes(told, standing):
                yield text
            told = standing or told
            if standing is not None and RunState(standing.state).terminal:
                yield event("end", json.dumps({"state": standing.state}))
                return
            if follower.standing is standing:
                before = time.monotonic()
                await follower.wait(KEEP_ALIVE)
                if time.monotonic() - before >= KEEP_ALIVE:
                    yield STILL_HERE


async def _lines(
    observer: Observer, run_id: UUID, after: Place | None, follower: Follower
) -> list[LogRow] | None:
    try:
        return await observer.log(run_id, after=after, limit=BATCH)
    except Exception as error:
        if not is_away(error):
            raise
        await follower.wait(1.0)
        return None


def _changes(told: Standing | None, now: Standing | None) -> list[str]:
    if now is None:
        return []
    changes = []
    if told is None or (told.state, told.attempt) != (now.state, now.attempt):
        changes.append(event("state", json.dumps({"state": now.state, "attempt": now.attempt})))
    if now.progress is not None and (told is None or told.progress != now.progress):
        changes.append(event("progress", json.dumps(now.progress)))
    return changes


def _text(row: LogRow) -> str:
    return f"{row.attempt}-{row.number}"


def _place(given: str | None, field: str) -> Place | None:
    if given is None:
        return None
    attempt, _, number = given.partition("-")
    if not (attempt.isascii() and attempt.isdigit() and number.isascii() and number.isdigit()):
        raise InvalidInput(FieldError(field, "Pass it as it was given, or leave it out."))
    if len(attempt) > 4 or len(number) > 9:
        raise InvalidInput(FieldError(field, "Pass it as it was given, or leave it out."))
    return Place(int(attempt), int(number))
