"""What the fault tests have in common: schedules to be true to, a seed, and figures that are reported.

``UPBEAT_TEST_FAULTS=full`` takes the product's own leases and delays, and does everything more often.
"""

import os
import random
from collections.abc import Iterator

import pytest
import redis
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from app.db import sync_engine, sync_sessions
from app.settings import Settings
from support.ledger import Ledger
from support.servers import Database
from support.trial import Report, Trial


def _seed() -> int:
    """The given one, or one by chance: the same for all processes of a run."""
    if given := os.environ.get("UPBEAT_TEST_SEED"):
        return int(given)
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    return int(run, 16) % 2**32 if run else random.randrange(2**32)


SEED = _seed()


@pytest.fixture
def seed(record_property: Report) -> int:
    """What the random choices of a test start from; reported, and given by UPBEAT_TEST_SEED."""
    record_property("seed", SEED)
    return SEED


@pytest.fixture
def sessions(settings: Settings) -> Iterator[sessionmaker[Session]]:
    engine = sync_engine(settings.database, name="test")
    yield sync_sessions(engine)
    engine.dispose()


@pytest.fixture
def trial(sessions: sessionmaker[Session], database: Database, redis_url: str, ledger: Ledger) -> Trial:
    """Schedules under load, and the verdict about them; what another test left queued is gone."""
    with sessions.begin() as session:
        session.execute(text("UPDATE celery_periodic_task_clocks SET next_run_at = NULL"))
        session.execute(text("DELETE FROM celery_task_runs WHERE state IN ('queued', 'running')"))
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
    return Trial(sessions, database.url, redis_url, ledger)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The figures that the tests measured."""
    reports = [r for key in ("passed", "failed") for r in terminalreporter.getreports(key)]
    figures = [r for r in reports if r.when == "call" and r.user_properties]
    if figures:
        terminalreporter.section("faults: what was measured")
    for report in figures:
        told = ", ".join(f"{name} {_short(value)}" for name, value in report.user_properties)
        terminalreporter.line(f"{report.nodeid.rpartition('/')[2]}: {told}")


def _short(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)
