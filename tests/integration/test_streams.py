"""Live streams of runs, scheduled tasks and queues, over HTTP, of a real service with a real worker and beat."""

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import psycopg
import pytest
from fastapi import FastAPI

from app.api import feed as feeds
from app.modules.auth import service
from app.scheduling.ids import EPOCH
from app.settings import Settings
from support.api import ADMIN, serving
from support.polling import eventually_async
from support.proxy import Mode, Proxy
from support.servers import Database, Servers
from support.stack import Api, Stack
from upbeat_sdk import AsyncUpbeat

RUNS, SCHEDULES, QUEUES = (f"/api/v1/{name}/stream" for name in ("runs", "scheduled-tasks", "queues"))
TASK = "scheduled_task.test_task"


@pytest.fixture(scope="module")
def api(shared_stack: Stack) -> Api:
    shared_stack.worker("-P", "threads", "-c", "4")
    shared_stack.beat()
    return shared_stack.api()


@pytest.fixture(scope="module")
async def client(api: Api, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(settings) as app:
        await service.ensure_admin(app.state.services.sessions, *ADMIN)
    async with logged_in(api) as connection:
        yield connection


def logged_in(api: Api, username: str = ADMIN[0], token: str | None = None) -> httpx.AsyncClient:
    if token is None:
        with httpx.Client(base_url=api.url, timeout=20) as connection:
            form = {"username": username, "password": ADMIN[1]}
            token = connection.post("/api/v1/auth/login", data=form).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    limits = httpx.Limits(max_connections=200)
    return httpx.AsyncClient(base_url=api.url, timeout=20, headers=headers, limits=limits)


class Stream:
    """A client of a stream, which reads in the background."""

    def __init__(self, client: httpx.AsyncClient, path: str, after: str | None = None, **query: Any) -> None:
        self.events: list[tuple[str, Any]] = []
        self.ids: list[str] = []
        headers = {} if after is None else {"Last-Event-ID": after}
        self.task = asyncio.create_task(self._read(client, path, headers, query))

    async def _read(
        self, client: httpx.AsyncClient, path: str, headers: dict[str, str], query: dict[str, Any]
    ) -> None:
        async with client.stream("GET", path, headers=headers, params=query) as answer:
            assert answer.status_code == 200, await answer.aread()
            assert answer.headers["content-type"].startswith("text/event-stream")
            event: dict[str, str] = {}
            async for line in answer.aiter_lines():
                name, _, value = line.partition(": ")
                if line:
                    event[name] = value
                    continue
                if "event" in event:
                    self.ids += [event["id"]] if "id" in event else []
                    self.events.append((event["event"], json.loads(event["data"])))
                event = {}

    @property
    def id(self) -> str | None:
        return self.ids[-1] if self.ids else None

    def of(self, kind: str) -> list[Any]:
        return [data for name, data in self.events if name == kind]

    async def has(self, kind: str, number: int = 1) -> list[Any]:
        async def enough() -> bool:
            if self.task.done():
                self.task.result()
            return len(self.of(kind)) >= number

        await eventually_async(enough, 15, f"{number} {kind} among {self.events}")
        return self.of(kind)

    async def until(self, run: str, state: str) -> list[str]:
        """The states that were told of a run, when it is in this one."""

        async def there() -> list[str] | None:
            states = [each["state"] for each in self.of("run") if each["id"] == run]
            return states if states and states[-1] == state else None

        found = await eventually_async(there, 15, f"{run} {state} among {self.events}")
        assert found is not None
        return found

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.wait({self.task})


async def ready(client: httpx.AsyncClient, path: str, after: str | None = None, **query: Any) -> Stream:
    stream = Stream(client, path, after, **query)
    await stream.has("ready")
    return stream


async def submit(client: httpx.AsyncClient, **body: Any) -> str:
    answer = await client.post(f"/api/v1/tasks/{TASK}/runs", json=body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def test_runs_are_told_as_they_change(client: httpx.AsyncClient) -> None:
    everything = await ready(client, RUNS)
    failed = await ready(client, RUNS, state=["failed", "cancelled"])
    low = await ready(client, RUNS, queue="priority_low", task=TASK)
    slow = await submit(client, kwargs={"seconds": 1.0})
    later = await submit(client, countdown=3600, options={"queue": "priority_low"})
    assert await everything.until(slow, "succeeded") in (
        ["queued", "running", "succeeded"],
        ["running", "succeeded"],
    )
    await everything.until(later, "queued")
    await client.post(f"/api/v1/runs/{later}/cancel", json={})
    assert await everything.until(later, "cancelled") == ["queued", "cancelled"]
    assert await low.until(later, "cancelled") == ["queued", "cancelled"]
    (event,) = await failed.has("run")
    assert (event["id"], event["state"], event["reason"]) == (later, "cancelled", "cancelled_by_user")
    assert {each["id"] for each in low.of("run")} == {later}
    document = (await client.get("/openapi.json")).json()
    described = document["paths"][RUNS]["get"]["responses"]["200"]["content"]["text/event-stream"]
    assert described["x-event-data"]["run"] == {"$ref": "#/components/schemas/RunEvent"}
    assert set(event) == set(document["components"]["schemas"]["RunEvent"]["properties"])
    for stream in (everything, failed, low):
        await stream.close()


async def test_what_was_missed_is_told_after_a_reconnection(
    client: httpx.AsyncClient, database: Database
) -> None:
    before = await ready(client, RUNS)
    known = await submit(client)
    await before.until(known, "succeeded")
    place = before.id
    await before.close()
    missed = await submit(client)

    async def ended() -> bool:
        return bool((await client.get(f"/api/v1/runs/{missed}")).json()["finished_at"])

    await eventually_async(ended)
    after = await ready(client, RUNS, place)
    assert missed in {each["id"] for each in after.of("run")}
    assert [kind for kind, _ in after.events][-1] == "ready"
    assert after.id is not None
    assert place is not None
    assert int(after.id) > int(place)
    await after.close()


async def test_who_was_away_for_too_long_is_told_so(client: httpx.AsyncClient) -> None:
    long_ago = (datetime.now(UTC) - feeds.REPLAYED - timedelta(minutes=1) - EPOCH) // timedelta(
        microseconds=1
    )
    stream = await ready(client, RUNS, str(long_ago))
    assert [kind for kind, _ in stream.events] == ["reset", "ready"]
    assert stream.of("reset") == [{"reason": "too_old"}]
    await stream.close()


@pytest.mark.parametrize("given", ["x", "-1", "9" * 17, "1" * 30, "²"])
async def test_a_place_that_was_never_given(client: httpx.AsyncClient, given: str) -> None:
    answer = await client.get(RUNS, headers={b"Last-Event-ID": given.encode()})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "Last-Event-ID")


@pytest.mark.parametrize(
    "path", [f"{RUNS}?state=lazy", f"{RUNS}?colour=red", f"{SCHEDULES}?kind=x", f"{QUEUES}?queue=x"]
)
async def test_a_question_that_makes_no_sense(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code == 422
    assert (await client.get(path, headers={"Authorization": ""})).status_code == 401


async def test_schedules_are_told_with_their_ticks(client: httpx.AsyncClient) -> None:
    everything = await ready(client, SCHEDULES)
    fired = await ready(client, SCHEDULES, kind=["fired"])
    body = {
        "task_name": "s",
        "task_path": TASK,
        "schedule": {"type": "interval", "every": 1, "unit": "seconds"},
    }
    created = (await client.post("/api/v1/scheduled-tasks", json=body)).json()
    one = f"/api/v1/scheduled-tasks/{created['id']}"
    ticks = await fired.has("fired", 2)
    assert {each["schedule_id"] for each in ticks} == {created["id"]}
    assert ticks[0]["run"]["scheduled_for"] != ticks[1]["run"]["scheduled_for"]
    await client.patch(one, json={"description": "d"}, headers={"If-Match": "*"})
    await client.post(f"{one}/pause", json={"note": "enough"})
    await client.delete(one, headers={"If-Match": "*"})
    await everything.has("deleted")
    kinds = [kind for kind, _ in everything.events if kind not in ("fired", "ready")]
    assert kinds == ["created", "changed", "paused", "deleted"]
    assert everything.of("paused")[0] == {
        "schedule_id": created["id"],
        "version": 3,
        "action": "pause",
        "author": "admin",
        "changed_at": everything.of("paused")[0]["changed_at"],
        "task_name": "s",
        "task": TASK,
        "state": "paused",
    }
    assert {kind for kind, _ in fired.events} == {"ready", "fired"}
    for stream in (everything, fired):
        await stream.close()


async def test_queues_are_told_with_their_depth(client: httpx.AsyncClient) -> None:
    first = await submit(client, countdown=3600, options={"queue": "priority_high"})
    stream = await ready(client, QUEUES, queue="priority_high")
    (event,) = stream.of("queue")
    assert (event["queue"], event["delayed"], event["queued"], event["oldest"]) == (
        "priority_high",
        1,
        0,
        None,
    )
    second = await submit(client, countdown=3600, options={"queue": "priority_high"})
    assert (await stream.has("queue", 2))[-1]["delayed"] == 2
    for run in (first, second):
        await client.post(f"/api/v1/runs/{run}/cancel", json={})

    async def empty() -> bool:
        return bool(stream.of("queue")[-1]["delayed"] == 0)

    await eventually_async(empty)
    await stream.close()


async def test_many_clients_are_one_reader_of_the_database(
    client: httpx.AsyncClient, database: Database
) -> None:
    listening = [await ready(client, RUNS) for _ in range(50)]
    run = await submit(client)
    for stream in listening:
        await stream.until(run, "succeeded")
    with psycopg.connect(database.url) as connection:
        used = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'upbeat-api' AND query LIKE '%finished_at >%'"
        ).fetchone()
    # A connection of the pool that was used last for a look; never one for each client.
    assert used is not None
    assert used[0] <= 3
    for stream in listening:
        await stream.close()


@pytest.fixture(scope="module")
def cable(servers: Servers) -> Iterator[Proxy]:
    with Proxy(servers.postgres.port) as proxy:
        yield proxy


async def test_streams_outlast_the_database_and_end_with_the_service_and_go_on_with_the_next(
    api: Api, client: httpx.AsyncClient, shared_stack: Stack, servers: Servers, cable: Proxy
) -> None:
    direct = shared_stack.environment["DATABASE_URL"]
    through = direct.replace(f":{servers.postgres.port}/", f":{cable.port}/")
    other = shared_stack.api("--timeout-graceful-shutdown", "30", env={"DATABASE_URL": through})
    place, heard = urlsplit(other.url), set[str]()

    async def listen() -> None:
        async with AsyncUpbeat(other.url, username=ADMIN[0], password=ADMIN[1]) as sdk:
            async for event in sdk.runs.stream().resumed():
                heard.add(event.json().get("id", event.name))

    listening = asyncio.create_task(listen())
    await eventually_async(lambda: _holds("ready" in heard), 15)
    async with logged_in(other) as connection:
        token = connection.headers["Authorization"]
        with socket.create_connection((place.hostname or "", place.port or 0)) as unread:
            request = f"GET {RUNS} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n\r\n"
            unread.sendall(request.encode())
            assert unread.recv(12) == b"HTTP/1.1 200"
            opened = [await ready(connection, path) for path in (RUNS, SCHEDULES, QUEUES)]
            waiting = await submit(client, countdown=3600)
            log = Stream(connection, f"/api/v1/runs/{waiting}/logs/stream")
            await log.has("state")
            await _lose_the_database(client, connection, cable, opened[0])
            assert not log.task.done()
            other.process.signal_main(signal.SIGTERM)
            await asyncio.wait_for(asyncio.gather(*(stream.task for stream in (*opened, log))), 10)
            assert all(stream.events[-1] == ("end", {"reason": "closing"}) for stream in opened)
            await asyncio.to_thread(other.process.wait, 10)
    await client.post(f"/api/v1/runs/{waiting}/cancel", json={})
    missed = await submit(client)
    command = [str(part) for part in other.process.popen.args]  # type: ignore[union-attr]
    shared_stack.processes.start("again", command, shared_stack.environment)
    await eventually_async(lambda: _holds(missed in heard or listening.done()), 30)
    assert missed in heard
    listening.cancel()
    await asyncio.wait({listening})


async def _lose_the_database(
    client: httpx.AsyncClient, cut_off: httpx.AsyncClient, cable: Proxy, stream: Stream
) -> None:
    """Cut it off from the streams' process alone: what happens meanwhile is told when it is back, in its order."""
    cable.set(Mode.REFUSE)

    async def away() -> bool:
        return (await cut_off.get("/api/v1/runs")).status_code == 503

    await eventually_async(away, 15)
    meanwhile = [await submit(client) for _ in range(5)]

    async def over() -> bool:
        states = [(await client.get(f"/api/v1/runs/{run}")).json()["state"] for run in meanwhile]
        return set(states) == {"succeeded"}

    await eventually_async(over, 15)
    assert not {run["id"] for run in stream.of("run")} & set(meanwhile)
    cable.set(Mode.PASS)
    for run in meanwhile:
        await stream.until(run, "succeeded")
    after = await submit(client)
    await stream.until(after, "succeeded")
    told = [(run["id"], run["state"], run["attempt"]) for run in stream.of("run")]
    assert len(told) == len(set(told)), "nothing twice"
    # The first change may have been looked for before the stream was ready.
    assert stream.ids[1:] == sorted(set(stream.ids[1:]), key=int), "no place twice, and none before another"
    assert not stream.of("reset")
    assert not stream.of("end")


async def _holds(value: bool) -> bool:  # noqa: FBT001
    return value


@pytest.fixture(scope="module")
async def app(settings: Settings) -> AsyncIterator[FastAPI]:
    async with serving(settings) as application:
        yield application


async def test_streams_end_with_what_opened_them(
    app: FastAPI, api: Api, client: httpx.AsyncClient, database: Database
) -> None:
    """Each stream that there is, by each way in which a credential ends; another process than the streams' ends it."""
    document = (await client.get("/openapi.json")).json()["paths"]
    paths = [path for path, item in document.items() if "text/event-stream" in json.dumps(item.get("get"))]
    assert len(paths) == 4
    run = await submit(client, countdown=3600)
    sessions = app.state.services.sessions
    made = {
        name: await service.create_user(sessions, username=name, password=ADMIN[1], role="operator")
        for name in ("logged out", "away", "deleted", "with keys")
    }
    connections = {name: logged_in(api, name) for name in made}
    keys = {}
    for name in ("revoked", "expired"):
        body = {"name": name, "scopes": ["read"]}
        keys[name] = (await connections["with keys"].post("/api/v1/api-keys", json=body)).json()
        connections[name] = logged_in(api, token=keys[name]["secret"])
    streams_of = {
        name: [Stream(connection, path.replace("{run_id}", run)) for path in paths]
        for name, connection in connections.items()
    }
    for opened in streams_of.values():
        for stream in opened:
            await eventually_async(lambda s=stream: _holds(bool(s.events)), 15)  # type: ignore[misc]
    await service.logout_everywhere(sessions, made["logged out"].id)
    await service.change_user(sessions, made["away"].id, service.UserChange(active=False))
    await service.delete_user(sessions, made["deleted"].id)
    await service.revoke_key(sessions, UUID(keys["revoked"]["id"]), owner=None)
    with psycopg.connect(database.url) as connection:
        connection.execute("UPDATE api_keys SET expires_at = now() WHERE id = %s", [keys["expired"]["id"]])
    ended = [stream for name, opened in streams_of.items() if name != "with keys" for stream in opened]
    await asyncio.wait_for(asyncio.gather(*(stream.task for stream in ended)), 15)
    last = [stream.events[-1] for stream in ended]
    assert last.count(("end", {"reason": "unauthorized"})) == 3 * 5
    assert all(not stream.task.done() for stream in streams_of["with keys"])
    for stream in streams_of["with keys"]:
        await stream.close()
    for each in connections.values():
        await each.aclose()
    await client.post(f"/api/v1/runs/{run}/cancel", json={})
