"""The bridge, limits and cancellation in the three pools, each on a queue of its own."""

import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from billiard.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded
from celery import chord
from celery.exceptions import ChordError, TaskRevokedError
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from app.db import sync_engine, sync_sessions
from app.scheduling import canvas, runs
from app.scheduling.ids import process_of
from app.scheduling.messages import RunMessage
from app.scheduling.models import RunRow
from app.settings import Settings
from app.worker import celery_app
from support import calls, stubborn
from support.calling import calling
from support.polling import eventually
from support.processes import Process
from support.stack import BOOT, Stack

PATIENCE = 20.0
POOLS = {"prefork": "system", "threads": "priority_high", "solo": "priority_low"}
NOBODYS = "celery"
SETTINGS = {
    "UPBEAT_TASK_MODULES": "support.tasks,support.calls,support.stubborn",
    "UPBEAT_BEAT_SWEEP_EVERY": "0.3",
    "UPBEAT_BEAT_MAX_SLEEP": "1",
    "UPBEAT_WORKER_CANCEL_GRACE": "1",
    "UPBEAT_WORKER_DRAIN_TIMEOUT": "10",
    "UPBEAT_WORKER_LEASE_RENEWAL": "1",
}


@pytest.fixture(scope="module")
def workers(shared_stack: Stack, settings: Settings) -> Iterator[dict[str, Process]]:
    """A worker for each pool, a beat, and this process as their client."""
    shared_stack.environment.update(SETTINGS)
    started = {
        pool: shared_stack.worker("-P", pool, "-Q", queue, "--without-mingle", wait=False)
        for pool, queue in POOLS.items()
    }
    shared_stack.beat(wait=False)
    for process in started.values():
        process.wait_for_output(" ready.", BOOT)
    with calling(settings):
        yield started


@pytest.fixture(scope="module")
def sessions(settings: Settings) -> Iterator[sessionmaker[Session]]:
    engine = sync_engine(settings.database, name="test")
    yield sync_sessions(engine)
    engine.dispose()


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return tmp_path / "notes"


pytestmark = pytest.mark.usefixtures("workers")
each_pool = pytest.mark.parametrize("pool", POOLS)


def _row(sessions: sessionmaker[Session], task_id: str) -> RunRow:
    with sessions() as session:
        return canvas.read_many(session, [task_id])[task_id]


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


@each_pool
def test_a_coroutine_knows_its_run(pool: str, workers: dict[str, Process]) -> None:
    result = stubborn.context.apply_async(queue=POOLS[pool])
    assert result.get(PATIENCE) == [[result.id, result.id]] * 2
    workers[pool].wait_for_output("inside of the run")
    (line,) = [
        line
        for line in workers[pool].output().splitlines()
        if "inside of the run" in line and result.id in line
    ]
    assert f"run_id={result.id}" in line


@each_pool
def test_a_soft_limit_waits_for_the_clean_up(pool: str, notes: Path) -> None:
    result = stubborn.cleans_up.apply_async((str(notes),), queue=POOLS[pool], soft_time_limit=0.5)
    with pytest.raises(SoftTimeLimitExceeded):
        result.get(PATIENCE)
    assert _lines(notes) == ["started", "cancelled", "cleaned"]
    assert calls.nap.apply_async((0.01,), queue=POOLS[pool]).get(PATIENCE) == 0.01


@each_pool
def test_a_soft_limit_interrupts_a_plain_function(
    pool: str, notes: Path, sessions: sessionmaker[Session]
) -> None:
    result = stubborn.computes.apply_async((str(notes),), queue=POOLS[pool], soft_time_limit=0.5)
    with pytest.raises(SoftTimeLimitExceeded):
        result.get(PATIENCE)
    assert _lines(notes) == ["started", "interrupted"]
    row = _row(sessions, result.id)
    assert (row.state, row.error and row.error["message"]) == ("failed", "The soft time limit passed.")
    assert calls.add.apply_async((1, 2), queue=POOLS[pool]).get(PATIENCE) == 3


def test_a_soft_limit_ends_with_the_body(notes: Path, sessions: sessionmaker[Session]) -> None:
    """What the end waits for (a lock here, else a database that is away) is nothing of the body's."""
    result = stubborn.computes.apply_async(
        (str(notes), 0.5), queue=POOLS["prefork"], soft_time_limit=1, link=calls.add.si(1, 2)
    )
    eventually(lambda: _lines(notes) == ["started"], PATIENCE)
    with sessions.begin() as session:
        session.execute(select(RunRow.id).where(RunRow.id == UUID(result.id)).with_for_update())
        locked = time.monotonic()
        eventually(lambda: time.monotonic() > locked + 1.3, PATIENCE)
    assert result.get(PATIENCE) == "done"
    assert _row(sessions, result.id).state == "succeeded"


@each_pool
@pytest.mark.parametrize("kind", ["NotRegistered", "KeyboardInterrupt", "CancelledError", "SystemExit"])
def test_whatever_a_body_raises_ends_its_run(
    pool: str, kind: str, workers: dict[str, Process], sessions: sessionmaker[Session]
) -> None:
    result = stubborn.raises.apply_async((kind,), queue=POOLS[pool])
    with pytest.raises(Exception, match=r"nobody|KeyboardInterrupt|CancelledError|exited"):
        result.get(PATIENCE)
    ended = "lost" if (pool, kind) == ("prefork", "SystemExit") else "failed"
    assert _row(sessions, result.id).state == ended
    assert calls.add.apply_async((1, 2), queue=POOLS[pool]).get(PATIENCE) == 3
    assert workers[pool].alive


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_a_soft_limit_interrupts_even_a_call_that_blocks(pool: str, notes: Path) -> None:
    result = stubborn.blocks.apply_async((str(notes),), queue=POOLS[pool], soft_time_limit=0.5)
    with pytest.raises(SoftTimeLimitExceeded):
        result.get(PATIENCE)
    assert calls.add.apply_async((1, 2), queue=POOLS[pool]).get(PATIENCE) == 3


@each_pool
def test_a_hard_limit_of_one_run_ends_a_coroutine(
    pool: str, notes: Path, sessions: sessionmaker[Session]
) -> None:
    result = stubborn.cleans_up.apply_async((str(notes),), queue=POOLS[pool], time_limit=1)
    with pytest.raises(TimeLimitExceeded):
        result.get(PATIENCE)
    row = _row(sessions, result.id)
    assert (row.state, row.reason) == ("timed_out", "hard_limit")
    assert calls.nap.apply_async((0.01,), queue=POOLS[pool]).get(PATIENCE) == 0.01


def test_a_hard_limit_kills_a_plain_function_in_its_child(
    notes: Path, sessions: sessionmaker[Session]
) -> None:
    result = stubborn.blocks.apply_async((str(notes),), queue=POOLS["prefork"], time_limit=1)
    with pytest.raises(TimeLimitExceeded):
        result.get(PATIENCE)
    assert _row(sessions, result.id).state == "timed_out"


@each_pool
def test_a_bridge_inside_of_a_loop_is_refused(pool: str) -> None:
    result = stubborn.nested.apply_async(queue=POOLS[pool])
    with pytest.raises(RuntimeError, match="inside a running event loop"):
        result.get(PATIENCE)


@each_pool
def test_a_running_coroutine_is_cancelled_and_cleans_up(
    pool: str, notes: Path, sessions: sessionmaker[Session]
) -> None:
    result = stubborn.cleans_up.apply_async((str(notes),), queue=POOLS[pool])
    eventually(lambda: _lines(notes) == ["started"], PATIENCE)
    asked = time.monotonic()
    result.revoke()
    with pytest.raises(TaskRevokedError, match="cancelled_by_user"):
        result.get(PATIENCE)
    assert time.monotonic() - asked < 5
    assert _lines(notes) == ["started", "cancelled", "cleaned"]
    row = _row(sessions, result.id)
    assert (row.state, row.reason) == ("cancelled", "cancelled_by_user")
    assert row.error == {"type": "Cancelled", "message": "Cancelled by revoke.", "traceback": None}
    assert calls.nap.apply_async((0.01,), queue=POOLS[pool]).get(PATIENCE) == 0.01


@pytest.mark.parametrize("terminate", [False, True])
def test_a_plain_function_is_cancelled_by_force(
    notes: Path, sessions: sessionmaker[Session], *, terminate: bool
) -> None:
    result = stubborn.blocks.apply_async((str(notes),), queue=POOLS["prefork"])
    eventually(lambda: _lines(notes) == ["started"], PATIENCE)
    row = _row(sessions, result.id)
    token = row.start_token
    assert token is not None
    celery_app.publisher.publish([RunMessage.of(row.id, row.task, row.queue, row.attempt, row.options)])
    assert calls.add.apply_async((1, 2), queue=POOLS["prefork"]).get(PATIENCE) == 3
    result.revoke(terminate=terminate)
    with pytest.raises(TaskRevokedError):
        result.get(PATIENCE)
    row = _row(sessions, result.id)
    assert (row.state, row.reason, row.attempt) == ("cancelled", "cancelled_by_user", 1)
    eventually(lambda: not Path(f"/proc/{process_of(token)}").exists(), PATIENCE, "its child to be killed")
    assert calls.add.apply_async((1, 2), queue=POOLS["prefork"]).get(PATIENCE) == 3


def test_remote_control_cancels(notes: Path, sessions: sessionmaker[Session]) -> None:
    result = stubborn.cleans_up.apply_async((str(notes),), queue=POOLS["threads"])
    eventually(lambda: _lines(notes) == ["started"], PATIENCE)
    replies = celery_app.control.broadcast(
        "revoke", arguments={"task_id": [result.id]}, reply=True, timeout=5, limit=3
    )
    assert any(result.id in str(reply) for reply in replies)
    with pytest.raises(TaskRevokedError):
        result.get(PATIENCE)
    assert _row(sessions, result.id).state == "cancelled"


def test_a_queued_run_is_cancelled_without_any_worker(sessions: sessionmaker[Session]) -> None:
    result = calls.add.apply_async((1, 2), queue=NOBODYS)
    result.revoke()
    row = _row(sessions, result.id)
    assert (row.state, row.reason, row.started_at) == ("cancelled", "cancelled_by_user", None)
    late = calls.add.apply_async((1, 2), countdown=60)
    late.revoke()
    assert late.state == "REVOKED"


def test_a_chord_learns_that_a_part_was_cancelled() -> None:
    body = calls.total.s()
    result = chord(
        [calls.add.s(1, 1).set(queue=POOLS["threads"]), calls.add.s(1, 1).set(queue=NOBODYS)], body
    ).apply_async()
    assert result.parent[0].get(PATIENCE) == 2
    result.parent[1].revoke()
    with pytest.raises(ChordError, match="cancelled_by_user"):
        result.get(PATIENCE, follow_parents=False)


def test_a_stop_closes_the_loops(workers: dict[str, Process], notes: Path) -> None:
    assert stubborn.opens.apply_async((str(notes),), queue=POOLS["prefork"]).get(PATIENCE) == 2
    workers["prefork"].terminate()
    assert workers["prefork"].wait(PATIENCE) == 0
    assert _lines(notes) == ["closed"]


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_a_plain_function_past_its_hard_limit_replaces_the_worker(
    pool: str, workers: dict[str, Process], notes: Path, sessions: sessionmaker[Session]
) -> None:
    other = None
    if pool == "threads":
        other = calls.nap.apply_async((2.0,), queue=POOLS[pool])
    result = stubborn.blocks.apply_async((str(notes),), queue=POOLS[pool], time_limit=1)
    if pool == "solo":
        # As the sweep of a beat does, when the worker was frozen for a while.
        eventually(lambda: _lines(notes) == ["started"], PATIENCE)
        with sessions.begin() as session:
            runs.finish(session, UUID(result.id), attempt=1, outcome=runs.OVERDUE)
    with pytest.raises(TimeLimitExceeded):
        result.get(PATIENCE)
    assert _row(sessions, result.id).state == "timed_out"
    assert workers[pool].wait(PATIENCE) == 70
    if other is not None:
        assert other.get(PATIENCE) == 2.0
