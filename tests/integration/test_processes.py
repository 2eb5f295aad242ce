"""Worker, beat and API started by hand, with the options and signals of stock Celery and uvicorn."""

import http.client
import json
import signal
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from app.settings import Settings
from support import checker
from support.calling import calling
from support.polling import eventually
from support.processes import Process
from support.servers import Database
from support.stack import BOOT, Stack
from support.tasks import block, instant, nap

STOP = 20.0
ASKED = ("ping", "active", "stats", "registered", "active_queues", "scheduled", "reserved")
# Celery's own command, loaded once.
ASK = """
import sys
from celery.bin.celery import celery
for what in sys.argv[2:]:
    words = ["-A", "app.worker", "inspect", what, "--json", "-t", "20", "-d", sys.argv[1]]
    celery.main(words, prog_name="celery", standalone_mode=False)
"""


def answers(process: Process, worker: str) -> list[Any]:
    """What this worker answered to each question; fails when another did too."""
    assert process.wait(40) == 0, process.output()
    replies = [json.loads(line) for line in process.output().splitlines() if line.startswith("{")]
    assert {name for each in replies for name in each} == {worker}
    return [each[worker] for each in replies]


def test_a_worker_tells_stock_celery_what_it_does(stack: Stack, settings: Settings, tmp_path: Path) -> None:
    log, pid = tmp_path / "worker.log", tmp_path / "worker.pid"
    worker = stack.worker(
        *("--hostname", "asked@here", "--queues", "priority_high,celery", "--concurrency", "1", "-E"),
        *("--logfile", str(log), "--loglevel", "DEBUG", "--pidfile", str(pid), "-O", "fair"),
        wait=False,
    )
    eventually(lambda: log.exists() and "asked@here ready." in log.read_text(), BOOT, "the worker")
    assert int(pid.read_text()) == worker.pid
    with calling(settings):
        running = nap.apply_async((60.0,))
        eventually(stack.ledger.starts, 20, "the run to start")
        command = [sys.executable, "-c", ASK, "asked@here", *ASKED]
        asking = stack.processes.start("inspect", command, stack.environment)
        told = dict(zip(ASKED, answers(asking, "asked@here"), strict=True))
    assert told["ping"] == {"ok": "pong"}
    assert [(each["id"], each["name"]) for each in told["active"]] == [(running.id, "support.nap")]
    assert told["stats"]["pid"] == worker.pid
    assert told["stats"]["pool"]["max-concurrency"] == 1
    assert {"support.nap", "scheduled_task.test_task", "auth.cleanup_expired_sessions"} <= {
        line.split(" ")[0] for line in told["registered"]
    }
    assert [queue["name"] for queue in told["active_queues"]] == ["priority_high", "celery"]
    assert told["scheduled"] == told["reserved"] == []
    worker.kill()


def test_a_worker_that_is_asked_to_stop_finishes_what_it_runs(
    stack: Stack, settings: Settings, database: Database
) -> None:
    queues = {"prefork": "celery", "threads": "priority_low", "solo": "priority_high"}
    workers = [stack.worker("-P", pool, "-c", "2", "-Q", queue, wait=False) for pool, queue in queues.items()]
    for worker in workers:
        worker.wait_for_output(" ready.", BOOT)
    with calling(settings):
        running = [nap.apply_async((1.5,), queue=queue).id for queue in queues.values()]
        running += [block.apply_async((1.5,), queue=queues[pool]).id for pool in ("prefork", "threads")]
        eventually(lambda: len(stack.ledger.starts()) == len(running), 20, "all runs to start")
        for worker in workers:
            worker.terminate()
        left = [instant.apply_async((), queue=queue).id for queue in queues.values()]
    assert [worker.wait(STOP) for worker in workers] == [0, 0, 0]
    states = {run.id: run.state for run in checker.read_runs(database.url)}
    assert [states[run_id] for run_id in running] == ["succeeded"] * len(running)
    assert {states[run_id] for run_id in left} == {"queued"}, "nothing new is taken"
    query = "SELECT name FROM celery_workers WHERE split_part(name, '@', 1) = ANY(%s) AND stopped_at IS NULL"
    with psycopg.connect(database.url) as connection:
        assert connection.execute(query, ([worker.name for worker in workers],)).fetchall() == []
    for worker in workers:
        assert worker.members() == []
        assert "Traceback" not in worker.output()


def test_a_beat_stops_at_once_and_gives_back_its_file(stack: Stack, tmp_path: Path) -> None:
    log, pid = tmp_path / "beat.log", tmp_path / "beat.pid"
    beat = stack.beat(
        *("--logfile", str(log), "--loglevel", "INFO", "--pidfile", str(pid)),
        *("--schedule", str(tmp_path / "unused"), "--max-interval", "60"),
        wait=False,
        env={"UPBEAT_BEAT_MAX_SLEEP": "60"},
    )
    eventually(lambda: log.exists() and "beat: Starting" in log.read_text(), BOOT, "the beat")
    assert int(pid.read_text()) == beat.pid
    beat.terminate()
    assert beat.wait() == 0, "long before its sleep ends"
    assert not pid.exists()
    assert list(tmp_path.glob("unused*")) == []
    assert "Traceback" not in beat.output() + log.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_api_that_is_asked_to_stop_answers_what_it_was_asked(
    stack: Stack, settings: Settings, number: signal.Signals
) -> None:
    api = stack.api()
    body = b"username=nobody&password=wrong"
    connection = http.client.HTTPConnection(urlsplit(api.url).netloc, timeout=20)
    connection.putrequest("POST", "/api/v1/auth/login")
    connection.putheader("Content-Type", "application/x-www-form-urlencoded")
    connection.putheader("Content-Length", str(len(body)))
    connection.putheader("Expect", "100-continue")
    connection.endheaders()
    assert b"100 Continue" in connection.sock.recv(1024), "the request is being handled"
    api.process.signal_main(number)
    api.process.wait_for_output("Waiting for")
    connection.send(body)
    assert connection.getresponse().status == 401
    connection.close()
    assert api.process.wait(STOP) in (0, -number)
    assert "Traceback" not in api.process.output()
