"""Server-sent events: their text, and an answer that does not wait for ever for a client that does not read."""

import asyncio
from typing import Any, Final

import structlog
from fastapi.responses import StreamingResponse
from starlette.types import Message, Send

KEEP_ALIVE: Final = 15.0
RETRY_MILLISECONDS: Final = 2000
# What the sockets on the way hold is full, and nothing was taken out for so many seconds.
SEND_PATIENCE: Final = 30.0
MEDIA_TYPE: Final = "text/event-stream"
HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
STILL_HERE: Final = ": still here\n\n"
AWAY: Final = ": the database is away\n\n"
BEGINNING: Final = f"retry: {RETRY_MILLISECONDS}\n\n"

log = structlog.get_logger(__name__)


def schema_of(*kinds: str) -> dict[str, Any]:
    """The schema of each event of a stream, not of the whole; ``kinds`` are what `event` may be."""
    return {
        "type": "object",
        "properties": {
            "id": {
                "type": "string",
                "description": "Send the last one as `Last-Event-ID` to go on after it. A heartbeat may have one, too.",
            },
            "event": {"type": "string", "enum": list(kinds)},
            "data": {"type": "string", "contentMediaType": "application/json"},
        },
    }


def event(kind: str, data: str, identifier: str | None = None) -> str:
    """One event; ``data`` is JSON, in one line."""
    named = "" if identifier is None else f"id: {identifier}\n"
    return f"{named}event: {kind}\ndata: {data}\n\n"


class EventStream(StreamingResponse):
    """An answer of events, cut off when its reader takes nothing."""

    media_type = MEDIA_TYPE

    async def stream_response(self, send: Send) -> None:
        """As the base's, with patience."""

        async def patient(message: Message) -> None:
            async with asyncio.timeout(SEND_PATIENCE):
                await send(message)

        try:
            await super().stream_response(patient)
        except TimeoutError:
            log.warning("a reader of events took nothing", action="stream_cut")
