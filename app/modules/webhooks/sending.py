"""One request to a webhook. Knows no database.

Connections go only where `app.outbound` allows, redirects are not followed, and of the answer nothing but its status is
of interest: its body is not read.
"""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import httpx

from app import outbound
from app.modules.webhooks import signing
from app.outbound import OutboundPolicy, OutboundRefused

LONGEST_WAIT: Final = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What is sent to whom. ``id`` is the same for every attempt; ``secrets`` sign, the newest first."""

    id: str
    url: str
    type: str
    at: datetime
    data: Mapping[str, Any]
    attempt: int
    secrets: Sequence[str] = field(repr=False)

    @property
    def body(self) -> bytes:
        """The JSON document."""
        document = {"type": self.type, "timestamp": _instant(self.at), "data": dict(self.data)}
        return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Receipt:
    """What came of an attempt; ``wait`` is how long the receiver asked to be left alone, ``duration`` how long it took,
    both in seconds."""

    status: int | None
    error: str | None
    duration: float
    wait: float = 0.0

    @property
    def received(self) -> bool:
        return self.error is None


async def send(message: Message, policy: OutboundPolicy, *, within: float) -> Receipt:
    """One attempt, of ``within`` seconds at most; it never raises for what the other side does."""
    body, began = message.body, time.monotonic()
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "upbeat",
        "Accept-Encoding": "identity",
        "upbeat-attempt": str(message.attempt),
        **signing.headers(message.secrets, message.id, int(time.time()), body),
    }
    try:
        async with (
            asyncio.timeout(within),
            outbound.client(policy, timeout=within) as client,
            client.stream("POST", message.url, headers=headers, content=body) as response,
        ):
            status = response.status_code
            asked = outbound.retry_after(response.headers.get("retry-after"), datetime.now(UTC))
    except OutboundRefused as error:
        return Receipt(None, error.detail, _since(began))
    except (TimeoutError, httpx.TimeoutException):
        return Receipt(None, f"No answer within {within:g} s.", _since(began))
    except (httpx.TransportError, httpx.InvalidURL, httpx.DecodingError) as error:
        return Receipt(None, f"{type(error).__name__}: {error}"[:500], _since(began))
    if 200 <= status < 300:
        return Receipt(status, None, _since(began))
    words = "a redirect, which is not followed" if 300 <= status < 400 else "which is not 2xx"
    return Receipt(status, f"Answered {status}, {words}.", _since(began), min(asked or 0.0, LONGEST_WAIT))


def _since(began: float) -> float:
    return round(time.monotonic() - began, 3)


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
