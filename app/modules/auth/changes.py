"""A count of what this process changed of users and keys: who remembers one looks again when it has grown."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

_numbers = count(1)
_seen = [0]


def seen() -> int:
    """How many there were."""
    return _seen[0]


@asynccontextmanager
async def changing(sessions: async_sessionmaker[AsyncSession]) -> AsyncIterator[AsyncSession]:
    """A transaction that changes what a caller may do; however it ends, nothing from before counts any more."""
    try:
        async with sessions.begin() as session:
            yield session
    finally:
        _seen[0] = next(_numbers)
