"""The business modules' tasks in real workers, under their users' names, as the API makes them run."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.modules.agents.tasks import execute_agent_periodic_task
from app.sealing import new_key
from app.settings import Settings
from support.agents import CHAT_PATH, CREDENTIAL, HEALTH_PATH, chat, with_agents
from support.api import connected, serving
from support.calling import calling
from support.peer import Answer, Peer, completion
from support.polling import eventually, eventually_async
from support.stack import Stack

KEY = new_key()
ENVIRONMENT = {"UPBEAT_OUTBOUND_ALLOW": "127.0.0.1", "UPBEAT_SECRET_KEYS": KEY}
EXECUTE = "src.apps.agent.tasks.execute_agent_periodic_task"
Document = dict[str, Any]


@pytest.fixture
def peer(shared_peer: Peer) -> Peer:
    shared_peer.forget()
    shared_peer.answer(CHAT_PATH, completion("Nothing new."))
    shared_peer.answer(HEALTH_PATH, Answer())
    return shared_peer


@pytest.fixture(scope="module")
async def api(settings: Settings) -> AsyncIterator[FastAPI]:
    async with serving(with_agents(settings, KEY)) as app:
        yield app


@pytest.fixture(scope="module")
async def admin(api: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with connected(api) as client:
        yield client


async def _run(client: httpx.AsyncClient, task: str, options: Document | None = None, **kwargs: Any) -> str:
    body = {"kwargs": kwargs, "options": options or {}}
    answer = await client.post(f"/api/v1/tasks/{task}/runs", json=body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def _ended(client: httpx.AsyncClient, run: str) -> Document:
    async def ended() -> Document:
        found: Document = (await client.get(f"/api/v1/runs/{run}")).json()
        return found if found["finished_at"] is not None else {}

    return await eventually_async(ended, 30, f"the end of run {run}")


async def _agent(client: httpx.AsyncClient, peer: Peer, name: str, **changes: Any) -> str:
    body = chat(peer.url, name=name, **changes).model_dump(mode="json")
    answer = await client.post("/api/v1/agents", json=body)
    assert answer.status_code == 201, answer.text
    made = str(answer.json()["id"])
    answer = await client.put(
        f"/api/v1/agents/{made}/credential", json={"credential": CREDENTIAL}, headers={"If-Match": "*"}
    )
    assert answer.status_code == 200, answer.text
    return made


async def test_in_processes(stack: Stack, admin: httpx.AsyncClient, peer: Peer, settings: Settings) -> None:
    worker = stack.worker("-P", "prefork", "-c", "2", env=ENVIRONMENT)
    stack.beat(env={"UPBEAT_BEAT_MAX_SLEEP": "0.2"})
    await _an_agent_works(admin, peer, "in-processes")
    await _a_foreign_task_id_is_no_key(admin, peer, settings)
    await _upkeep_works(admin)
    assert CREDENTIAL not in worker.output()


async def test_in_threads(stack: Stack, admin: httpx.AsyncClient, peer: Peer) -> None:
    worker = stack.worker("-P", "threads", "-c", "20", env=ENVIRONMENT)
    stack.beat(env={"UPBEAT_BEAT_MAX_SLEEP": "0.2"})
    await _an_agent_works(admin, peer, "in-threads")
    await _one_worker_carries_many_calls_at_once(admin, peer)
    assert CREDENTIAL not in worker.output()


async def _an_agent_works(admin: httpx.AsyncClient, peer: Peer, name: str) -> None:
    agent = await _agent(admin, peer, name, failures_allowed=2)

    answer = await admin.post(f"/api/v1/agents/{agent}/run", json={"variables": {"topic": "x"}})
    assert answer.status_code == 202
    run = await _ended(admin, answer.json()["id"])
    assert (run["state"], run["result"]["reply"]) == ("succeeded", "Nothing new.")
    assert peer.keys() == {run["id"]: 1}
    assert peer.requests[0].headers["authorization"] == f"Bearer {CREDENTIAL}"

    # It takes another attempt, with the same key, for what may pass, and none for what will not.
    again = {"max_attempts": 2, "retry_base": 0.05}
    for status, attempts in ((503, 2), (400, 1)):
        peer.forget()
        peer.answer(CHAT_PATH, Answer(status))
        key = await _run(admin, EXECUTE, again, agent=name, variables={"topic": "x"})
        run = await _ended(admin, key)
        assert (run["state"], run["attempt"]) == ("failed", attempts)
        assert f"answered {status}" in run["error"]["message"]
        assert peer.keys() == {key: attempts}

    # Those two failures made it unhealthy; a check heals it.
    assert (await admin.get(f"/api/v1/agents/{agent}")).json()["health"] == "unhealthy"
    peer.answer(HEALTH_PATH, Answer())
    checked = await _ended(admin, await _run(admin, "periodic_agent_health_check"))
    assert checked["result"]["healthy"] >= 1
    assert (await admin.get(f"/api/v1/agents/{agent}")).json()["health"] == "healthy"

    # A soft limit of the run cancels the call, which is recorded all the same.
    peer.answer(CHAT_PATH, Answer(delay=60))
    limits = {"soft_time_limit": 1, "time_limit": 20}
    key = await _run(admin, EXECUTE, limits, agent=agent, variables={"topic": "x"}, prompt="$topic")
    run = await _ended(admin, key)
    assert (run["state"], run["error"]["type"]) == ("failed", "SoftTimeLimitExceeded")
    calls = (await admin.get(f"/api/v1/agents/{agent}/calls")).json()["items"]
    assert [call["state"] for call in calls] == ["failed"] * 4 + ["succeeded"]
    assert calls[0]["run_id"] == key


async def _a_foreign_task_id_is_no_key(admin: httpx.AsyncClient, peer: Peer, settings: Settings) -> None:
    peer.forget()
    peer.answer(CHAT_PATH, completion("Nothing new."))
    await _agent(admin, peer, "called-by-code")
    values = {"agent": "called-by-code", "variables": {"topic": "x"}}
    with calling(settings):
        result = execute_agent_periodic_task.apply_async(kwargs=values, task_id="a caller's own")
        assert (await asyncio.to_thread(result.get, 30))["reply"] == "Nothing new."
    (run,) = (await admin.get("/api/v1/runs", params={"origin": "code"})).json()["items"]
    assert peer.keys() == {run["id"]: 1}


async def _one_worker_carries_many_calls_at_once(admin: httpx.AsyncClient, peer: Peer) -> None:
    peer.forget()
    await _agent(admin, peer, "crowded", time_limit=60)
    peer.answer(CHAT_PATH, Answer(200, completion("x").body, delay=60))
    runs = [await _run(admin, EXECUTE, agent="crowded", variables={"topic": "x"}) for _ in range(20)]
    eventually(lambda: len(peer.requests) == 20, 30, "twenty calls under way at once")
    peer.release()
    for run in runs:
        assert (await _ended(admin, run))["state"] == "succeeded"
    assert peer.keys() == dict.fromkeys(runs, 1)


async def _upkeep_works(admin: httpx.AsyncClient) -> None:
    results = {}
    tasks = (
        "src.apps.auth.tasks.cleanup_expired_sessions_task",
        "src.apps.auth.tasks.cleanup_old_sessions_task",
        "src.apps.auth.tasks.session_statistics_task",
        "src.apps.scheduled_task.tasks.cleanup_old_logs_task",
        "src.apps.scheduled_task.tasks.test_task",
        "src.apps.agent.tasks.periodic_agent_health_check",
        "agents.forget_old_calls",
        "agents.rotate_credentials",
    )
    for each in [await _run(admin, task) for task in tasks]:
        run = await _ended(admin, each)
        assert run["state"] == "succeeded", run["error"]
        results[run["task"]] = run["result"]
    assert results["auth.cleanup_expired_sessions"] == {"deleted": 0}
    assert results["auth.session_statistics"]["active"] >= 1
    assert results["scheduled_task.cleanup_old_logs"]["busy"] is False
    wrong = await _ended(admin, await _run(admin, "scheduled_task.cleanup_old_logs", days=0))
    assert "days must be from 1" in wrong["error"]["message"]
