"""Login sessions are counted and deleted in batches, and nobody waits for that."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.db import async_engine, async_sessions
from app.modules.auth import sessions as upkeep
from app.modules.auth.models import LoginSession, SessionStatisticsRow, User
from app.modules.auth.sessions import SessionStatistics
from app.scheduling.ids import new_id
from app.settings import Settings

Sessions = async_sessionmaker[AsyncSession]
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


@pytest.fixture
async def sessions(settings: Settings) -> AsyncIterator[Sessions]:
    engine = async_engine(settings.database, name="test")
    made = async_sessions(engine)
    async with made.begin() as session:
        await session.execute(text("TRUNCATE users, user_sessions, user_session_statistics CASCADE"))
    yield made
    await engine.dispose()


async def _add(
    sessions: Sessions, count: int, *, expires: timedelta, revoked: timedelta | None = None
) -> None:
    """``count`` sessions of a new user; instants relative to now."""
    now = datetime.now(UTC)
    user = new_id()
    async with sessions.begin() as session:
        session.add(User(id=user, username=str(user), password_hash="-", role="viewer"))
        await session.flush()
        session.add_all(
            LoginSession(
                id=new_id(),
                user_id=user,
                token_hash=new_id().bytes,
                created_at=now - 100 * DAY,
                expires_at=now + expires,
                revoked_at=None if revoked is None else now + revoked,
            )
            for _ in range(count)
        )


async def _count(sessions: Sessions) -> int:
    async with sessions() as session:
        return (await session.scalar(select(func.count()).select_from(LoginSession))) or 0


async def test_expired_sessions_go_in_batches_and_others_stay(sessions: Sessions) -> None:
    await _add(sessions, 25, expires=-HOUR)
    await _add(sessions, 3, expires=HOUR)
    assert await upkeep.delete_expired(sessions, batch=10) == 25
    assert await _count(sessions) == 3
    assert await upkeep.delete_expired(sessions) == 0


async def test_old_sessions_are_those_that_expired_or_were_revoked_long_ago(sessions: Sessions) -> None:
    await _add(sessions, 1, expires=-31 * DAY)
    await _add(sessions, 1, expires=DAY, revoked=-31 * DAY)
    await _add(sessions, 1, expires=-29 * DAY)
    await _add(sessions, 1, expires=DAY, revoked=-29 * DAY)
    await _add(sessions, 1, expires=DAY)
    assert await upkeep.delete_ended(sessions, 30 * DAY) == 2
    assert await _count(sessions) == 3


async def test_a_session_that_somebody_holds_is_left_and_not_waited_for(sessions: Sessions) -> None:
    await _add(sessions, 3, expires=-HOUR)
    async with sessions.begin() as holder:
        held = await holder.scalar(select(LoginSession.id).limit(1))
        await holder.execute(
            update(LoginSession).where(LoginSession.id == held).values(revoked_at=func.clock_timestamp())
        )
        assert await upkeep.delete_expired(sessions) == 2
    assert await upkeep.delete_expired(sessions) == 1


async def test_statistics_are_given_and_kept_by_day(sessions: Sessions) -> None:
    await _add(sessions, 4, expires=HOUR)
    await _add(sessions, 3, expires=-HOUR)
    await _add(sessions, 2, expires=HOUR, revoked=-HOUR)
    expected = SessionStatistics(total=9, active=4, expired=3, revoked=2, users=3)
    assert await upkeep.statistics(sessions) == expected
    await upkeep.delete_expired(sessions)
    assert (await upkeep.statistics(sessions)).total == 6
    async with sessions() as session:
        rows = (await session.scalars(select(SessionStatisticsRow))).all()
    assert [(row.total, row.active, row.expired, row.revoked, row.users) for row in rows] == [(6, 4, 0, 2, 2)]
