"""Tasks called by code, and their outcomes, in each of Celery's pools: prefork, threads and solo.

The callers are this process; the workers are others. Each pool's worker has a queue of its own.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from celery.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded
from celery.result import AsyncResult

from app.settings import Settings
from app.worker import celery_app
from support import checker
from support.calling import calling, sent
from support.polling import eventually
from support.processes import Process
from support.servers import Database
from support.stack import BOOT, Stack
from support.tasks import block, clean_up, fail, instant, nap, query, transactions

QUEUES = {"prefork": "celery", "threads": "priority_low", "solo": "priority_high"}
DONE = 30.0
WAYS = ("connection", "autocommit", "session")

every_pool = pytest.mark.parametrize("pool", QUEUES)
pools_with_limits = pytest.mark.parametrize("pool", ["prefork", "threads"])


@pytest.fixture(scope="module")
def workers(shared_stack: Stack, settings: Settings) -> Iterator[Mapping[str, Process]]:
    started = {
        pool: shared_stack.worker("-P", pool, "-c", "2", "-Q", queue, wait=False)
        for pool, queue in QUEUES.items()
    }
    # Its sleep is longer than any test waits: what is due soon must wake it.
    shared_stack.beat(wait=False, env={"UPBEAT_BEAT_MAX_SLEEP": "300"})
    for worker in started.values():
        worker.wait_for_output(" ready.", BOOT)
    with calling(settings):
        yield started


def submit(task: Any, pool: str, *args: object, **options: object) -> AsyncResult:
    return task.apply_async(args, queue=QUEUES[pool], **options)


@pytest.mark.parametrize(
    ("pool", "number", "pause"), [("prefork", 1000, 0.0), ("threads", 200, 0.01), ("solo", 100, 0.0)]
)
def test_tasks_that_await_the_database_share_one_loop_and_one_pool(
    workers: Mapping[str, Process],
    database: Database,
    settings: Settings,
    pool: str,
    number: int,
    pause: float,
) -> None:
    submitted = {submit(query, pool, pause).id for _ in range(number)}
    eventually(lambda: not checker.is_open(database.url), DONE, f"{number} runs to end")
    found = [run for run in checker.read_runs(database.url) if run.id in submitted]
    assert [run.state for run in found] == ["succeeded"] * number
    by_process: dict[int, list[dict[str, int]]] = defaultdict(list)
    for run in found:
        result: dict[str, int] = run.document["result"]  # type: ignore[assignment]
        by_process[result["process"]].append(result)
    assert len(by_process) <= (2 if pool == "prefork" else 1)
    connections = 1 if pool != "threads" else 2
    for same in by_process.values():
        assert len({each["loop"] for each in same}) == 1
        assert len({each["pool"] for each in same}) == 1
        assert len({each["backend"] for each in same}) <= connections
    assert "different loop" not in workers[pool].output()


@every_pool
def test_a_body_meets_no_connection_that_the_server_has_closed(
    workers: Mapping[str, Process], database: Database, pool: str
) -> None:
    assert [submit(transactions, pool, way).get(DONE) for way in WAYS] == [2, 2, 1]
    with psycopg.connect(database.url, autocommit=True) as connection:
        closed = connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'upbeat-task'"
        ).fetchall()
    assert closed
    assert [submit(transactions, pool, way).get(DONE) for way in WAYS * 2] == [2, 2, 1] * 2


@every_pool
def test_a_result_is_read_by_another_process(workers: Mapping[str, Process], pool: str) -> None:
    value = {"text": "清理过期会话", "number": 2**53 + 1, "list": [None, True, 0.5]}
    result = submit(instant, pool, value)
    assert AsyncResult(result.id, app=celery_app).get(timeout=DONE) == value
    assert (result.state, result.ready(), result.successful()) == ("SUCCESS", True, True)
    assert submit(nap, pool, 0.01).get(timeout=DONE) == 0.01


def test_a_result_is_read_in_any_thread(workers: Mapping[str, Process]) -> None:
    identifier = submit(instant, "threads", "value").id
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(lambda: AsyncResult(identifier).get(timeout=DONE)).result() == "value"
        assert threads.submit(lambda: instant.delay("again").get(timeout=DONE)).result() == "again"


@every_pool
def test_a_failure_is_raised_where_the_result_is_awaited(workers: Mapping[str, Process], pool: str) -> None:
    result = submit(fail, pool, "no good")
    with pytest.raises(ValueError, match=r"^no good$"):
        result.get(timeout=DONE)
    assert (result.state, result.failed()) == ("FAILURE", True)
    assert "raise ValueError(message)" in result.traceback


@every_pool
def test_a_countdown_waits_in_the_database(
    workers: Mapping[str, Process], shared_stack: Stack, pool: str
) -> None:
    before = datetime.now(UTC)
    result = submit(instant, pool, countdown=1.2)
    assert result.state == "PENDING"
    result.get(timeout=DONE)
    (start,) = [entry for entry in shared_stack.ledger.starts() if entry.run == result.id]
    assert datetime.fromtimestamp(start.wall, UTC) - before >= timedelta(seconds=1.2)


@every_pool
def test_another_attempt_follows_a_failure(
    workers: Mapping[str, Process], shared_stack: Stack, pool: str
) -> None:
    run_id = sent(task="support.second_try", queue=QUEUES[pool], max_attempts=2, retry_base=0.3)
    assert AsyncResult(str(run_id), app=celery_app).get(timeout=DONE) == 1
    attempts = [entry.attempt for entry in shared_stack.ledger.starts() if entry.run == str(run_id)]
    assert attempts == [1, 2]


@pools_with_limits
def test_a_soft_limit_cancels_a_coroutine_and_awaits_its_clean_up(
    workers: Mapping[str, Process], tmp_path: Path, pool: str
) -> None:
    said = tmp_path / "said"
    result = submit(clean_up, pool, 60.0, str(said), soft_time_limit=0.5, time_limit=30)
    with pytest.raises(SoftTimeLimitExceeded):
        result.get(timeout=DONE)
    assert said.read_text() == "cleaned up"
    assert submit(query, pool).get(timeout=DONE)["backend"]


@pools_with_limits
def test_a_hard_limit_ends_a_coroutine(
    workers: Mapping[str, Process], shared_stack: Stack, database: Database, pool: str
) -> None:
    result = submit(nap, pool, 60.0, time_limit=1)
    with pytest.raises(TimeLimitExceeded):
        result.get(timeout=DONE)
    (run,) = [run for run in checker.read_runs(database.url) if run.id == result.id]
    assert (run.state, run.document["reason"]) == ("timed_out", "hard_limit")
    assert submit(instant, pool, "next").get(timeout=DONE) == "next"


def test_both_limits_end_a_plain_function_in_a_process(workers: Mapping[str, Process]) -> None:
    with pytest.raises(SoftTimeLimitExceeded):
        submit(block, "prefork", 60.0, soft_time_limit=0.5).get(timeout=DONE)
    with pytest.raises(TimeLimitExceeded):
        submit(block, "prefork", 60.0, time_limit=1).get(timeout=DONE)
    assert submit(instant, "prefork", "next").get(timeout=DONE) == "next"
