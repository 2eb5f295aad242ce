"""The connection that is kept at hand for single statements: as good as new at each use."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.db import Autocommitting, async_engine, freshness
from app.settings import Settings

WHO = select(func.pg_backend_pid())


@pytest.fixture
async def engine(settings: Settings) -> AsyncIterator[AsyncEngine]:
    engine = async_engine(settings.database, name="test")
    yield engine
    await engine.dispose()


@pytest.fixture
async def connections(engine: AsyncEngine) -> AsyncIterator[Autocommitting]:
    connections = Autocommitting(engine)
    yield connections
    await connections.close()
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]


async def _who(connections: Autocommitting) -> int:
    async with connections.one() as connection:
        return int((await connection.execute(WHO)).scalar_one())


async def test_one_is_kept_and_the_rest_goes_to_the_pool(
    connections: Autocommitting, engine: AsyncEngine
) -> None:
    async with connections.one() as first, connections.one() as second:
        both = {await first.scalar(WHO), await second.scalar(WHO)}
    assert len(both) == 2
    assert engine.pool.checkedout() == 1  # type: ignore[attr-defined]
    assert len({await _who(connections) for _ in range(3)} & both) == 1


async def test_each_use_may_begin_a_transaction_of_sqlalchemy_s(connections: Autocommitting) -> None:
    who = await _who(connections)
    for _ in range(2):
        async with connections.one() as connection:
            async with connection.begin():
                assert await connection.scalar(WHO) == who
            assert await connection.scalar(WHO) == who


@pytest.mark.parametrize("begin", ["BEGIN", "options"])
async def test_what_was_changed_is_not_kept(
    connections: Autocommitting, engine: AsyncEngine, begin: str
) -> None:
    async with connections.one() as connection:
        if begin == "BEGIN":
            await connection.execute(text(begin))
        else:
            await connection.execution_options(isolation_level="SERIALIZABLE")
        await connection.execute(WHO)
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    async with connections.one() as connection:
        now = select(func.now())
        assert await connection.scalar(now) != await connection.scalar(now)


async def test_what_failed_is_not_kept(connections: Autocommitting, engine: AsyncEngine) -> None:
    with pytest.raises(DBAPIError):
        async with connections.one() as connection:
            await connection.execute(text("SELECT 1 / 0"))
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    async with connections.one() as connection:
        await connection.close()
    assert await _who(connections)


@pytest.mark.parametrize("idle", [False, True])
async def test_one_that_the_server_has_closed_is_replaced(
    connections: Autocommitting, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, *, idle: bool
) -> None:
    who = await _who(connections)
    async with engine.connect() as other:
        await other.execute(text("SELECT pg_terminate_backend(:who, 5000)"), {"who": who})
    if idle:
        monkeypatch.setattr(freshness, "IDLE", 0.0)
    assert await _who(connections) != who
