"""Queues and workers over HTTP: pause, resume, purge, drain and resize, with real workers in both pools."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from app.scheduling import purging
from support.ledger import Ledger
from support.polling import eventually_async
from support.processes import Process, Processes
from support.servers import Database, Servers
from support.stack import Stack, stack_environment
from support.threads import none_free

QUEUES = "/api/v1/queues"
RUNS = "/api/v1/runs"
WORKERS = "/api/v1/workers"
TASK = "scheduled_task.test_task"


@pytest.fixture(scope="module")
def shared(
    servers: Servers, database: Database, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """A stack for the whole module."""
    folder = tmp_path_factory.mktemp("queues")
    processes = Processes(folder)
    environment = stack_environment(servers.postgres.url, database.name, redis_url, folder / "ledger")
    yield Stack(processes, environment, Ledger(folder / "ledger"))
    processes.end()


@pytest.fixture(scope="module")
def threads(shared: Stack) -> Process:
    shared.beat()
    return shared.worker("-P", "threads", "-c", "1", "-Q", "celery,priority_low")


async def submit(client: httpx.AsyncClient, queue: str = "celery", **kwargs: Any) -> str:
    body = {"kwargs": kwargs, "options": {"queue": queue}}
    answer = await client.post(f"/api/v1/tasks/{TASK}/runs", json=body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def run(client: httpx.AsyncClient, run_id: str) -> dict[str, Any]:
    found: dict[str, Any] = (await client.get(f"{RUNS}/{run_id}")).json()
    return found


async def becomes(client: httpx.AsyncClient, run_id: str, state: str) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        found = await run(client, run_id)
        return found if found["state"] == state else None

    found = await eventually_async(look, 20, f"run {state}")
    assert found is not None
    return found


async def living(client: httpx.AsyncClient, **query: Any) -> list[dict[str, Any]]:
    answer = await client.get(WORKERS, params={"alive": True, "state": "ready", **query})
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def worker(client: httpx.AsyncClient, **query: Any) -> dict[str, Any]:
    async def look() -> list[dict[str, Any]]:
        return await living(client, **query)

    return (await eventually_async(look, 20, "a ready worker"))[0]


async def audited(client: httpx.AsyncClient, action: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await client.get("/api/v1/audit", params={"action": action})).json()[
        "items"
    ]
    return items


async def test_queues_are_listed_in_their_order(admin: httpx.AsyncClient) -> None:
    waiting = await submit(admin, "priority_high")
    answer = (await admin.get(QUEUES)).json()
    assert [each["name"] for each in answer["items"]] == ["system", "priority_high", "priority_low", "celery"]
    found = answer["items"][1]
    assert (found["depth"], found["messages"], found["consumers"], found["paused"]) == (1, 1, [], False)
    assert found["oldest_age"] >= 0
    first = (await admin.get(QUEUES, params={"limit": 2})).json()
    rest = (await admin.get(QUEUES, params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert [*first["items"], *rest["items"]] != []
    assert rest["next_cursor"] is None
    assert [each["name"] for each in rest["items"]] == ["priority_low", "celery"]
    searched = (await admin.get(QUEUES, params={"search": "prio", "paused": False})).json()["items"]
    assert [each["name"] for each in searched] == ["priority_high", "priority_low"]
    assert (await admin.get(f"{QUEUES}/nowhere")).status_code == 404
    why = (await admin.get(f"{RUNS}/{waiting}/why")).json()
    assert why["state"] == "queued"
    assert "no worker takes from its queue priority_high" in why["explanation"]


async def test_a_purge_wants_the_name_typed(admin: httpx.AsyncClient) -> None:
    ids = [await submit(admin, "system") for _ in range(3)]
    url = f"{QUEUES}/system/purge"
    refused = await admin.post(url, json={"confirm": "celery"})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == "confirm"
    dry = (await admin.post(url, json={"dry_run": True})).json()
    assert dry == {
        "queue": "system", "dry_run": True, "matched": 3, "cancelled": 0, "more": False, "messages": None,
    }  # fmt: skip
    some = (await admin.post(url, json={"confirm": "system", "limit": 1})).json()
    assert (some["cancelled"], some["more"], some["messages"]) == (1, True, None)
    rest = await admin.post(url, json={"confirm": "system"}, headers={"Idempotency-Key": "purge-it"})
    assert (rest.json()["cancelled"], rest.json()["more"], rest.json()["messages"]) == (2, False, 3)
    again = await admin.post(url, json={"confirm": "system"}, headers={"Idempotency-Key": "purge-it"})
    assert again.json() == rest.json()
    assert again.headers["Idempotency-Replayed"] == "true"
    assert {(await run(admin, each))["reason"] for each in ids} == {"purged"}
    entries = await audited(admin, "purge_queue")
    assert [each["object_id"] for each in entries] == ["system", "system"]
    assert entries[0]["changes"] == {"queues/system": {"purged": {"before": 0, "after": 2}}}


async def test_each_part_of_a_purge_is_in_the_audit(
    admin: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purging, "parts", lambda found: [[run_id] for run_id, _ in found])
    before = len(await audited(admin, "purge_queue"))
    for _ in range(3):
        await submit(admin, "system")
    assert (await admin.post(f"{QUEUES}/system/purge", json={"confirm": "system"})).json()["cancelled"] == 3
    entries = await audited(admin, "purge_queue")
    told = [each["changes"]["queues/system"]["purged"]["after"] for each in entries[: len(entries) - before]]
    assert told == [1, 1, 1]


async def test_nothing_of_a_paused_queue_starts(admin: httpx.AsyncClient, threads: Process) -> None:
    here = await worker(admin, queue="priority_low")
    assert (await admin.post(f"{QUEUES}/priority_low/resume")).status_code == 409
    paused = await admin.post(f"{QUEUES}/priority_low/pause", json={"note": "moving house"})
    assert paused.status_code == 200, paused.text
    found = paused.json()
    assert (found["paused"], found["paused_by"], found["pause_note"]) == (True, "admin", "moving house")
    assert found["consumers"] == []
    waiting = await submit(admin, "priority_low")
    # The worker has seen what came later, and on the queue that stands behind.
    await becomes(admin, await submit(admin, "celery"), "succeeded")
    why = (await admin.get(f"{RUNS}/{waiting}/why")).json()
    assert why["reason"] == "queue_paused"
    assert "moving house" in why["explanation"]
    assert (await run(admin, waiting))["state"] == "queued"

    async def left_alone() -> bool:
        """The worker looks at what stands behind, and leaves wake-ups of the paused queue in the broker."""
        await submit(admin, "priority_low")
        await becomes(admin, await submit(admin, "celery"), "succeeded")
        found = (await admin.get(f"{QUEUES}/priority_low")).json()
        assert (found["running"], found["depth"] > 1) == (0, True)
        return bool(found["messages"])

    await eventually_async(left_alone, 20, "wake-ups stay in the broker")
    resumed = (await admin.post(f"{QUEUES}/priority_low/resume")).json()
    assert resumed["paused"] is False
    assert [each["id"] for each in resumed["consumers"]] == [here["id"]]
    await becomes(admin, waiting, "succeeded")
    assert [len(await audited(admin, name)) for name in ("pause_queue", "resume_queue")] == [1, 1]


async def test_a_thread_pool_grows_and_shrinks(admin: httpx.AsyncClient, threads: Process) -> None:
    here = await worker(admin, queue="priority_low")
    url = f"{WORKERS}/{here['id']}"

    async def resized(change: int, wanted: int) -> None:
        answer = await admin.post(f"{url}/resize", json={"change": change})
        assert answer.status_code == 202, answer.text

        async def done() -> bool:
            found = (await admin.get(url)).json()
            return bool(found["concurrency"] == wanted and found["concurrency_wanted"] is None)

        await eventually_async(done, 20, f"{wanted} slots")

    await resized(2, 3)
    ids = [await submit(admin, "celery", seconds=600) for _ in range(3)]
    for each in ids:
        await becomes(admin, each, "running")
    async with none_free():
        activity = (await asyncio.wait_for(admin.get(f"{url}/activity"), 10)).json()
    assert {each["id"] for each in activity["active"]} == set(ids)
    assert (activity["answered"], activity["silence"], activity["reserved"]) == (True, None, [])
    other = await submit(admin, "system")
    wrong = await admin.post(f"{url}/revoke", json={"run_id": other})
    assert wrong.status_code == 409
    assert "does not execute the run" in wrong.json()["detail"]
    for each in ids:
        answer = await admin.post(f"{url}/revoke", json={"run_id": each, "reason": "enough"})
        assert answer.status_code == 202, answer.text
        await becomes(admin, each, "cancelled")
    await resized(-2, 1)
    assert (await admin.post(f"{url}/resize", json={"change": -1})).status_code == 409


async def test_a_prefork_pool_is_resized_and_drained(admin: httpx.AsyncClient, shared: Stack) -> None:
    process = shared.worker("-P", "prefork", "-c", "1", "-Q", "system")
    here = await worker(admin, queue="system")
    url = f"{WORKERS}/{here['id']}"
    await admin.post(f"{url}/resize", json={"change": 1})
    ids = [await submit(admin, "system", seconds=2.5) for _ in range(2)]
    for each in ids:
        await becomes(admin, each, "running")

    async def slots(wanted: int) -> None:
        async def there() -> bool:
            return bool((await admin.get(url)).json()["concurrency"] == wanted)

        await eventually_async(there, 20, f"{wanted} slots")

    await slots(2)
    # Both children are busy: it becomes smaller when one is idle.
    await admin.post(f"{url}/resize", json={"change": -1})
    assert (await admin.get(url)).json()["concurrency_wanted"] == 1
    await slots(1)
    last = await submit(admin, "system", seconds=1)
    await becomes(admin, last, "running")
    drained = await admin.post(f"{url}/drain")
    assert drained.status_code == 202
    assert drained.json()["drain_requested_at"]
    assert (await admin.post(f"{url}/resize", json={"change": 1})).status_code == 409
    process.wait(20)
    assert (await run(admin, last))["state"] == "succeeded"
    stopped = (await admin.get(url)).json()
    assert (stopped["state"], stopped["alive"]) == ("stopped", False)
    for answer in (await admin.post(f"{url}/drain"), await admin.post(f"{url}/resize", json={"change": 1})):
        assert answer.status_code == 409
        assert "has stopped" in answer.json()["detail"]
    silent = (await admin.get(f"{url}/activity")).json()
    assert (silent["answered"], silent["silence"]) == (False, "It holds no lease.")
