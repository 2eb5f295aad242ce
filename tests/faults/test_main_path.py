"""The main path with real processes, and what becomes of it when they are killed."""

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import redis
from sqlalchemy.orm import Session, sessionmaker

from app.scheduling import schedules
from app.scheduling.catalogue import Catalogue, TaskSpec
from app.scheduling.config import ScheduleCreate, ScheduleUpdate
from support import checker
from support.ledger import Ledger
from support.polling import eventually
from support.servers import Database
from support.stack import BOOT, Stack
from support.trial import FULL, QUICK

TICKING = float(os.environ.get("UPBEAT_TEST_TICKING", "8"))
CATALOGUE = Catalogue(
    [
        TaskSpec(name=f"support.{name}", path=f"support.tasks.{name}")
        for name in ("instant", "first_try_hangs")
    ]
)
FOUND = 45.0 if FULL else 30.0
EVERY_SECOND = {"type": "interval", "every": 1, "unit": "seconds"}
Create = Callable[..., UUID]


@pytest.fixture
def create(sessions: sessionmaker[Session]) -> Create:
    """Stores a schedule as the API does."""

    def work(schedule: dict[str, Any], task: str = "support.instant", **body: Any) -> UUID:
        stated = ScheduleCreate(**{"task_name": task, "task_path": task, "schedule": schedule, **body})
        with sessions.begin() as session:
            return schedules.create(session, CATALOGUE, stated, "test").row.id

    return work


def _disable(sessions: sessionmaker[Session], schedule: UUID) -> None:
    with sessions.begin() as session:
        schedules.update(session, CATALOGUE, schedule, ScheduleUpdate(task_enabled=False), "test")


def _once(seconds: float = 1.0) -> dict[str, Any]:
    """A schedule of a single tick, that soon."""
    at = datetime.now(UTC) + timedelta(seconds=seconds)
    return {"type": "one_off", "at": at.isoformat()}


def test_every_second_makes_one_run_a_second_though_one_of_two_beats_is_killed(
    stack: Stack,
    create: Create,
    sessions: sessionmaker[Session],
    database: Database,
    ledger: Ledger,
) -> None:
    first, second = stack.beat(wait=False), stack.beat(wait=False)
    stack.worker("-P", "threads")
    for beat in (first, second):
        beat.wait_for_output("beat: Starting", BOOT)
    schedule = str(create(EVERY_SECOND, task_extra_config={"overlap": "allow_all"}))
    half = TICKING / 2
    eventually(lambda: len(checker.read_runs(database.url, schedule)) >= half, half + 10)
    first.kill()
    eventually(lambda: len(checker.read_runs(database.url, schedule)) >= TICKING, half + 10)
    _disable(sessions, UUID(schedule))
    runs = eventually(
        lambda: (
            []
            if checker.unfinished(checker.read_runs(database.url, schedule))
            else checker.read_runs(database.url, schedule)
        ),
        20,
        "all runs to end",
    )
    anchor, last = runs[0].scheduled_for, runs[-1].scheduled_for
    assert anchor is not None
    assert last is not None
    expected = checker.ticks_every(schedule, anchor, timedelta(seconds=1), last)
    assert checker.check_ticks(expected, runs, timedelta(seconds=2)) == []
    assert checker.check_starts(ledger.entries(), runs) == []
    assert {run.state for run in runs} == {"succeeded"}
    assert len(ledger.starts()) == len(runs) >= TICKING


def test_a_worker_killed_in_mid_run_is_accounted_for(
    stack: Stack,
    create: Create,
    database: Database,
    ledger: Ledger,
    record_property: Callable[[str, object], None],
) -> None:
    stack.environment.update(QUICK)
    stack.beat(wait=False)
    doomed = stack.worker()
    hanging = {
        policy: str(
            create(
                _once(),
                "support.first_try_hangs",
                task_name=policy,
                task_extra_config={"on_worker_lost": policy},
            )
        )
        for policy in ("fail", "retry")
    }
    eventually(lambda: len(ledger.starts()) == 2, 15, "both runs to start")
    doomed.kill()
    stack.worker(wait=False)

    def ended() -> dict[str, checker.RunRow]:
        rows = {policy: checker.read_runs(database.url, schedule) for policy, schedule in hanging.items()}
        assert checker.unfinished([run for found in rows.values() for run in found]) == []
        return {policy: run for policy, (run,) in rows.items()}

    began = time.monotonic()
    runs = eventually(ended, FOUND, "the runs to be accounted for")
    record_property("both accounted for after, s", time.monotonic() - began)
    assert {policy: (run.state, run.attempt) for policy, run in runs.items()} == {
        "fail": ("lost", 1),
        "retry": ("succeeded", 2),
    }
    assert checker.check_starts(ledger.entries(), list(runs.values())) == []
    assert len(ledger.starts()) == 3


def test_a_lost_message_is_sent_again(
    stack: Stack, create: Create, database: Database, redis_url: str, ledger: Ledger
) -> None:
    stack.environment.update(QUICK)
    stack.beat(wait=False)
    schedule = str(create(_once(0.2)))
    client = redis.Redis.from_url(redis_url)
    eventually(lambda: client.llen("celery") == 1, 10, "the message")
    client.delete("celery")
    client.close()
    stack.worker("-P", "threads")
    eventually(
        lambda: [run.state for run in checker.read_runs(database.url, schedule)] == ["succeeded"],
        45,
        "the run to succeed",
    )
    assert len(ledger.starts()) == 1
