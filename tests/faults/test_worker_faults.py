"""Workers that are doubled, frozen, killed, or cut off from the database."""

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
import redis
from celery import chain
from celery.exceptions import WorkerLostError

from app.scheduling import canvas
from app.scheduling.models import RunRow
from app.settings import Settings
from app.worker import bookkeeping, counters
from support import calls, tasks
from support.calling import calling, sent
from support.ledger import Ledger
from support.polling import eventually, holds_throughout
from support.servers import Database, Servers
from support.stack import Stack
from support.trial import FULL, QUICK, Report

LEASE = 30.0 if FULL else 3.0
FROZEN = 60.0 if FULL else 0.0
QUIET = ("--without-mingle", "--without-gossip")


@pytest.fixture(autouse=True)
def client(settings: Settings, stack: Stack) -> Iterator[None]:
    """Short leases, and this process as the client."""
    stack.environment.update(QUICK | {"UPBEAT_TASK_MODULES": "support.tasks,support.calls"})
    with calling(settings):
        yield


def _row(task_id: str) -> RunRow:
    return bookkeeping.transact(lambda session: canvas.read_many(session, [task_id]))[task_id]


def _late(database: Database, run: RunRow) -> list[tuple[int, str, object]]:
    with psycopg.connect(database.url) as connection:
        return connection.execute(
            "SELECT attempt, outcome, result FROM celery_task_late_outcomes WHERE run_id = %s", [run.id]
        ).fetchall()


def _alive(pid: int) -> bool:
    """Not gone, and not only waiting for its parent to notice."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    return False


def test_doubled_messages_out_of_order_start_each_run_once(
    stack: Stack, redis_url: str, ledger: Ledger, seed: int
) -> None:
    results = [calls.retry_until.delay(1) for _ in range(40)]
    broker = redis.Redis.from_url(redis_url)
    messages = broker.lrange("celery", 0, -1) * 2
    assert len(messages) == 80
    random.Random(seed).shuffle(messages)
    broker.delete("celery")
    broker.rpush("celery", *messages)
    stack.worker(*QUIET)
    assert [result.get(30) for result in results] == [[0, 1]] * 40
    eventually(lambda: broker.llen("celery") == 0, 10)
    eventually(lambda: counters.read().get("suppressed") == 40, 10)
    broker.close()
    assert sorted(entry.run for entry in ledger.starts()) == sorted(result.id for result in results)


def test_the_late_outcome_of_a_frozen_worker_is_kept_beside_the_run(
    stack: Stack, database: Database, ledger: Ledger
) -> None:
    stack.beat()
    worker = stack.worker(*QUIET)
    result = chain(calls.late.s(1.0), calls.identity.s()).apply_async()
    first = result.parent
    eventually(ledger.starts, 15, "the run to start")
    worker.freeze()
    frozen = time.monotonic()
    eventually(lambda: _row(first.id).state == "lost", LEASE + 20, "the run to be lost")
    lost = _row(first.id)
    eventually(lambda: result.state == "FAILURE", 10, "the chain to fail")
    holds_throughout(lambda: worker.alive, max(0.0, frozen + FROZEN - time.monotonic()))
    worker.thaw()
    assert eventually(lambda: _late(database, lost), 20) == [(1, "succeeded", "late")]
    row, follower = _row(first.id), _row(result.id)
    assert (row.state, row.reason, row.result, row.finished_at) == (
        "lost",
        "worker_lost",
        None,
        lost.finished_at,
    )
    assert (follower.state, follower.reason, follower.started_at) == ("failed", "upstream_failed", None)
    with pytest.raises(WorkerLostError):
        first.get(5)
    assert calls.add.delay(1, 2).get(15) == 3


def test_a_killed_child_is_recorded_at_once_and_the_worker_goes_on(
    stack: Stack, ledger: Ledger, record_property: Report
) -> None:
    stack.worker(*QUIET)
    result = calls.late.delay(60)
    (start,) = eventually(ledger.starts, 15, "the run to start")
    os.kill(start.pid, signal.SIGKILL)
    killed = time.time()
    with pytest.raises(WorkerLostError):
        result.get(10)
    row = _row(result.id)
    assert row.finished_at is not None
    seconds = row.finished_at.timestamp() - killed
    record_property("recorded after, s", seconds)
    assert seconds < 5
    assert (row.state, row.reason) == ("lost", "worker_lost")
    assert calls.add.delay(1, 2).get(10) == 3


def test_a_run_that_takes_all_memory_or_exits_ends_and_the_worker_goes_on(stack: Stack) -> None:
    worker = stack.worker(*QUIET)
    with pytest.raises(MemoryError):
        tasks.eat.delay(32).get(10)
    result = tasks.die.delay("SystemExit")
    eventually(lambda: _row(result.id).finished_at, 10, "the run that exits to end")
    assert calls.add.delay(1, 2).get(10) == 3
    assert worker.alive


def test_a_run_that_exits_in_a_thread_has_failed(stack: Stack) -> None:
    worker = stack.worker("-P", "threads", *QUIET)
    result = tasks.die.delay("SystemExit")
    with pytest.raises(Exception, match="exited with 3"):
        result.get(10)
    assert (_row(result.id).state, worker.alive) == ("failed", True)


def test_a_run_whose_child_is_killed_each_time_is_not_started_for_ever(
    stack: Stack, ledger: Ledger, record_property: Report
) -> None:
    """As the system does when memory is short: each attempt counts, and is recorded within seconds."""
    stack.beat()
    stack.worker(*QUIET)
    run_id = sent("SIGKILL", task="support.die", on_worker_lost="retry", max_attempts=3, retry_base=0.1)
    eventually(lambda: _row(str(run_id)).state == "lost", 40, "the run to be given up")
    row, starts = _row(str(run_id)), ledger.starts()
    assert (row.attempt, row.reason) == (3, "worker_lost")
    assert [entry.attempt for entry in starts] == [1, 2, 3]
    seconds = starts[-1].wall - starts[0].wall
    record_property("three attempts, s", seconds)
    assert seconds < 2 * 5
    assert calls.add.delay(1, 2).get(10) == 3


def test_an_outage_of_the_database_makes_nothing_lost(
    stack: Stack, servers: Servers, redis_url: str, ledger: Ledger
) -> None:
    """And what another worker might start again is stopped before the lease ends, also when its message came twice."""
    stack.beat()
    steady, risky = calls.late.delay(LEASE + 3), calls.restartable.delay(60)
    with redis.Redis.from_url(redis_url) as broker:
        messages = broker.lrange("celery", 0, -1)
        stack.worker("-c", "3", *QUIET)
        eventually(lambda: len(ledger.starts()) == 2, 15, "both to start")
        dropped = counters.read().get("suppressed", 0)
        broker.lpush("celery", *messages)
        eventually(lambda: counters.read().get("suppressed") == dropped + 2, 10, "the doubles to be dropped")
    pids = {entry.run: entry.pid for entry in ledger.starts()}
    servers.stop("postgres", signal.SIGINT)
    away = time.monotonic()
    try:
        eventually(lambda: not _alive(pids[risky.id]), LEASE, "the restartable run to be stopped")
        holds_throughout(
            lambda: _alive(pids[steady.id]), max(0.0, away + LEASE + 1 - time.monotonic()), "steady stays"
        )
    finally:
        servers.start_postgres()
    assert steady.get(LEASE + 30) == "late"
    assert risky.get(LEASE + 30) == 1
    assert (_row(steady.id).state, _row(steady.id).attempt) == ("succeeded", 1)
    assert sorted((entry.run, entry.attempt) for entry in ledger.starts()) == sorted(
        [(steady.id, 1), (risky.id, 1), (risky.id, 2)]
    )


def test_a_run_starts_though_the_lease_ran_out_unrenewed(stack: Stack, database: Database) -> None:
    """As after an outage: its wake-up must not be dropped because it came before the next renewal."""
    stack.worker(*QUIET, env={"UPBEAT_WORKER_LEASE": "1", "UPBEAT_WORKER_LEASE_RENEWAL": "600"})
    query = "SELECT count(*) FROM celery_workers WHERE stopped_at IS NULL AND lease_expires_at > clock_timestamp()"

    def expired() -> bool:
        with psycopg.connect(database.url) as connection:
            return connection.execute(query).fetchone() == (0,)

    eventually(expired, 40, "the leases to run out")
    assert calls.add.delay(1, 2).get(15) == 3
