"""How fast callers may be: counted in Redis by `limits`, the same for all processes of the service.

It fails open: a Redis that is away or slow must not take the API with it, so it is given a tenth of a second, and is
left alone for a while after a failure.
"""

import asyncio
import math
import time
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import limits
import structlog
from fastapi import Request
from limits.aio.storage import RedisStorage
from redis.asyncio import ConnectionPool

from app.errors import TooManyRequests
from app.modules.auth.service import Principal
from app.scheduling.gathering import Call, Gathering
from app.settings import RateSettings

PREFIX: Final = "upbeat:rate"
LEFT_ALONE: Final = 5.0

log = structlog.get_logger(__name__)

Counter = tuple[str, int]


class Limiter:
    """The limits of this application."""

    def __init__(self, settings: RateSettings, redis_url: str) -> None:
        self._timeout = settings.timeout
        self._limit = limits.parse(settings.limit) if settings.limit else None
        self._refused = limits.parse(settings.refused) if settings.refused else None
        self._open_until = 0.0
        self._counts: Gathering[Counter, int] = Gathering(self._count)
        url = _plain(redis_url)
        self._pool = ConnectionPool.from_url(
            url, socket_timeout=self._timeout, socket_connect_timeout=self._timeout
        )
        self._storage = RedisStorage(
            f"async+{url}",
            implementation="redispy",
            key_prefix=PREFIX,
            connection_pool=self._pool,  # type: ignore[arg-type]
        )

    async def count(self, request: Request, caller: Principal) -> None:
        """Count a request of a known caller; the headers of the answer tell how many are left.

        Raises:
            TooManyRequests: none is.
        """
        await self._hit(request, self._limit, "caller", str(caller.credential_id))

    async def refused(self, request: Request) -> None:
        """Count a request without a valid credential.

        Raises:
            TooManyRequests: its address sent too many of them.
        """
        await self._hit(request, self._refused, "refused", request.client.host if request.client else "")

    async def _count(self, calls: Sequence[Call[Counter, int]]) -> None:
        """Those of one counter are counted at once, in the order in which they came."""
        counted: dict[Counter, list[Call[Counter, int]]] = {}
        for call in calls:
            counted.setdefault(call.wish, []).append(call)
        async with asyncio.timeout(self._timeout):
            for (key, window), same in counted.items():
                last = await self._storage.incr(key, window, len(same))
                for number, call in enumerate(same, last - len(same) + 1):
                    call.give(number)

    async def close(self) -> None:
        """Give the connections back."""
        await self._pool.disconnect()

    async def _hit(self, request: Request, item: limits.RateLimitItem | None, *subject: str) -> None:
        if item is None or time.monotonic() < self._open_until:
            return
        # The window is part of the key, so its end is known without asking.
        now = time.time()
        window = item.get_expiry()
        reset = max(1, math.ceil(window - now % window))
        try:
            used = await self._counts.ask((item.key_for(*subject, str(int(now // window))), window))
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the counter, the API goes on
            if time.monotonic() < self._open_until:
                return
            self._open_until = time.monotonic() + LEFT_ALONE
            log.warning("limits are not counted", action="rate_limit_open", cause=type(error).__name__)
            return
        request.state.rate_headers = (
            (b"ratelimit-limit", b"%d" % item.amount),
            (b"ratelimit-remaining", b"%d" % max(0, item.amount - used)),
            (b"ratelimit-reset", b"%d" % reset),
            (b"ratelimit-policy", b"%d;w=%d" % (item.amount, window)),
        )
        if used > item.amount:
            raise TooManyRequests(
                f"At most {item.amount} requests in {window} s are taken. Wait as Retry-After says.",
                retry_after=reset,
            )


def _plain(url: str) -> str:
    """Without options of kombu's own."""
    return urlunsplit(urlsplit(url)._replace(query="", fragment=""))
