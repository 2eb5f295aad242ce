"""Limits by key across all workers: concurrency and rate, decided where runs start."""

import random
import threading
import time
from collections import Counter
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session, sessionmaker

from app.scheduling import limiting, liveness, runs
from app.scheduling.catalogue import TaskSpec
from app.scheduling.config import RunOptions
from app.scheduling.ids import new_id
from app.scheduling.limiting import spacing
from app.scheduling.models import RunRow
from app.scheduling.policies import Reason
from app.scheduling.runs import Held, Origin, Outcome, RunState, Started
from app.settings import Settings
from support.calling import calling, sent
from support.polling import eventually
from support.stack import Stack
from support.tasks import nap

TASK = TaskSpec(name="module.task", path="module.tasks.task")
DONE = Outcome(RunState.SUCCEEDED)


@pytest.fixture
def worker(sync: sessionmaker[Session]) -> UUID:
    identifier = new_id()
    with sync.begin() as session:
        session.execute(text("TRUNCATE celery_task_limits"))
        liveness.register_worker(session, identifier, name="w@host", pid=1, queues=["celery"], lease=9999)
    return identifier


def submit(sync: sessionmaker[Session], task: TaskSpec = TASK, **options: object) -> UUID:
    run_id = new_id()
    with sync.begin() as session:
        runs.submit(
            session,
            task=task,
            args=[],
            kwargs={},
            options=RunOptions.model_validate(options),
            origin=Origin.SUBMIT,
            redispatch_delay=30,
            run_id=run_id,
        )
    return run_id


def start(sync: sessionmaker[Session], run_id: UUID, worker: UUID, attempt: int = 1) -> Started | Held | None:
    with sync.begin() as session:
        return runs.start(session, run_id, attempt=attempt, worker_id=worker, worker="w@host", token=new_id())


def finish(sync: sessionmaker[Session], run_id: UUID, outcome: Outcome = DONE) -> None:
    with sync.begin() as session:
        assert runs.finish(session, run_id, attempt=1, outcome=outcome) is not None


def read(sync: sessionmaker[Session], run_id: UUID) -> RunRow:
    with sync() as session:
        return session.scalars(select(RunRow).where(RunRow.id == run_id)).one()


def is_woken(sync: sessionmaker[Session], run_id: UUID) -> bool:
    with sync() as session:
        due = session.scalar(
            text("SELECT next_dispatch_at <= clock_timestamp() FROM celery_task_runs WHERE id = :id"),
            {"id": run_id},
        )
    return bool(due)


@pytest.mark.parametrize(
    "outcome",
    [
        DONE,
        Outcome(RunState.FAILED, error={}, retryable=True),
        Outcome(RunState.LOST, error={}, reason=Reason.WORKER_LOST),
    ],
)
def test_a_run_over_the_limit_waits_until_a_slot_is_free(
    sync: sessionmaker[Session], worker: UUID, outcome: Outcome
) -> None:
    options: dict[str, Any] = {
        "concurrency_limit": 1,
        "concurrency_key": "k",
        "max_attempts": 2,
        "on_worker_lost": "retry",
    }
    first, second, third = [submit(sync, **options) for _ in range(3)]
    other = submit(sync, concurrency_limit=1, concurrency_key="another")
    assert isinstance(start(sync, first, worker), Started)
    assert start(sync, second, worker) == Held(Reason.CONCURRENCY_LIMIT)
    assert start(sync, third, worker) == Held(Reason.CONCURRENCY_LIMIT)
    assert isinstance(start(sync, other, worker), Started)
    held = read(sync, second)
    assert (held.state, held.reason, held.attempt) == ("queued", "concurrency_limit", 1)
    assert not is_woken(sync, second)
    finish(sync, first, outcome)
    assert is_woken(sync, second)
    assert not is_woken(sync, third)
    assert isinstance(start(sync, second, worker), Started)
    assert read(sync, second).reason is None
    assert start(sync, third, worker) == Held(Reason.CONCURRENCY_LIMIT)


def test_a_woken_run_that_is_cancelled_hands_its_turn_on(sync: sessionmaker[Session], worker: UUID) -> None:
    first, second, third = [submit(sync, concurrency_limit=1, concurrency_key="k") for _ in range(3)]
    start(sync, first, worker)
    start(sync, second, worker)
    start(sync, third, worker)
    finish(sync, first)
    assert (is_woken(sync, second), is_woken(sync, third)) == (True, False)
    with sync.begin() as session:
        assert runs.cancel(session, second) is RunState.CANCELLED
    assert is_woken(sync, third)


def test_a_free_slot_passes_by_those_whose_queue_is_paused(sync: sessionmaker[Session], worker: UUID) -> None:
    one: dict[str, Any] = {"concurrency_limit": 1, "concurrency_key": "k"}
    first, second, third = submit(sync, **one), submit(sync, **one, queue="priority_low"), submit(sync, **one)
    for run_id in (first, second, third):
        start(sync, run_id, worker)
    with sync.begin() as session:
        session.execute(
            text("INSERT INTO celery_queue_pauses (queue, paused_by, note) VALUES ('priority_low', 'me', '')")
        )
    finish(sync, first)
    assert (is_woken(sync, second), is_woken(sync, third)) == (False, True)
    with sync.begin() as session:
        session.execute(text("DELETE FROM celery_queue_pauses"))
        limiting.release_queue(session, "priority_low")
    assert is_woken(sync, second)


def test_the_limits_of_a_task_are_those_of_its_runs(sync: sessionmaker[Session], worker: UUID) -> None:
    limited = TaskSpec(name="limited", path="limited", concurrency_limit=1)
    first, second = submit(sync, limited), submit(sync, limited)
    assert read(sync, first).limit_key == "limited"
    assert isinstance(start(sync, first, worker), Started)
    assert start(sync, second, worker) == Held(Reason.CONCURRENCY_LIMIT)
    assert read(sync, submit(sync, concurrency_key="k")).limit_key is None


def test_no_limit_is_passed_and_no_wake_up_is_lost_whatever_happens_at_once(
    sync: sessionmaker[Session], worker: UUID
) -> None:
    """Eight workers on a backlog: only the wake-ups that limits give let it come to an end."""
    total, limit = 80, 3
    todo = [submit(sync, concurrency_limit=limit, concurrency_key="k") for _ in range(total)]
    dice = random.Random(17)
    cancelled = dice.sample(todo[20:], 10)
    lock, running, peak, starts = threading.Lock(), 0, 0, Counter[UUID]()
    end = time.monotonic() + 30

    def due() -> list[UUID]:
        with sync() as session:
            return list(
                session.scalars(
                    text(
                        "SELECT id FROM celery_task_runs WHERE state = 'queued' AND (next_dispatch_at <="
                        " clock_timestamp() OR reason IS NULL) ORDER BY random() LIMIT 4"
                    )
                )
            )

    def work() -> None:
        nonlocal running, peak
        while time.monotonic() < end:
            with sync() as session:
                left = session.scalar(
                    text("SELECT count(*) FROM celery_task_runs WHERE state IN ('queued', 'running')")
                )
            if not left:
                return
            for run_id in due():
                if run_id in cancelled:
                    with sync.begin() as session:
                        runs.cancel(session, run_id)
                elif isinstance(start(sync, run_id, worker), Started):
                    with lock:
                        running += 1
                        peak = max(peak, running)
                        starts[run_id] += 1
                    time.sleep(0.02)  # the run's own work, so that runs overlap
                    with lock:
                        running -= 1
                    finish(sync, run_id)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with sync() as session:
        states = Counter(session.scalars(select(RunRow.state)))
    assert sum(states.values()) == total
    assert states.keys() <= {"succeeded", "cancelled"}, states
    assert max(starts.values()) == 1
    assert 1 < peak <= limit


def test_a_limited_start_whose_reply_was_lost_is_recognised(
    sync: sessionmaker[Session], worker: UUID
) -> None:
    run_id, token = submit(sync, concurrency_limit=1), new_id()
    for _ in range(2):
        with sync.begin() as session:
            again = runs.start(session, run_id, attempt=1, worker_id=worker, worker="w@host", token=token)
        assert isinstance(again, Started)
    assert start(sync, run_id, worker) is None


@pytest.mark.parametrize(("rate", "seconds"), [("5/s", 0.2), ("10/m", 6), ("100/h", 36), ("1000/d", 86.4)])
def test_rates(rate: str, seconds: float) -> None:
    assert spacing(rate) == timedelta(seconds=seconds)


@pytest.mark.parametrize("rate", ["", "10", "0/s", "1.5/s", "-1/m", "10/y", "10/m ", "1000000/s"])
def test_what_is_not_a_rate(rate: str) -> None:
    with pytest.raises(ValueError, match="rate"):
        spacing(rate)
    with pytest.raises(ValueError, match="rate_limit"):
        RunOptions.model_validate({"rate_limit": rate})


def test_two_workers_share_a_limit_and_drain_a_backlog(stack: Stack, settings: Settings) -> None:
    threads = ("-P", "threads", "-c", "6")
    stack.beat(wait=False)
    stack.worker(*threads, wait=False)
    stack.worker(*threads)
    with calling(settings):
        todo = [sent(0.1, task=nap.name, concurrency_limit=2, concurrency_key="naps") for _ in range(16)]
    entries = eventually(lambda: found if len(found := stack.ledger.entries()) == 2 * len(todo) else [], 20)
    active = peak = 0
    for entry in sorted(entries, key=lambda entry: entry.monotonic):
        active += 1 if entry.kind == "start" else -1
        peak = max(peak, active)
    assert peak == 2
    assert {entry.run for entry in entries} == {str(each) for each in todo}
