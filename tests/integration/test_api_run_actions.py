"""Cancel and replay over HTTP, one run or many; dead runs by exception; attempts."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from app.db import sync_engine, sync_sessions
from app.scheduling import canvas, liveness, run_logs, runs
from app.scheduling.ids import new_id
from app.scheduling.runs import Outcome, RunState
from app.settings import Settings
from support.api import connected

TASK = "scheduled_task.test_task"
NOWHERE = "0199d0c2-f2f0-7a51-9c66-3f0c5f3ad4b1"


@pytest.fixture(scope="module")
def sessions(settings: Settings) -> Iterator[sessionmaker[Session]]:
    engine = sync_engine(settings.database, name="test")
    yield sync_sessions(engine)
    engine.dispose()


@pytest.fixture(scope="module")
def worker(sessions: sessionmaker[Session]) -> UUID:
    identifier = new_id()
    with sessions.begin() as session:
        liveness.register_worker(session, identifier, name="w@host", pid=1, queues=["celery"], lease=600)
    return identifier


Start = Callable[[str], None]


@pytest.fixture
def start(sessions: sessionmaker[Session], worker: UUID) -> Start:
    def work(run_id: str) -> None:
        with sessions.begin() as session:
            assert runs.start(
                session, UUID(run_id), attempt=1, worker_id=worker, worker="w@host", token=new_id()
            )

    return work


async def _run(client: httpx.AsyncClient, **body: Any) -> str:
    answer = await client.post(f"/api/v1/tasks/{TASK}/runs", json={"kwargs": {"message": "x"}, **body})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def _fail(sessions: sessionmaker[Session], run_id: str, kind: str) -> None:
    outcome = Outcome(RunState.FAILED, error={"type": kind, "message": "m", "traceback": None})
    with sessions.begin() as session:
        assert runs.finish(session, UUID(run_id), attempt=1, outcome=outcome) is RunState.FAILED


async def test_a_queued_run_is_cancelled(admin: httpx.AsyncClient) -> None:
    run_id = await _run(admin)
    answer = await admin.post(f"/api/v1/runs/{run_id}/cancel", json={"reason": "not needed"})
    assert answer.status_code == 202
    found = answer.json()
    assert (found["state"], found["reason"]) == ("cancelled", "cancelled_by_user")
    assert found["error"]["message"] == "Cancelled by admin: not needed"
    again = await admin.post(f"/api/v1/runs/{run_id}/cancel")
    assert (again.status_code, again.json()["finished_at"]) == (202, found["finished_at"])


async def test_a_queued_run_is_cancelled_while_somebody_follows_its_log(
    admin: httpx.AsyncClient, sessions: sessionmaker[Session]
) -> None:
    run_id = await _run(admin)
    with sessions.begin() as session:
        assert run_logs.follow(session, [UUID(run_id)], 60)
    answer = await admin.post(f"/api/v1/runs/{run_id}/cancel")
    assert (answer.status_code, answer.json()["state"]) == (202, "cancelled")


async def test_a_running_run_is_asked_to_stop(admin: httpx.AsyncClient, start: Start) -> None:
    run_id = await _run(admin)
    start(run_id)
    answer = await admin.post(f"/api/v1/runs/{run_id}/cancel")
    assert answer.status_code == 202
    assert answer.json()["state"] == "running"
    assert answer.json()["cancel_requested_at"] is not None


async def test_what_has_ended_cannot_be_cancelled(
    admin: httpx.AsyncClient, start: Start, sessions: sessionmaker[Session]
) -> None:
    run_id = await _run(admin)
    start(run_id)
    _fail(sessions, run_id, "ValueError")
    answer = await admin.post(f"/api/v1/runs/{run_id}/cancel")
    assert (answer.status_code, answer.json()["type"].rsplit("/", 1)[-1]) == (409, "conflict")
    assert (await admin.get(f"/api/v1/runs/{run_id}")).json()["state"] == "failed"
    assert (await admin.post(f"/api/v1/runs/{NOWHERE}/cancel")).status_code == 404


async def test_replay_with_the_same_and_with_other_arguments(
    admin: httpx.AsyncClient, start: Start, sessions: sessionmaker[Session]
) -> None:
    run_id = await _run(admin, options={"queue": "priority_high", "time_limit": 60})
    early = await admin.post(f"/api/v1/runs/{run_id}/replay")
    assert early.status_code == 409
    start(run_id)
    _fail(sessions, run_id, "ValueError")
    same = await admin.post(f"/api/v1/runs/{run_id}/replay")
    assert same.status_code == 202, same.text
    made = same.json()
    assert same.headers["Location"] == f"/api/v1/runs/{made['id']}"
    assert made["id"] != run_id
    expected = {"replay_of": run_id, "origin": "replay", "state": "queued", "queue": "priority_high"}
    assert {key: made[key] for key in expected} == expected
    assert (made["kwargs"], made["options"], made["requested_by"]) == (
        {"message": "x"},
        {"time_limit": 60.0},
        "admin",
    )
    edited = await admin.post(f"/api/v1/runs/{run_id}/replay", json={"kwargs": {"message": "other"}})
    assert edited.json()["kwargs"] == {"message": "other"}
    wrong = await admin.post(f"/api/v1/runs/{run_id}/replay", json={"kwargs": {"massage": "typo"}})
    assert wrong.status_code == 422
    assert "kwargs.massage" in {error["field"] for error in wrong.json()["errors"]}
    assert (await admin.post(f"/api/v1/runs/{NOWHERE}/replay")).status_code == 404
    assert (await admin.get(f"/api/v1/runs/{run_id}")).json()["state"] == "failed"


async def test_dead_runs_by_exception_and_in_bulk(
    admin: httpx.AsyncClient, start: Start, sessions: sessionmaker[Session]
) -> None:
    dead = [await _run(admin) for _ in range(3)]
    for run_id, kind in zip(dead, ("acme.Gone", "acme.Gone", "KeyError"), strict=True):
        start(run_id)
        _fail(sessions, run_id, kind)
    listed = (await admin.get("/api/v1/runs", params={"exception": "acme.Gone"})).json()
    assert [item["id"] for item in listed["items"]] == dead[1::-1]
    body = {"exception": "acme.Gone", "task": TASK}
    dry = (await admin.post("/api/v1/runs/replay", json=body | {"dry_run": True})).json()
    assert dry == {"dry_run": True, "matched": 2, "changed": 0, "more": False}
    done = (await admin.post("/api/v1/runs/replay", json=body | {"limit": 1})).json()
    assert done == {"dry_run": False, "matched": 1, "changed": 1, "more": True}
    rest = (await admin.post("/api/v1/runs/replay", json=body)).json()
    assert (rest["matched"], rest["changed"]) == (1, 1)
    assert (await admin.post("/api/v1/runs/replay", json=body)).json()["matched"] == 0


async def test_bulk_cancel_by_queue_and_time(admin: httpx.AsyncClient) -> None:
    begun = datetime.now(UTC) - timedelta(milliseconds=5)
    mine = [await _run(admin, options={"queue": "system"}) for _ in range(3)]
    other = await _run(admin, options={"queue": "priority_low"})
    body = {"queue": "system", "since": begun.isoformat()}
    assert (await admin.post("/api/v1/runs/cancel", json=body | {"dry_run": True})).json()["matched"] == 3
    done = (await admin.post("/api/v1/runs/cancel", json=body | {"reason": "all of them"})).json()
    assert done == {"dry_run": False, "matched": 3, "changed": 3, "more": False}
    states = [(await admin.get(f"/api/v1/runs/{run_id}")).json()["state"] for run_id in [*mine, other]]
    assert states == ["cancelled"] * 3 + ["queued"]
    later = {"since": begun.isoformat(), "until": begun.isoformat()}
    assert (await admin.get("/api/v1/runs", params=later)).json()["items"] == []


async def test_bulk_actions_are_a_transaction_for_each_run(
    admin: httpx.AsyncClient, sessions: sessionmaker[Session]
) -> None:
    """The end of a run locks its schedule; several in one transaction could wait for each other in a circle."""
    begun = datetime.now(UTC) - timedelta(milliseconds=5)
    mine = [await _run(admin, options={"queue": "system"}) for _ in range(4)]
    body = {"queue": "system", "since": begun.isoformat()}
    assert (await admin.post("/api/v1/runs/cancel", json=body)).json()["changed"] == 4
    made = (await admin.post("/api/v1/runs/replay", json=body | {"states": ["cancelled"]})).json()
    assert made["changed"] == 4
    query = text(
        "SELECT count(DISTINCT xmin::text) FROM celery_task_runs WHERE {} = ANY(CAST(:ids AS uuid[]))"
    )
    with sessions() as session:
        for column in ("id", "replay_of"):
            written = session.scalar(text(query.text.format(column)), {"ids": mine})
            assert written == 4, column
    for action, column, wanted in (
        ("cancel_runs", "cancelled", "cancelled"),
        ("replay_runs", "replay_of", None),
    ):
        found = (await admin.get("/api/v1/audit", params={"action": action, "limit": 4})).json()["items"]
        told = [change for each in found for change in each["changes"].items()]
        after = {sides[column]["after"] for _, sides in told}
        assert (len({key for key, _ in told}), after) == (4, {wanted} if wanted else set(mine)), action


@pytest.mark.parametrize(
    "body", [{}, {"dry_run": True}, {"queue": "nowhere"}, {"limit": 10_001, "task": TASK}]
)
async def test_bulk_needs_a_filter(admin: httpx.AsyncClient, body: dict[str, Any]) -> None:
    for verb in ("cancel", "replay"):
        assert (await admin.post(f"/api/v1/runs/{verb}", json=body)).status_code == 422


async def test_viewers_change_nothing(api: FastAPI, admin: httpx.AsyncClient) -> None:
    run_id = await _run(admin)
    async with connected(api, "viewer") as viewer:
        assert (await viewer.post(f"/api/v1/runs/{run_id}/cancel")).status_code == 403
        assert (await viewer.post("/api/v1/runs/cancel", json={"task": TASK})).status_code == 403
        assert (await viewer.get(f"/api/v1/runs/{run_id}/attempts")).status_code == 200


async def test_attempts_and_what_came_too_late(
    admin: httpx.AsyncClient, start: Start, sessions: sessionmaker[Session], worker: UUID
) -> None:
    run_id = await _run(admin, options={"max_attempts": 2})
    start(run_id)
    failed = Outcome(RunState.FAILED, error={"type": "E", "message": "m", "traceback": None}, retryable=True)
    late = {"id": new_id(), "run_id": UUID(run_id), "attempt": 1, "outcome": "succeeded"}
    with sessions.begin() as session:
        assert runs.finish(session, UUID(run_id), attempt=1, outcome=failed) is RunState.QUEUED
        canvas.keep_late(session, late | {"worker_id": worker, "result": "42", "error": None})
    found = (await admin.get(f"/api/v1/runs/{run_id}/attempts")).json()
    assert [(item["attempt"], item["outcome"]) for item in found["items"]] == [(1, "failed"), (2, "queued")]
    assert [(item["attempt"], item["outcome"], item["result"]) for item in found["late"]] == [
        (1, "succeeded", 42)
    ]


async def test_a_run_is_found_by_the_task_id_of_a_celery_client(
    admin: httpx.AsyncClient, sessions: sessionmaker[Session]
) -> None:
    run_id, task_id = await _run(admin), "11111111-2222-4333-8444-555555555555"
    with sessions.begin() as session:
        canvas.name_run(session, task_id, UUID(run_id))
    assert (await admin.get(f"/api/v1/runs/{task_id}")).json()["id"] == run_id


async def test_runs_are_filtered_searched_and_sorted(
    admin: httpx.AsyncClient, start: Start, worker: UUID
) -> None:
    since = datetime.now(UTC).isoformat()
    ids = [await _run(admin, options={"queue": "priority_high"}) for _ in range(3)]
    start(ids[1])
    await admin.post(f"/api/v1/runs/{ids[2]}/cancel")

    async def found(**query: object) -> list[str]:
        answer = await admin.get("/api/v1/runs", params={"since": since, "queue": "priority_high", **query})  # type: ignore[dict-item]
        assert answer.status_code == 200, answer.text
        return [each["id"] for each in answer.json()["items"]]

    assert await found(sort="created") == ids
    assert await found() == ids[::-1]
    first = (await admin.get("/api/v1/runs", params={"since": since, "sort": "created", "limit": 2})).json()
    assert await found(sort="created", cursor=first["next_cursor"]) == ids[2:]
    assert await found(search="TEST_TASK", origin="submit", requested_by="admin") == ids[::-1]
    assert await found(search="nothing") == []
    assert await found(worker_id=str(worker)) == [ids[1]]
    assert await found(reason="cancelled_by_user") == [ids[2]]
