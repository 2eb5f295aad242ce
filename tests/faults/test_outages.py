"""Redis and PostgreSQL that are killed, restarted, or cannot be reached for a while."""

import signal
import time
from functools import partial

import httpx
import pytest
from sqlalchemy.exc import DBAPIError

from app.settings import Settings
from support.api import client_of
from support.polling import eventually, holds_throughout
from support.proxy import Mode, Proxy
from support.servers import Servers
from support.stack import BOOT, Stack
from support.trial import FULL, QUICK, Report, Trial, soon

QUEUED = 1000 if FULL else 200
OUTAGE = 60.0 if FULL else 4.0


@pytest.fixture(autouse=True)
def quick(stack: Stack) -> None:
    stack.environment.update(QUICK)


def test_redis_killed_without_persistence(
    stack: Stack, trial: Trial, servers: Servers, record_property: Report
) -> None:
    """With many queued: all run, once."""
    stack.beat()
    trial.create(soon(20 if FULL else 4), count=QUEUED)
    eventually(lambda: trial.waiting() == QUEUED, 40, "the messages")
    servers.stop("redis", signal.SIGKILL)
    servers.start_redis()
    assert trial.waiting() == 0
    began = time.monotonic()
    worker = stack.worker("-P", "threads", "-c", "8", wait=False)
    eventually(lambda: trial.waiting() or trial.ledger.starts(), 40, "wake-ups to be sent again")
    seconds = time.monotonic() - began
    record_property("first sent again, s", seconds)
    worker.wait_for_output(" ready.", BOOT)
    runs = trial.settle(90)
    record_property("all had run, s", time.monotonic() - began)
    assert trial.verdict(runs) == []
    assert {run.state for run in runs} == {"succeeded"}
    assert len(trial.ledger.starts()) == QUEUED
    assert seconds < 5


@pytest.mark.full
@pytest.mark.timeout(400)
def test_redis_away(
    stack: Stack, trial: Trial, servers: Servers, settings: Settings, record_property: Report
) -> None:
    """Ticks go on, the API answers in time, and what waited runs when Redis is back."""
    with Proxy(servers.redis.port) as proxy:
        stack.environment["REDIS_URL"] = trial.redis_url.replace(f":{servers.redis.port}/", f":{proxy.port}/")
        beat, worker = stack.beat(wait=False), stack.worker("-P", "threads", wait=False)
        api = stack.api()
        beat.wait_for_output("beat: Starting", BOOT)
        worker.wait_for_output(" ready.", BOOT)
        promised: set[str] = set()
        with client_of(api.url, settings) as client:
            trial.tick()
            eventually(trial.ledger.ends, 20)
            for mode in (Mode.REFUSE, Mode.BLACKHOLE):
                proxy.set(mode)
                latencies = _use(client, OUTAGE, promised)
                assert {run.schedule for run in trial.runs() if run.state == "queued"} == set(trial.schedules)
                proxy.set(Mode.PASS)
                record_property(f"{mode}: API p99, s", latencies[int(len(latencies) * 0.99)])
                record_property(f"{mode}: requests", len(latencies))
                recovery = _first_start(trial)
                record_property(f"{mode}: recovery, s", recovery)
                assert recovery < 5
                assert latencies[int(len(latencies) * 0.99)] < 1.0
        trial.stop()
        runs = trial.settle(180)
    record_property("latest tick, s", trial.lateness())
    assert trial.verdict(runs, 3.0) == []
    assert {run.state for run in (*runs, *trial.kept(promised, 90))} == {"succeeded"}
    assert promised


def test_postgresql_restarted_immediately(
    stack: Stack, trial: Trial, servers: Servers, record_property: Report
) -> None:
    """Again and again, like a crash each time, right after something was stored."""
    beats = [stack.beat(wait=False) for _ in range(2)]
    worker = stack.worker(wait=False)
    for beat in beats:
        beat.wait_for_output("beat: Starting", BOOT)
    worker.wait_for_output(" ready.", BOOT)
    trial.tick()
    eventually(trial.ledger.ends, 20)
    slowest = 0.0
    for _ in range(5 if FULL else 3):
        eventually(partial(_stored, trial), 10, "one more schedule")
        servers.stop("postgres", signal.SIGQUIT)
        servers.start_postgres()
        slowest = max(slowest, trial.recovery(20))
    record_property("slowest recovery, s", slowest)
    before = trial.runs()
    trial.stop()
    runs = trial.settle()
    assert trial.verdict(runs) == []
    assert {run.state for run in runs} == {"succeeded"}
    assert {run.id for run in before} <= {run.id for run in runs}
    assert slowest < 10


@pytest.mark.full
@pytest.mark.timeout(300)
def test_postgresql_away_with_fifty_running(
    stack: Stack, trial: Trial, servers: Servers, record_property: Report
) -> None:
    """For 60 s, twice a lease of the product: nobody is called lost."""
    beat = stack.beat(wait=False)
    stack.worker("-P", "threads", "-c", "50")
    beat.wait_for_output("beat: Starting", BOOT)
    trial.create(soon(3), "support.block", count=50, task_args=[OUTAGE + 20])
    eventually(lambda: len(trial.ledger.starts()) == 50, 30, "all to start")
    servers.stop("postgres", signal.SIGINT)
    try:
        holds_throughout(lambda: len(trial.ledger.ends()) < 50, OUTAGE)
    finally:
        servers.start_postgres()
    began = time.monotonic()
    runs = trial.settle(OUTAGE + 90)
    record_property("all recorded, s", time.monotonic() - began)
    assert trial.verdict(runs) == []
    assert [(run.state, run.attempt) for run in runs] == [("succeeded", 1)] * 50


def _stored(trial: Trial) -> bool:
    """Make one more schedule; False where that met a connection that the last crash has broken."""
    try:
        trial.tick(1)
    except DBAPIError:
        return False
    return True


def _use(client: httpx.Client, seconds: float, promised: set[str]) -> list[float]:
    """Enqueue and read for that long; answers the sorted latencies, and what was ``promised``."""
    latencies, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        for ask in (_enqueue, _read):
            began = time.monotonic()
            answer = ask(client)
            latencies.append(time.monotonic() - began)
            assert answer.status_code < 400, answer.text
            if answer.status_code == 202:
                promised.add(answer.json()["id"])
    return sorted(latencies)


def _first_start(trial: Trial) -> float:
    """Seconds from now until a run starts, of those that have waited."""
    began, started = time.monotonic(), len(trial.ledger.starts())
    eventually(lambda: len(trial.ledger.starts()) > started, 20, "a run to start after the fault")
    return time.monotonic() - began


def _enqueue(client: httpx.Client) -> httpx.Response:
    return client.post("/api/v1/tasks/support.instant/runs", json={"args": [1]})


def _read(client: httpx.Client) -> httpx.Response:
    return client.get("/api/v1/runs")
