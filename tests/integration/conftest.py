"""Fixtures of the integration tests: the domain, and the service over HTTP, on the module's own database."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from app.db import sync_engine, sync_sessions
from app.settings import Settings
from support.api import connected, serving
from support.clock import DatabaseClock
from support.engine import TABLES, Engine
from support.peer import Peer, running_peer
from support.servers import Database


@pytest.fixture
def sync(settings: Settings) -> Iterator[sessionmaker[Session]]:
    """Sync sessions on a database whose tables of the domain are empty."""
    engine = sync_engine(settings.database, name="test", pool_size=8)
    sessions = sync_sessions(engine)
    with sessions.begin() as session:
        session.execute(text(f"TRUNCATE {TABLES} CASCADE"))
    yield sessions
    engine.dispose()


@pytest.fixture
def clock(database: Database) -> DatabaseClock:
    """The database's clock, standing at noon of tomorrow, until the module ends: never behind the real time, which
    the defaults of columns keep."""
    taken = DatabaseClock(database.url)
    noon = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
    taken.install(noon + timedelta(days=1))
    return taken


@pytest.fixture
def engine(clock: DatabaseClock, sync: sessionmaker[Session], settings: Settings) -> Engine:
    """The engine on empty tables, at noon."""
    return Engine(sync, settings, clock)


@pytest.fixture(scope="module")
async def api(settings: Settings) -> AsyncIterator[FastAPI]:
    """The service with the settings' defaults."""
    async with serving(settings) as app:
        yield app


@pytest.fixture(scope="module")
async def admin(api: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Its administrator."""
    async with connected(api) as client:
        yield client


@pytest.fixture(scope="module")
def shared_peer() -> Iterator[Peer]:
    """Whom agents and webhooks speak to."""
    with running_peer() as running:
        yield running
