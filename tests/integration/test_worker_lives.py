"""How workers and beats live and end: their rows, the bounded drain, the watchdog, children that are replaced."""

import signal
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from app.settings import Settings
from app.worker import celery_app
from app.worker.watchdog import EXIT_STATUS
from support.api import connected, serving
from support.calling import calling, sent
from support.freezing import BEAT_VARIABLE
from support.polling import eventually
from support.servers import Database, Servers
from support.stack import Stack
from support.tasks import block, instant, nap

pytestmark = pytest.mark.usefixtures("sync")
FREEZING = {"UPBEAT_TASK_MODULES": "support.tasks,support.freezing"}


def rows(database: Database, query: str, *values: object) -> list[dict[str, Any]]:
    with psycopg.connect(database.url, row_factory=dict_row) as connection:
        return connection.execute(query, values).fetchall()


def run(database: Database, run_id: object) -> dict[str, Any]:
    (found,) = rows(database, "SELECT * FROM celery_task_runs WHERE id = %s", str(run_id))
    return found


async def test_workers_and_beats_are_listed_with_their_signs_of_life(
    stack: Stack, settings: Settings, database: Database
) -> None:
    worker, beat = stack.worker("-P", "threads", "-c", "3", "-Q", "system,celery", wait=False), stack.beat()
    worker.wait_for_output(" ready.", 40)
    async with serving(settings) as app, connected(app) as client:

        async def workers(**query: str) -> list[dict[str, Any]]:
            items: list[dict[str, Any]] = (await client.get("/api/v1/workers", params=query)).json()["items"]
            return items

        eventually(lambda: rows(database, "SELECT 1 FROM celery_workers WHERE pool IS NOT NULL"))
        with calling(settings):
            sent(3, task=nap.name)
        eventually(stack.ledger.starts)
        (found,) = await workers(alive="true")
        assert found["pid"] == worker.pid
        assert found["name"].startswith("worker")
        assert (found["state"], found["alive"], found["pool"], found["concurrency"]) == (
            "ready",
            True,
            "threads",
            3,
        )
        assert sorted(found["queues"]) == ["celery", "system"]
        assert found["active_runs"] == 1
        assert found["version"]
        assert 0 < found["lease_left"] <= 30
        assert (await client.get(f"/api/v1/workers/{found['id']}")).json()["id"] == found["id"]
        (one,) = (await client.get("/api/v1/beats")).json()["items"]
        assert one["pid"] == beat.pid
        assert 0 <= one["age"] < 10
        assert (await client.get(f"/api/v1/beats/{one['id']}")).json()["version"] == one["version"]
        worker.terminate()
        eventually(lambda: rows(database, "SELECT 1 FROM celery_workers WHERE state = 'draining'"))
        assert worker.wait() == 0
        (found,) = await workers()
        assert (found["state"], found["alive"], found["active_runs"]) == ("stopped", False, 0)
        assert await workers(alive="true") == []
        for path in ("workers", "beats"):
            missing = await client.get(f"/api/v1/{path}/0199d0c2-f2f0-7a51-9c66-3f0c5f3ad4b1")
            assert missing.status_code == 404
    assert [entry.note for entry in stack.ledger.ends()] == [None], "the run was let end"


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_drain_is_bounded_and_accounts_for_what_is_left(
    stack: Stack, settings: Settings, database: Database, pool: str
) -> None:
    worker = stack.worker("-P", pool, env={"UPBEAT_WORKER_DRAIN_TIMEOUT": "0.5"})
    with calling(settings):
        again, once = sent(60, task=block.name, on_worker_lost="retry"), sent(60, task=block.name)
    eventually(lambda: len(stack.ledger.starts()) == 2)
    worker.terminate()
    assert worker.wait(15) == 0
    assert worker.members() == []
    lost, queued = run(database, once), run(database, again)
    assert (lost["state"], lost["reason"]) == ("lost", "worker_lost")
    assert "asked to stop" in lost["error"]["message"]
    assert (queued["state"], queued["attempt"]) == ("queued", 2)
    if pool == "threads":
        assert lost["finished_at"] < queued["due_at"], "it ran until the process ended"
    assert stack.ledger.ends() == []


def test_a_main_loop_that_hangs_ends_its_worker(stack: Stack, settings: Settings, database: Database) -> None:
    worker = stack.worker(env=FREEZING | {"UPBEAT_WORKER_WATCHDOG": "1.5"})
    with calling(settings):
        run_id = sent(60, task=block.name)
        eventually(stack.ledger.starts)
        assert worker.alive
        # A broadcast reaches whoever listens already: it is repeated, with half a second for the answer.
        eventually(
            lambda: not celery_app.control.broadcast("freeze", reply=True, timeout=0.5) and not worker.alive,
            30,
        )
        assert worker.wait() == EXIT_STATUS
    assert "has not turned" in worker.output()
    assert worker.members() == []
    assert run(database, run_id)["state"] == "lost"


def test_an_outage_of_the_broker_is_not_a_loop_that_hangs(
    stack: Stack, settings: Settings, servers: Servers
) -> None:
    worker = stack.worker(env={"UPBEAT_WORKER_WATCHDOG": "3"})
    servers.stop("redis", signal.SIGKILL)
    try:
        eventually(lambda: worker.output().count("Cannot connect to redis") >= 5, 20)
        assert worker.alive
    finally:
        servers.start_redis()
    with calling(settings):
        sent(task=instant.name)
    eventually(stack.ledger.ends, 20)
    assert worker.alive


def test_a_beat_that_hangs_ends(stack: Stack) -> None:
    beat = stack.beat(env=FREEZING | {"UPBEAT_WORKER_WATCHDOG": "1", BEAT_VARIABLE: "1"}, wait=False)
    assert beat.wait(30) == EXIT_STATUS
    assert "has not turned" in beat.output()


@pytest.mark.parametrize(
    ("options", "count"), [(("--max-tasks-per-child", "4"), 40), (("--max-memory-per-child", "1"), 4)]
)
def test_children_that_are_replaced_leave_no_message_behind(
    stack: Stack, settings: Settings, database: Database, options: tuple[str, ...], count: int
) -> None:
    with calling(settings):
        todo = [sent(number, task=instant.name) for number in range(count)]
    worker = stack.worker(*options)
    eventually(lambda: len(stack.ledger.ends()) == count, 30)
    eventually(
        lambda: (
            not rows(
                database, "SELECT 1 FROM celery_task_runs WHERE state <> 'succeeded' AND id = ANY(%s)", todo
            )
        )
    )
    assert len({entry.pid for entry in stack.ledger.starts()}) >= count / 4 / 2
    assert worker.alive
