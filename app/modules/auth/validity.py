"""Which of many credentials are valid now: for whoever has been let in, and is still there."""

from collections.abc import Collection
from datetime import timedelta
from uuid import UUID

from sqlalchemy import func, literal, or_, select, union_all, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.modules.auth.models import ApiKey, LoginSession, User
from app.modules.auth.roles import Role
from app.settings import AuthSettings

_NOW = func.clock_timestamp()


def used_rarely(idle: timedelta) -> timedelta:
    """How old `last_used_at` may be before it is worth a write."""
    return min(timedelta(minutes=1), idle / 10)


async def still_valid(
    sessions: async_sessionmaker[AsyncSession], rules: AuthSettings, ids: Collection[UUID]
) -> dict[UUID, Role]:
    """Those of the sessions and keys with these ids that open something now, each with its user's role today.

    Being asked about is being used: a session does not idle away meanwhile.
    """
    idle = timedelta(seconds=rules.session_idle)
    old = (_NOW - LoginSession.last_used_at) > used_rarely(idle)
    by_session = (
        select(LoginSession.id, User.role, old.label("old"))
        .join(User, User.id == LoginSession.user_id)
        .where(
            LoginSession.id.in_(ids),
            LoginSession.revoked_at.is_(None),
            LoginSession.expires_at > _NOW,
            LoginSession.last_used_at > _NOW - idle,
            User.active,
        )
    )
    by_key = (
        select(ApiKey.id, User.role, literal(False).label("old"))
        .join(User, User.id == ApiKey.user_id)
        .where(
            ApiKey.id.in_(ids),
            ApiKey.revoked_at.is_(None),
            or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > _NOW),
            User.active,
        )
    )
    async with sessions() as session:
        found = (await session.execute(union_all(by_session, by_key))).all()
    touched = [row.id for row in found if row.old]
    if touched:
        async with sessions.begin() as session:
            await session.execute(
                update(LoginSession).where(LoginSession.id.in_(touched)).values(last_used_at=_NOW)
            )
    return {row.id: Role(row.role) for row in found}
