"""The schema: up, down and up again on data; models and database agree; partitions."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import text

from app.db import migrate, sync_engine, sync_sessions
from app.db.partitions import ensure_partitions, existing
from app.scheduling import runs
from app.scheduling.catalogue import TaskSpec
from app.scheduling.config import RunOptions
from app.scheduling.models import RUNS, RunRow
from app.settings import Settings
from support.polling import eventually
from support.processes import ROOT
from support.servers import Servers, settings_for

TASK = TaskSpec(name="a.b", path="x.y")


@pytest.fixture
def empty(servers: Servers, redis_url: str) -> Settings:
    """Settings of a database that does not exist yet."""
    name = servers.new_database(migrated=False)
    servers.drop_database(name)
    return settings_for(servers.postgres.url, name, redis_url)


def test_the_products_own_revisions_are_one_line() -> None:
    """Business modules may have lines of their own; two heads here are a merge that nobody looked at."""
    script = ScriptDirectory.from_config(Config(ROOT / "alembic.ini"))
    assert len(script.get_heads()) == 1


def _submit(settings: Settings) -> None:
    engine = sync_engine(settings.database, name="test")
    with sync_sessions(engine).begin() as session:
        runs.submit(
            session,
            task=TASK,
            args=[1],
            kwargs={},
            options=RunOptions(),
            origin=runs.Origin.CODE,
            redispatch_delay=30,
        )
    with sync_sessions(engine)() as session:
        assert session.query(RunRow).count() == 1
    engine.dispose()


def test_database_is_made_and_migrates_up_down_and_up_on_data(empty: Settings) -> None:
    migrate.upgrade(empty)
    _submit(empty)
    migrate.downgrade(empty, "base")
    migrate.upgrade(empty)
    _submit(empty)
    migrate.upgrade(empty)
    migrate.check(empty)


def test_two_who_make_the_database_at_once_make_one(empty: Settings) -> None:
    with ThreadPoolExecutor() as pool:
        assert sorted(pool.map(migrate.create_database, [empty] * 2)) == [False, True]


def test_a_table_that_is_in_use_is_waited_for_again_and_again(
    empty: Settings, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate.upgrade(empty, "0012")
    tries, run = [], migrate._run

    def counted(*what: Any) -> None:
        tries.append(what)
        run(*what)

    monkeypatch.setattr(migrate, "_run", counted)
    monkeypatch.setattr(migrate, "LOCK_PATIENCE", 0.05)
    monkeypatch.setattr(migrate, "LOCK_PAUSE", 0.01)
    with (
        ThreadPoolExecutor(1) as pool,
        psycopg.connect(servers.database_url(empty.database.name)) as reader,
    ):
        reader.execute("SELECT count(*) FROM celery_task_runs")
        migrating = pool.submit(migrate.upgrade, empty)
        eventually(lambda: len(tries) > 2 or migrating.done(), 20)
        assert not migrating.done()
    assert migrating.result(20) is migrate.Standing.BEHIND
    migrate.check(empty)


def test_models_and_database_agree(settings: Settings) -> None:
    migrate.check(settings)


def test_coming_months_have_partitions(settings: Settings) -> None:
    engine = sync_engine(settings.database, name="test")
    later = datetime.now(UTC) + timedelta(days=200)
    with engine.begin() as connection:
        before = existing(connection, RUNS)
        made = ensure_partitions(connection, (RUNS,), later, behind=0)
        assert existing(connection, RUNS) - before == set(made)
        assert len(made) == 3
        assert ensure_partitions(connection, (RUNS,), later, behind=0) == []
    engine.dispose()
    migrate.check(settings)


def test_of_two_who_miss_a_month_at_once_one_makes_it(settings: Settings) -> None:
    engine = sync_engine(settings.database, name="test", pool_size=3)
    later = datetime.now(UTC) + timedelta(days=900)

    def make() -> list[str]:
        with engine.begin() as connection:
            return ensure_partitions(connection, (RUNS,), later, behind=0)

    def waits() -> bool:
        query = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND locktype IN ('advisory', 'transactionid'))"
        with engine.connect() as connection:
            return bool(connection.execute(text(query)).scalar_one())

    with ThreadPoolExecutor() as pool:
        with engine.begin() as connection:
            assert len(ensure_partitions(connection, (RUNS,), later, behind=0)) == 3
            other = pool.submit(make)
            eventually(lambda: waits() or other.done())
        assert other.result() == []
    engine.dispose()


def test_supported_server(servers: Servers) -> None:
    with psycopg.connect(servers.database_url("postgres")) as connection:
        assert connection.info.server_version >= 140000
