"""Upkeep of login sessions, for the tasks of this module.

Rows are deleted a few at a time, each batch in a transaction of its own, and those that somebody
else holds are left to the next time, so that nobody who logs in or out ever waits.
"""

from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import CursorResult, Date, case, cast, delete, func, literal, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.sql import ColumnElement

from app.modules.auth.models import LoginSession, SessionStatisticsRow

Sessions = async_sessionmaker[AsyncSession]

BATCH: Final = 1000
# In a subquery it is read once, so that an index on what it is compared with can be used.
_NOW = select(func.clock_timestamp()).scalar_subquery()


@dataclass(frozen=True, slots=True)
class SessionStatistics:
    """How many login sessions there are, by what became of them; ``users`` have at least one."""

    total: int
    active: int
    expired: int
    revoked: int
    users: int


async def delete_expired(sessions: Sessions, *, batch: int = BATCH) -> int:
    """Delete the sessions that have expired; answers how many."""
    return await _delete(sessions, LoginSession.expires_at <= _NOW, batch)


async def delete_old(sessions: Sessions, age: timedelta, *, batch: int = BATCH) -> int:
    """Delete the sessions that expired or were revoked longer than ``age`` ago; answers how many."""
    before = select(func.clock_timestamp() - age).scalar_subquery()
    ended = or_(LoginSession.expires_at <= before, LoginSession.revoked_at <= before)
    return await _delete(sessions, ended, batch)


async def statistics(sessions: Sessions) -> SessionStatistics:
    """Count the sessions, and keep the counts as those of today (UTC)."""
    ended = LoginSession.expires_at <= _NOW
    kind = case((LoginSession.revoked_at.is_not(None), "revoked"), (ended, "expired"), else_="active")
    counts = select(
        func.count(),
        func.count().filter(kind == literal("active")),
        func.count().filter(kind == literal("expired")),
        func.count().filter(kind == literal("revoked")),
        func.count(LoginSession.user_id.distinct()),
    ).select_from(LoginSession)
    async with sessions.begin() as session:
        counted = SessionStatistics(*(await session.execute(counts)).one())
        values = asdict(counted) | {"taken_at": func.clock_timestamp()}
        today = cast(func.timezone("UTC", func.clock_timestamp()), Date)
        await session.execute(
            insert(SessionStatisticsRow)
            .values(day=today, **values)
            .on_conflict_do_update(index_elements=[SessionStatisticsRow.day], set_=values)
        )
    return counted


async def _delete(sessions: Sessions, condition: ColumnElement[bool], batch: int) -> int:
    victims = (
        select(LoginSession.id).where(condition).limit(batch).with_for_update(skip_locked=True).cte("victims")
    )
    statement = delete(LoginSession).where(LoginSession.id.in_(select(victims.c.id)))
    total = 0
    while True:
        async with sessions.begin() as session:
            result: CursorResult[Any] = await session.execute(statement)  # type: ignore[assignment]
        total += result.rowcount
        if result.rowcount < batch:
            return total
