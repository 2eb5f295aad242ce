"""A beat inside the API process: the same code, in a thread."""

import time
from collections.abc import Iterator

import httpx
import pytest
from sqlalchemy.orm import Session, sessionmaker

from app.db import sync_engine, sync_sessions
from app.scheduling import schedules
from app.scheduling.catalogue import Catalogue, TaskSpec
from app.scheduling.config import ScheduleCreate
from app.settings import Settings
from support import checker
from support.polling import eventually
from support.servers import Database
from support.stack import Stack

CATALOGUE = Catalogue([TaskSpec(name="support.instant", path="support.tasks.instant")])


@pytest.fixture
def sessions(settings: Settings) -> Iterator[sessionmaker[Session]]:
    engine = sync_engine(settings.database, name="test")
    yield sync_sessions(engine)
    engine.dispose()


def test_the_api_fires_schedules_by_itself_and_stops_quickly(
    stack: Stack, sessions: sessionmaker[Session], database: Database
) -> None:
    api = stack.api(env={"UPBEAT_EMBEDDED_BEAT": "true"})
    eventually(lambda: httpx.get(f"{api.url}/readyz").status_code == 200, 20, "the beat's first pass")
    body = ScheduleCreate(
        task_name="test",
        task_path="support.instant",
        schedule={"type": "interval", "every": 1, "unit": "seconds"},
    )
    with sessions.begin() as session:
        schedule = str(schedules.create(session, CATALOGUE, body, "test").row.id)
    eventually(lambda: len(checker.read_runs(database.url, schedule)) >= 2, 10, "two ticks")
    began = time.monotonic()
    api.process.terminate()
    api.process.wait(15)
    assert time.monotonic() - began < 5
