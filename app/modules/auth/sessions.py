"""Upkeep of login sessions: the deleting of those that have ended, and the counting of all."""

from dataclasses import asdict, dataclass
from datetime import timedelta

from sqlalchemy import Date, case, cast, func, literal, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.db.clearing import BATCH, delete_all
from app.modules.auth.models import LoginSession, SessionStatisticsRow

Sessions = async_sessionmaker[AsyncSession]

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
    return await delete_all(sessions, LoginSession, LoginSession.expires_at <= _NOW, batch=batch)


async def delete_ended(sessions: Sessions, age: timedelta, *, batch: int = BATCH) -> int:
    """Delete the sessions that expired or were revoked longer than ``age`` ago; answers how many."""
    before = select(func.clock_timestamp() - age).scalar_subquery()
    ended = or_(LoginSession.expires_at <= before, LoginSession.revoked_at <= before)
    return await delete_all(sessions, LoginSession, ended, batch=batch)


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
