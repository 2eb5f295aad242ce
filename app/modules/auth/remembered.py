"""API keys that were looked up a moment ago, so that a program's every request costs no statement.

What this process changes of keys and users counts at once; what another one changes, a second later at most
(``UPBEAT_KEY_AGE``).
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.modules.auth import changes
from app.modules.auth.keys import authenticate_key
from app.modules.auth.logins import hash_token
from app.modules.auth.roles import Principal

MOST: Final = 10_000


@dataclass(frozen=True, slots=True)
class _Known:
    principal: Principal
    until: float
    seen: int


class RememberedKeys:
    """Of one process. Those that are not valid are not remembered, and callers who come at once share a look."""

    def __init__(
        self,
        sessions: async_sessionmaker[AsyncSession],
        age: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sessions = sessions
        self._age = age
        self._clock = clock
        self._known: dict[bytes, _Known] = {}
        self._looks: dict[tuple[bytes, int], asyncio.Task[Principal]] = {}

    async def authenticate(self, secret: str) -> Principal:
        """As `authenticate_key`."""
        hashed, now, seen = hash_token(secret), self._clock(), changes.seen()
        known = self._known.get(hashed)
        if known is not None and known.until > now and known.seen == seen:
            return known.principal
        key = (hashed, seen)
        look = self._looks.get(key)
        if look is None:
            look = self._looks[key] = asyncio.create_task(self._look(secret, hashed, now, seen))
            look.add_done_callback(lambda _: self._looks.pop(key))
        # One caller that leaves must not take the others' look with it.
        return await asyncio.shield(look)

    async def _look(self, secret: str, hashed: bytes, now: float, seen: int) -> Principal:
        principal, left = await authenticate_key(self._sessions, secret)
        if len(self._known) >= MOST:
            self._known = {key: known for key, known in self._known.items() if known.until > now}
        age = self._age if left is None else min(self._age, left / timedelta(seconds=1))
        if age > 0 and len(self._known) < MOST:
            self._known[hashed] = _Known(principal, now + age, seen)
        return principal
