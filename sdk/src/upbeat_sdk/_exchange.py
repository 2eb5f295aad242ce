"""One logical call on its way: when it is sent again, and after which pause. Knows no clock and no socket.

Sent again are answers that say "not now" (429, 502, 503, 504) and requests that brought none, if
repeating the call does no harm: it reads, replaces or deletes, or carries an idempotency key. Any other
call is sent again only when it cannot have been done: the connection was not made, or 429.

What is gone when its deletion is sent again was deleted by the request before.
"""

import logging
import random
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from upbeat_sdk._call import Call
from upbeat_sdk._errors import ConnectionFailed, TimedOut, UpbeatError
from upbeat_sdk._settings import Settings

PASSING = frozenset({429, 502, 503, 504})
NOT_DONE = frozenset({429})
# To a request that was sent again under its key: the first one, given up here, is still being done there.
UNDER_WAY = 409
GONE = 404
PROBLEM = "application/problem+json"
NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
LONGEST_PAUSE = 8.0
LONGEST_RETRY_AFTER = 60.0

log = logging.getLogger("upbeat_sdk")


def passing(error: UpbeatError) -> bool:
    """Whether the same call may well succeed a little later: no answer, or one that says "not now", whoever gave it."""
    return isinstance(error, ConnectionFailed) or getattr(error, "status", None) in PASSING


class Exchange:
    """Counts the requests of one call and decides about the next."""

    def __init__(self, call: Call, settings: Settings) -> None:
        self.call = call.with_key()
        self._settings = settings
        self._sent = 0
        self._perhaps_done = False

    def counted(self, response: httpx.Response) -> httpx.Response:
        """The answer to the call, of the answer to its last request."""
        problem = response.headers.get("Content-Type", "").startswith(PROBLEM)
        gone = response.status_code == GONE and problem
        if gone and self._perhaps_done and self.call.verb == "DELETE":
            return httpx.Response(httpx.codes.NO_CONTENT, request=response.request)
        return response

    def answered(self, status: int, headers: Mapping[str, str]) -> float | None:
        """Seconds to wait before the call is sent again; None when this answer counts."""
        if not self._passes(status):
            return None
        told = retry_after(headers)
        if told is not None and told > LONGEST_RETRY_AFTER:
            return None
        self._perhaps_done = self._perhaps_done or status not in NOT_DONE
        return self._pause(f"status {status}", told)

    def _passes(self, status: int) -> bool:
        if status == UNDER_WAY:
            return self._sent > 0 and self.call.idempotency_key is not None
        return status in PASSING and (self.call.repeatable or status in NOT_DONE)

    def broke(self, error: httpx.RequestError) -> float:
        """Seconds to wait before the call is sent again.

        Raises:
            ConnectionFailed: it is not sent again.
        """
        pause = None
        self._perhaps_done = self._perhaps_done or not isinstance(error, NOT_SENT)
        if self.call.repeatable or isinstance(error, NOT_SENT):
            pause = self._pause(type(error).__name__, None)
        if pause is not None:
            return pause
        where = httpx.URL(self._settings.url)
        kind = TimedOut if isinstance(error, httpx.TimeoutException) else ConnectionFailed
        tries = f" ({self._sent} tries)" if self._sent > 1 else ""
        raise kind(
            f"No answer from {where.host}:{where.port or where.scheme}{tries}: {error or type(error).__name__}"
        ) from error

    def _pause(self, why: str, told: float | None) -> float | None:
        self._sent += 1
        if self._sent > self._settings.max_retries:
            return None
        longest = min(self._settings.backoff * 2.0 ** (self._sent - 1), LONGEST_PAUSE)
        # Jitter keeps clients that failed together from coming back together.
        jitter = random.uniform(0.5, 1.0) * longest  # noqa: S311 - spreads load, hides nothing
        pause = jitter if told is None else told + jitter / 4
        log.info("%s %s: %s; again in %.2f s", self.call.verb, self.call.operation, why, pause)
        return pause


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the answer asks to wait; None when it does not say, or not understandably."""
    text = headers.get("Retry-After")
    if text is None:
        return None
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return None
    aware = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
    return max(0.0, (aware - datetime.now(UTC)).total_seconds())
