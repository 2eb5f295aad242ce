"""Liveness, readiness, and what callers are told while the database or Redis is away."""

import asyncio
import signal
import socket
import time
from collections.abc import Iterator
from datetime import timedelta

import asyncpg  # type: ignore[import-untyped]
import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy import delete, func, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.listen_async import AsyncListener
from app.db.migrate import head
from app.db.outages import is_away
from app.scheduling.ids import new_id
from app.scheduling.models import BeatRow
from app.settings import BrokerSettings, DatabaseSettings, Settings
from support.api import connect, connected, log_in, serving
from support.polling import eventually_async
from support.servers import Servers, running_servers, settings_for

SCHEDULES = "/api/v1/scheduled-tasks"


@pytest.fixture(scope="module")
def own_servers() -> Iterator[Servers]:
    """Servers that may be stopped."""
    with running_servers() as running:
        yield running


async def beat_passed(app: FastAPI, ago: timedelta) -> None:
    async with app.state.services.sessions.begin() as session:
        await session.execute(delete(BeatRow))
        await session.execute(
            insert(BeatRow).values(id=new_id(), name="test", pid=1, last_pass_at=func.clock_timestamp() - ago)
        )


async def read(app: FastAPI, path: str = "/readyz") -> tuple[int, dict[str, bool]]:
    async with connect(app) as client:
        answer = await client.get(path)
    return answer.status_code, {name: check["ok"] for name, check in answer.json()["checks"].items()}


async def test_alive_without_a_token(api: FastAPI) -> None:
    async with connect(api) as client:
        answer = await client.get("/livez")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_ready_with_database_schema_redis_and_a_beat(api: FastAPI) -> None:
    await beat_passed(api, timedelta(0))
    assert await read(api) == (200, {"database": True, "migrations": True, "redis": True, "beat": True})


async def test_not_ready_when_no_beat_passes(api: FastAPI) -> None:
    await beat_passed(api, timedelta(seconds=60))
    assert await read(api) == (503, {"database": True, "migrations": True, "redis": True, "beat": False})
    async with api.state.services.sessions.begin() as session:
        await session.execute(delete(BeatRow))
    assert await read(api) == (503, {"database": True, "migrations": True, "redis": True, "beat": False})


@pytest.mark.parametrize(("revision", "ready"), [("0001", False), ("later", True)])
async def test_not_ready_behind_this_code_and_ready_when_a_later_release_has_migrated(
    api: FastAPI, revision: str, *, ready: bool
) -> None:
    """Else a rolling upgrade would take all old processes out of service at once."""
    await beat_passed(api, timedelta(0))
    sessions = api.state.services.sessions
    before, change = await read(api), text("UPDATE alembic_version SET version_num = :v")
    try:
        async with sessions.begin() as session:
            await session.execute(change, {"v": revision})
            assert await read(api) == before, "not before it is committed"
        assert await read(api) == (
            200 if ready else 503,
            {"database": True, "migrations": ready, "redis": True, "beat": True},
        )
    finally:
        async with sessions.begin() as session:
            await session.execute(change, {"v": head()})


async def test_health_tells_nothing_of_the_inside(settings: Settings) -> None:
    settings = unreachable(settings)
    async with serving(settings) as app, connect(app) as client:
        answer = await client.get("/readyz")
    assert answer.status_code == 503
    checks = answer.json()["checks"]
    assert {check["ok"] for check in checks.values()} == {False}
    for secret in ("127.0.0.1", "password", "postgres", "Error", "Traceback"):
        assert secret not in answer.text


async def test_nobody_home_is_a_503_for_every_caller(settings: Settings) -> None:
    async with serving(unreachable(settings)) as app, connect(app, "token") as client:
        for answer in (
            await client.get(SCHEDULES),
            await client.post("/api/v1/auth/login", data={"username": "a", "password": "b"}),
        ):
            assert answer.status_code == 503, answer.text
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert answer.headers["Retry-After"] == "5"
            assert answer.json()["type"] == "/problems/unavailable"
            assert "127.0.0.1" not in answer.text


async def test_redis_that_never_answers_holds_readiness_up_for_a_second(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        changed = settings.model_copy(update={"broker": BrokerSettings(REDIS_URL=SecretStr(url))})
        async with serving(changed) as app:
            await beat_passed(app, timedelta(0))
            for _ in range(3):
                started = time.monotonic()
                assert (await read(app))[1]["redis"] is False
                assert time.monotonic() - started < 2


async def test_a_database_that_goes_and_comes_back(own_servers: Servers) -> None:
    settings = settings_for(own_servers.postgres.url, own_servers.new_database(), own_servers.redis.url)
    async with serving(settings) as app, connected(app) as client:
        assert (await client.get(SCHEDULES)).status_code == 200
        own_servers.stop("postgres", signal.SIGINT)
        statuses = await asyncio.gather(*(client.get(SCHEDULES) for _ in range(5)))
        assert {answer.status_code for answer in statuses} == {503}
        assert (await client.get("/livez")).status_code == 200
        assert (await read(app))[1]["database"] is False
        own_servers.start_postgres()

        async def back() -> bool:
            return (await client.get(SCHEDULES)).status_code == 200

        await eventually_async(back, 10, "the API's recovery")


async def test_connections_that_are_cut_are_replaced(api: FastAPI, settings: Settings) -> None:
    async with connected(api) as client:
        async with api.state.services.sessions() as session:
            await session.execute(
                text(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )
        answers = await asyncio.gather(*(client.get(SCHEDULES) for _ in range(10)))
    assert {answer.status_code for answer in answers} <= {200, 503}
    async with connect(api, await log_in(api, "admin", "correct horse battery staple")) as client:
        assert (await client.get(SCHEDULES)).status_code == 200


async def test_of_two_who_wait_for_each_other_one_is_told_to_try_again(api: FastAPI) -> None:
    lock = text("SELECT pg_advisory_xact_lock(:key)")
    sessions = api.state.services.sessions
    async with sessions() as one, sessions() as other:
        await one.execute(lock, {"key": 1})
        await other.execute(lock, {"key": 2})

        async def wait(session: AsyncSession, key: int) -> BaseException | None:
            try:
                await session.execute(lock, {"key": key})
            except DBAPIError as error:
                return error
            finally:
                await session.rollback()
            return None

        failed = [each for each in await asyncio.gather(wait(one, 2), wait(other, 1)) if each is not None]
    assert [is_away(error) for error in failed] == [True]


async def test_a_listener_that_may_not_listen_keeps_no_connection(api: FastAPI, settings: Settings) -> None:
    name = "cannot-listen"
    listener = AsyncListener(settings.database, "", print, name=name)
    with pytest.raises(asyncpg.PostgresError):
        await listener.connect()

    async def gone() -> bool:
        query = text("SELECT count(*) FROM pg_stat_activity WHERE application_name = :name")
        async with api.state.services.sessions() as session:
            return bool(await session.scalar(query, {"name": name}) == 0)

    await eventually_async(gone, 10, "the connection to end")
    assert not listener.connected


async def test_a_run_is_accepted_while_redis_is_away(own_servers: Servers) -> None:
    settings = settings_for(own_servers.postgres.url, own_servers.new_database(), own_servers.redis.url)
    async with serving(settings) as app, connected(app) as client:
        own_servers.stop("redis")
        answer: httpx.Response = await client.post("/api/v1/tasks/scheduled_task.test_task/runs", json={})
        own_servers.start_redis()
    assert answer.status_code == 202, answer.text
    assert answer.json()["state"] == "queued"


def unreachable(settings: Settings) -> Settings:
    """Addresses at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    return settings.model_copy(
        update={
            "database": DatabaseSettings(
                DATABASE_URL=SecretStr(f"postgresql://u:password@127.0.0.1:{port}/x")
            ),
            "broker": BrokerSettings(REDIS_URL=SecretStr(f"redis://127.0.0.1:{port}/0")),
        }
    )
