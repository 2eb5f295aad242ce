"""Lines and progress of runs: stored by a worker, read in pages, followed live."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest

from app.modules.auth import service
from app.settings import Settings
from support.api import ADMIN, serving
from support.ledger import Ledger
from support.polling import eventually, eventually_async
from support.processes import Process, Processes
from support.servers import Database, Servers
from support.stack import Api, Stack, stack_environment

RUNS = "/api/v1/runs"
TALKATIVE = {"UPBEAT_TASK_MODULES": "support.tasks,support.talkative"}


@pytest.fixture(scope="module")
def shared(
    servers: Servers, database: Database, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """A stack for the whole module."""
    folder = tmp_path_factory.mktemp("logs")
    processes = Processes(folder)
    environment = stack_environment(servers.postgres.url, database.name, redis_url, folder / "ledger")
    yield Stack(processes, environment | TALKATIVE, Ledger(folder / "ledger"))
    processes.end()


@pytest.fixture(scope="module")
def worker(shared: Stack) -> Process:
    limits = {"UPBEAT_LOG_RUN_LINES": "50", "UPBEAT_LOG_RUN_BYTES": "20000"}
    return shared.worker("-P", "threads", "-c", "8", env=limits)


@pytest.fixture(scope="module")
def api(shared: Stack, worker: Process) -> Api:
    return shared.api()


@pytest.fixture(scope="module")
async def client(api: Api, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(settings) as app:
        await service.ensure_admin(app.state.services.sessions, *ADMIN)
    async with httpx.AsyncClient(base_url=api.url, timeout=20) as connection:
        answer = await connection.post(
            "/api/v1/auth/login", data={"username": ADMIN[0], "password": ADMIN[1]}
        )
        connection.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        yield connection


async def submit(client: httpx.AsyncClient, task: str, **body: Any) -> str:
    answer = await client.post(f"/api/v1/tasks/{task}/runs", json=body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def ended(client: httpx.AsyncClient, run: str) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        found: dict[str, Any] = (await client.get(f"{RUNS}/{run}")).json()
        return found if found["finished_at"] else None

    found = await eventually_async(look, 20)
    assert found is not None
    return found


async def lines(client: httpx.AsyncClient, run: str, **query: Any) -> list[dict[str, Any]]:
    answer = await client.get(f"{RUNS}/{run}/logs", params=query)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def test_whatever_a_run_says_is_stored_with_it(client: httpx.AsyncClient) -> None:
    run = await submit(client, "talkative.everything")
    assert (await ended(client, run))["state"] == "succeeded"
    # All of it is there as soon as the run has ended.
    found = await lines(client, run)
    traceback = found.pop(8)
    assert [(each["level"], each["logger"], each["message"]) for each in found] == [
        ("info", "talkative", "a record, password=***"),
        ("info", "stdout", "printed"),
        ("info", "stdout", "in two parts"),
        ("warning", "stderr", "to stderr"),
        ("info", "talkative", "from a coroutine"),
        ("warning", "talkative", "from a thread of the loop"),
        ("warning", "talkative", "from the executor"),
        ("warning", "talkative", "from a plain thread"),
        ("info", "stdout", "no newline at the end"),
    ]
    assert traceback["message"].startswith("with a traceback\nTraceback (most recent call last):\n")
    assert traceback["message"].endswith("ValueError: invalid literal for int() with base 10: 'inner'")
    progress = (await client.get(f"{RUNS}/{run}")).json()["progress"]
    assert progress.pop("at")
    assert progress == {"attempt": 1, "done": 3, "total": 7, "message": "on the way"}


async def test_pages_and_levels(client: httpx.AsyncClient) -> None:
    run = await submit(client, "talkative.everything")
    await ended(client, run)
    grave = await lines(client, run, level="error")
    assert [each["message"].split("\n")[0] for each in grave] == ["with a traceback"]
    seen, cursor = [], None
    while True:
        query = {"limit": 4} | ({"cursor": cursor} if cursor else {})
        page = (await client.get(f"{RUNS}/{run}/logs", params=query)).json()
        seen += [each["number"] for each in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == list(range(1, 11))


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"{RUNS}/0199d0c2-f2f0-7a51-9c66-3f0c5f3ad4b1/logs", 404),
        (f"{RUNS}/0199d0c2-f2f0-7a51-9c66-3f0c5f3ad4b1/logs/stream", 404),
        (f"{RUNS}/0199d0c2-f2f0-7a51-9c66-3f0c5f3ad4b1/logs?level=loud", 422),
        (f"{RUNS}/0199d0c2-f2f0-7a51-9c66-3f0c5f3ad4b1/logs?cursor=MTIz", 422),
    ],
)
async def test_bad_questions(client: httpx.AsyncClient, path: str, status: int) -> None:
    assert (await client.get(path)).status_code == status
    bare = await client.get(path, headers={"Authorization": ""})
    assert bare.status_code == 401


async def test_long_logs_are_cut_and_say_so(client: httpx.AsyncClient) -> None:
    many = await submit(client, "talkative.chatter", args=[1000])
    wide = await submit(client, "talkative.chatter", args=[30, 9000])
    cut = "The rest of this attempt's log is left out"
    await ended(client, many)
    found = await lines(client, many, limit=200)
    assert len(found) == 50
    assert found[-1]["message"].startswith(cut)
    await ended(client, wide)
    found = await lines(client, wide, limit=200)
    assert [len(each["message"]) < 8300 for each in found] == [True] * len(found)
    assert len(found) == 3
    assert found[-1]["message"].startswith(cut)


async def test_each_attempt_has_its_lines(client: httpx.AsyncClient, shared: Stack) -> None:
    beat = shared.beat()
    run = await submit(client, "talkative.fails_once", options={"retry_base": 0.1})
    assert (await ended(client, run))["attempt"] == 2
    found = [(each["attempt"], each["number"], each["message"]) for each in await lines(client, run)]
    assert found == [(1, 1, "attempt 1"), (1, 2, "ValueError: not yet"), (2, 1, "attempt 2")]
    beat.terminate()


class Stream:
    """A client of the stream, which reads in the background."""

    def __init__(self, client: httpx.AsyncClient, run: str, after: str | None = None) -> None:
        self.events: list[tuple[str | None, str, Any]] = []
        headers = {} if after is None else {"Last-Event-ID": after}
        self.task = asyncio.create_task(self._read(client, f"{RUNS}/{run}/logs/stream", headers))

    async def _read(self, client: httpx.AsyncClient, path: str, headers: dict[str, str]) -> None:
        async with client.stream("GET", path, headers=headers) as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
            event: dict[str, str] = {}
            async for line in answer.aiter_lines():
                name, _, value = line.partition(": ")
                if line:
                    event[name] = value
                elif "event" in event:
                    self.events.append((event.get("id"), event["event"], json.loads(event["data"])))
                    event = {}

    def said(self) -> list[str]:
        return [data["message"] for _, kind, data in self.events if kind == "log"]


async def test_a_run_is_followed_live(client: httpx.AsyncClient, database: Database, tmp_path: Path) -> None:
    run = await submit(client, "talkative.slowly", args=[str(tmp_path)])
    streams = [Stream(client, run) for _ in range(20)]

    async def heard(count: int) -> bool:
        return all(len(stream.said()) == count for stream in streams)

    (tmp_path / "1").touch()
    await eventually_async(lambda: heard(1), 10)
    with psycopg.connect(database.url) as connection:
        listening = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'upbeat-api-listen'"
        ).fetchone()
    assert listening == (1,)
    (tmp_path / "2").touch()
    await eventually_async(lambda: heard(2), 10)
    (tmp_path / "end").touch()
    await asyncio.wait_for(asyncio.gather(*(stream.task for stream in streams)), 10)
    for stream in streams:
        kinds = [kind for _, kind, _ in stream.events]
        assert stream.said() == ["saw 1", "saw 2", "saw 3"]
        assert [each for each, kind, _ in stream.events if kind == "log"] == ["1-1", "1-2", "1-3"]
        assert kinds[-1] == "end"
        assert stream.events[-1][2] == {"state": "succeeded"}
        assert "progress" in kinds
        assert {"state": "running", "attempt": 1} in [data for _, kind, data in stream.events]
    late = Stream(client, run, after="1-2")
    await asyncio.wait_for(late.task, 10)
    assert late.said() == ["saw 3"]
    assert late.events[-1][1] == "end"


async def test_a_stream_does_not_hold_up_the_services_end(
    client: httpx.AsyncClient, shared: Stack, tmp_path: Path
) -> None:
    other = shared.api("--timeout-graceful-shutdown", "30")
    run = await submit(client, "talkative.slowly", args=[str(tmp_path)])
    headers = {"Authorization": client.headers["Authorization"]}
    async with httpx.AsyncClient(base_url=other.url, headers=headers, timeout=20) as connection:
        stream = Stream(connection, run)
        (tmp_path / "1").touch()

        async def heard() -> bool:
            return stream.said() == ["saw 1"]

        await eventually_async(heard, 10)
        other.process.signal_main(signal.SIGTERM)
        await asyncio.wait_for(stream.task, 10)
    await asyncio.to_thread(other.process.wait, 10)
    (tmp_path / "end").touch()


async def test_a_database_that_is_away_neither_holds_up_nor_fails_a_run(
    client: httpx.AsyncClient, shared: Stack, servers: Servers, tmp_path: Path
) -> None:
    run = await submit(client, "talkative.slowly", args=[str(tmp_path)])

    async def running() -> bool:
        return bool((await client.get(f"{RUNS}/{run}")).json()["state"] == "running")

    await eventually_async(running)
    servers.stop("postgres")
    try:
        for number in range(30):
            (tmp_path / str(number)).touch()
        output = shared.processes.started[0]
        # The body goes on: it writes its lines to the worker's own log while nothing can be stored.
        eventually(lambda: "saw 30" in output.output())
        (tmp_path / "end").touch()
    finally:
        servers.start_postgres()
    found = await ended(client, run)
    assert found["state"] == "succeeded", found
    said = [each["message"] for each in await lines(client, run)]
    assert said == [f"saw {number}" for number in range(1, 32)]
    assert UUID(run)
