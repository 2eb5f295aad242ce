"""What the service itself clears away while it runs: expired keys of repeats, counts of failed logins, old sessions.

Each process does so every few minutes; rows that another one holds are left to it.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.modules.auth import service as auth
from app.modules.idempotency import service as idempotency

EVERY: Final = 300.0
ENDED_SESSIONS: Final = timedelta(days=30)

log = structlog.get_logger(__name__)


async def clear(sessions: async_sessionmaker[AsyncSession]) -> None:
    """Delete what has expired, all of it: what is left over would grow with the requests."""
    await idempotency.delete_expired(sessions)
    await auth.forget_old(sessions)
    await auth.delete_ended(sessions, ENDED_SESSIONS)


async def keep_clear(sessions: async_sessionmaker[AsyncSession]) -> None:
    """Do so until cancelled; an outage of the database is waited out."""
    while True:
        await asyncio.sleep(EVERY)
        try:
            await clear(sessions)
        except Exception as error:  # noqa: BLE001 - tried again in a while
            log.warning("upkeep failed", action="upkeep", cause=type(error).__name__)


@asynccontextmanager
async def alongside(*work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Let endless work run for the time of the context; it has ended when the context has."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
