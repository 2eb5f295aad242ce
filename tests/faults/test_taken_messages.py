"""Workers that are killed between taking a message and having recorded how its run ended."""

import time
from collections.abc import Iterator
from functools import partial

import pytest
import redis
from celery.result import AsyncResult

from app.settings import Settings
from support import calls, checker
from support.calling import calling
from support.polling import DeadlinePassed, eventually
from support.processes import Process
from support.stack import Stack
from support.trial import FULL, QUICK, Report, Trial

AGAIN = 40.0 if FULL else 15.0
FOUND = 45.0 if FULL else 15.0
THREADS = ("-P", "threads", "--without-mingle", "--without-gossip")


@pytest.fixture(autouse=True)
def client(stack: Stack, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Short delays for this process too, which makes the runs."""
    stack.environment.update(QUICK)
    for name, value in QUICK.items():
        monkeypatch.setenv(name, value)
    stack.environment["UPBEAT_TASK_MODULES"] = "support.tasks,support.calls"
    with calling(settings):
        yield


@pytest.mark.timeout(400)
def test_a_message_taken_by_a_worker_that_is_killed(
    stack: Stack, trial: Trial, record_property: Report
) -> None:
    """Frozen in its wait for a message, it is given one; then it dies."""
    stack.beat(wait=False)
    slowest = 0.0
    for _ in range(3 if FULL else 1):
        doomed = stack.worker(*THREADS)
        (result,) = eventually(partial(_given, doomed, trial), 30, "the message to be taken")
        began = time.monotonic()
        doomed.kill()
        stack.worker(*THREADS, wait=False)
        assert result.get(AGAIN + 10) == 3
        slowest = max(slowest, time.monotonic() - began)
        for worker in stack.processes.started[1:]:
            worker.kill()
    record_property("slowest to run after all, s", slowest)
    assert slowest < AGAIN


@pytest.mark.timeout(400)
def test_a_worker_killed_around_its_commits(stack: Stack, trial: Trial, record_property: Report) -> None:
    """After the commit of a start, and before and after that of an end: the run may be started again."""
    stack.beat(wait=False)
    attempts = {"start.committed": [2], "finish.written": [1, 2], "finish.committed": [1]}
    slowest = 0.0
    for point, starts in attempts.items():
        doomed = stack.worker(*THREADS, env={"UPBEAT_FAILPOINTS": f"{point}=kill"})
        # What has stored nothing and concerns nobody ends by one statement, inside of which nobody can be killed.
        result, began = calls.restartable.delay(0, aloud=point == "finish.written"), time.monotonic()
        doomed.popen.wait(20)
        healthy = stack.worker(*THREADS, wait=False)
        assert result.get(FOUND + 10) == starts[-1] - 1
        slowest = max(slowest, time.monotonic() - began)
        healthy.kill()
        assert [e.attempt for e in trial.ledger.starts() if e.run == result.id] == starts
    record_property("slowest to run after all, s", slowest)
    assert slowest < FOUND
    entries = trial.ledger.entries()
    runs = [run for run in checker.read_runs(trial.url) if run.id in {entry.run for entry in entries}]
    assert checker.check_starts(entries, runs) == []
    assert {run.state for run in runs} == {"succeeded"}


def _given(worker: Process, trial: Trial) -> list[AsyncResult]:
    """The result of a run whose message the frozen worker was given; none if its wait was over by then."""
    eventually(lambda: _somebody_waits(trial), 10, "the worker to wait for a message")
    worker.freeze()
    result = calls.add.delay(1, 2)
    try:
        eventually(lambda: trial.waiting() == 0, 2)
    except DeadlinePassed:
        worker.thaw()
        assert result.get(20) == 3
        return []
    return [result]


def _somebody_waits(trial: Trial) -> bool:
    """Whether a client is blocked in its wait for a message."""
    with redis.Redis.from_url(trial.redis_url) as client:
        return bool(client.info("clients")["blocked_clients"])
