"""Deleting what may be much: a few rows in each transaction, and none that somebody else holds, so that nobody waits."""

from typing import Any, Final

from sqlalchemy import ColumnElement, CursorResult, delete, inspect, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.db.base import Base

BATCH: Final = 1000


async def delete_some(
    sessions: async_sessionmaker[AsyncSession],
    table: type[Base],
    condition: ColumnElement[bool],
    *,
    batch: int = BATCH,
) -> int:
    """Delete up to ``batch`` rows for which ``condition`` holds; answers how many.

    An instant in the condition is a subquery (``select(func.clock_timestamp()).scalar_subquery()``): it is read once,
    so that an index on what it is compared with can be used.
    """
    key = inspect(table).primary_key
    victims = select(*key).where(condition).limit(batch).with_for_update(skip_locked=True).cte("victims")
    async with sessions.begin() as session:
        result: CursorResult[Any] = await session.execute(  # type: ignore[assignment]
            delete(table)
            .where(tuple_(*key).in_(select(victims)))
            .execution_options(synchronize_session=False)
        )
    return result.rowcount


async def delete_all(
    sessions: async_sessionmaker[AsyncSession],
    table: type[Base],
    condition: ColumnElement[bool],
    *,
    batch: int = BATCH,
) -> int:
    """As `delete_some`, until there are no more."""
    total = 0
    while True:
        deleted = await delete_some(sessions, table, condition, batch=batch)
        total += deleted
        if deleted < batch:
            return total
