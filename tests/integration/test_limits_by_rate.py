"""Rates by key, with the database's clock in hand: each waiting run has a start of its own."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session, sessionmaker

from app.scheduling import explaining_runs, liveness, runs
from app.scheduling.catalogue import TaskSpec
from app.scheduling.config import RunOptions
from app.scheduling.ids import new_id
from app.scheduling.models import RunRow
from app.scheduling.policies import Reason
from app.scheduling.runs import Held, Origin, Started
from support.clock import DatabaseClock

TASK = TaskSpec(name="module.task", path="module.tasks.task", rate_limit="10/m")


class Limited:
    """Runs of a task that may start ten times a minute."""

    def __init__(self, sync: sessionmaker[Session], clock: DatabaseClock) -> None:
        self.sync = sync
        self.clock = clock
        self.noon = clock.now
        self.worker = new_id()
        with sync.begin() as session:
            session.execute(text("TRUNCATE celery_task_limits"))
            liveness.register_worker(session, self.worker, name="w@host", pid=1, queues=["other"], lease=9999)

    def submit(self, count: int, **options: object) -> list[UUID]:
        made = [new_id() for _ in range(count)]
        with self.sync.begin() as session:
            for run_id in made:
                runs.submit(
                    session,
                    task=TASK,
                    args=[],
                    kwargs={},
                    options=RunOptions.model_validate(options),
                    origin=Origin.SUBMIT,
                    redispatch_delay=30,
                    run_id=run_id,
                )
        return made

    def start(self, run_id: UUID) -> Started | Held | None:
        with self.sync.begin() as session:
            return runs.start(
                session, run_id, attempt=1, worker_id=self.worker, worker="w@host", token=new_id()
            )

    def why(self, run_id: UUID) -> str:
        with self.sync() as session:
            return explaining_runs.explain(session, run_id).explanation

    def at(self, seconds: float) -> None:
        self.clock.set(self.noon + timedelta(seconds=seconds))

    def woken_at(self, run_id: UUID) -> float:
        with self.sync() as session:
            due: datetime | None = session.scalar(
                select(RunRow.next_dispatch_at).where(RunRow.id == run_id, RunRow.reason == "rate_limit")
            )
        assert due is not None
        return (due - self.noon).total_seconds()


@pytest.fixture
def limited(clock: DatabaseClock, sync: sessionmaker[Session]) -> Limited:
    return Limited(sync, clock)


HELD = Held(Reason.RATE_LIMIT)


def test_each_has_its_own_start_in_order(limited: Limited) -> None:
    first, *others = limited.submit(4)
    assert isinstance(limited.start(first), Started)
    assert [limited.start(each) for each in others] == [HELD] * 3
    assert [limited.woken_at(each) for each in others] == [6, 12, 18]
    assert limited.start(others[1]) == HELD, "a duplicate that comes too early"
    assert [limited.woken_at(each) for each in others] == [6, 12, 18]
    assert "reserved for" in limited.why(others[0])
    for number, run_id in enumerate(others, 1):
        limited.at(6 * number + 0.3)
        assert "no worker takes from its queue" in limited.why(run_id), "its start has come"
        assert isinstance(limited.start(run_id), Started)


def test_a_newcomer_does_not_overtake(limited: Limited) -> None:
    first, second = limited.submit(2)
    limited.start(first)
    limited.start(second)
    limited.at(6.1)
    (newcomer,) = limited.submit(1)
    assert limited.start(newcomer) == HELD
    assert limited.woken_at(newcomer) == 12
    assert isinstance(limited.start(second), Started)


def test_a_backlog_is_not_let_loose_at_once(limited: Limited) -> None:
    runs_of_it = limited.submit(5)
    for run_id in runs_of_it:
        limited.start(run_id)
    limited.at(3600)
    found = [limited.start(run_id) for run_id in runs_of_it[1:]]
    assert [isinstance(each, Started) for each in found] == [True, False, False, False]
    assert [limited.woken_at(run_id) for run_id in runs_of_it[2:]] == [3606, 3612, 3618]


def test_keys_are_apart_and_a_rate_may_stand_beside_a_concurrency_limit(limited: Limited) -> None:
    both: dict[str, Any] = {"concurrency_limit": 1, "concurrency_key": "both"}
    first, second = limited.submit(2, **both)
    (other,) = limited.submit(1, concurrency_key="other")
    assert isinstance(limited.start(first), Started)
    assert limited.start(second) == Held(Reason.CONCURRENCY_LIMIT)
    assert isinstance(limited.start(other), Started)
    with limited.sync.begin() as session:
        done = runs.Outcome(runs.RunState.SUCCEEDED)
        assert runs.finish(session, first, attempt=1, outcome=done)
    assert limited.start(second) == HELD
    assert limited.woken_at(second) == 6
    limited.at(6)
    assert isinstance(limited.start(second), Started)


def test_nothing_is_reserved_beyond_a_deadline(limited: Limited) -> None:
    first, second, third = limited.submit(3)
    with limited.sync.begin() as session:
        deadline = {"at": limited.noon + timedelta(seconds=10)}
        session.execute(text("UPDATE celery_task_runs SET start_deadline = :at"), deadline)
    assert isinstance(limited.start(first), Started)
    assert [limited.start(second), limited.start(third)] == [HELD, HELD]
    assert [limited.woken_at(second), limited.woken_at(third)] == [6, 10]
    assert "no start is free before its deadline" in limited.why(third)
    limited.at(12)
    (newcomer,) = limited.submit(1)
    assert isinstance(limited.start(newcomer), Started)


def test_what_was_reserved_is_free_again_when_its_run_is_cancelled(limited: Limited) -> None:
    first, *others = limited.submit(4)
    for run_id in (first, *others):
        limited.start(run_id)
    limited.at(1)
    for run_id in others:
        with limited.sync.begin() as session:
            assert runs.cancel(session, run_id) is runs.RunState.CANCELLED
    newcomers = limited.submit(2)
    assert [limited.start(each) for each in newcomers] == [HELD, HELD]
    assert [limited.woken_at(each) for each in newcomers] == [7, 13]
