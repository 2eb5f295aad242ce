"""How fast callers may be: counted in Redis by `limits`, the same for all processes of the service.

It fails open: a Redis that is away or slow must not take the API with it, so it is given a tenth of a second, and is
left alone for a while after a failure.
"""

import asyncio
import math
import time
from collections.abc import Sequence
from functools import partial
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import limits
import structlog
from fastapi import Request
from limits.aio.storage import RedisStorage
from redis.asyncio import ConnectionPool

from app.errors import TooManyRequests
from app.modules.auth.service import Principal, network
from app.scheduling.gathering import Call, Gathering
from app.settings import RateSettings

PREFIX: Final = "upbeat:rate"
LEFT_ALONE: Final = 5.0
COUNT_EVERY: Final = 0.05
LARGE: Final = 1_000
MOST_KNOWN: Final = 10_000

log = structlog.get_logger(__name__)

Counter = tuple[str, int]
Wish = tuple[str, int, int]


class Limiter:
    """The limits of this application."""

    def __init__(self, settings: RateSettings, redis_url: str) -> None:
        self._timeout = settings.timeout
        self._limit = limits.parse(settings.limit) if settings.limit else None
        self._refused = limits.parse(settings.refused) if settings.refused else None
        self._open_until = 0.0
        self._known: dict[str, int] = {}
        self._later: dict[Counter, int] = {}
        self._counts: Gathering[Wish, int] = Gathering(self._count)
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
            TooManyRequests: its address, or its network of IPv6 addresses, sent too many of them.
        """
        address = request.client.host if request.client else ""
        await self._hit(request, self._refused, "refused", network(address))

    def _count_later(self, counter: Counter, amount: int) -> int | None:
        """While a caller is far from the limit: what is used by now, without asking; it is counted a moment later.

        None when it must be asked for: at first, from half of the limit on, and always of a small limit.
        """
        key = counter[0]
        used = self._known.get(key)
        if used is None or amount < LARGE or 2 * used >= amount:
            return None
        if not self._later:
            asyncio.get_running_loop().call_later(COUNT_EVERY, self._count_now)
        self._later[counter] = self._later.get(counter, 0) + 1
        return used + 1

    def _count_now(self) -> None:
        later, self._later = self._later, {}
        for counter, number in later.items():
            asked = self._counts.ask((*counter, number))
            asked.add_done_callback(partial(self._learn, counter[0]))

    def _learn(self, key: str, asked: asyncio.Future[int]) -> None:
        """What all processes have used; without an answer the next caller finds out for himself."""
        if asked.cancelled() or asked.exception() is not None:
            self._known.pop(key, None)
        else:
            self._remember(key, asked.result() + sum(n for each, n in self._later.items() if each[0] == key))

    def _remember(self, key: str, used: int) -> None:
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        self._known[key] = used

    async def _count(self, calls: Sequence[Call[Wish, int]]) -> None:
        """Those of one counter are counted at once, in the order in which they came."""
        counted: dict[Counter, list[Call[Wish, int]]] = {}
        for call in calls:
            counted.setdefault(call.wish[:2], []).append(call)
        async with asyncio.timeout(self._timeout):
            for (key, window), same in counted.items():
                used = await self._storage.incr(key, window, sum(call.wish[2] for call in same))
                for call in reversed(same):
                    call.give(used)
                    used -= call.wish[2]

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
            counter = (item.key_for(*subject, str(int(now // window))), window)
            used = self._count_later(counter, item.amount) or await self._counts.ask((*counter, 1))
            if item.amount >= LARGE:
                self._remember(counter[0], used)
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
