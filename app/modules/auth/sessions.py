"""Upkeep of login sessions, for the tasks of this module."""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.modules.auth.models import LoginSession

_NOW = text("(SELECT clock_timestamp())")


@dataclass(frozen=True, slots=True)
class SessionStatistics:
    """How many login sessions there are, by what became of them."""

    total: int
    active: int
    expired: int
    revoked: int
    users: int


async def delete_expired(session: AsyncSession) -> int:
    """Delete the sessions that have expired; answers how many."""
    statement = delete(LoginSession).where(LoginSession.expires_at <= _NOW).returning(LoginSession.id)
    return len((await session.scalars(statement)).all())


async def delete_old(session: AsyncSession, age: timedelta) -> int:
    """Delete the sessions that expired or were revoked longer than ``age`` ago; answers how many."""
    ended = func.least(
        LoginSession.expires_at, func.coalesce(LoginSession.revoked_at, LoginSession.expires_at)
    )
    statement = delete(LoginSession).where(ended <= func.clock_timestamp() - age).returning(LoginSession.id)
    return len((await session.scalars(statement)).all())


async def statistics(session: AsyncSession) -> SessionStatistics:
    """Count the sessions."""
    ended = LoginSession.expires_at <= _NOW
    revoked = LoginSession.revoked_at.is_not(None)
    row = await session.execute(
        select(
            func.count(),
            func.count().filter(~ended, ~revoked),
            func.count().filter(ended, ~revoked),
            func.count().filter(revoked),
            func.count(LoginSession.user_id.distinct()),
        ).select_from(LoginSession)
    )
    return SessionStatistics(*row.one())
