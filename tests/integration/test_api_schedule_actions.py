"""Pause, resume, backfill, history and why, over HTTP."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psycopg
import pytest

from app.settings import Settings
from support.api import connected, serving
from support.servers import Database

BASE = "/api/v1"
MINUTELY = {"type": "crontab", "expression": "* * * * *"}
NOWHERE = "0199d0c2-f2f0-7a51-9c66-3f0c5f3ad4b1"


@pytest.fixture(scope="module")
async def api(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(settings) as app, connected(app) as client:
        yield client


@pytest.fixture
async def created(api: httpx.AsyncClient) -> dict[str, Any]:
    body = {"task_name": "test", "task_path": "scheduled_task.test_task", "schedule": MINUTELY}
    answer = await api.post(f"{BASE}/scheduled-tasks", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()  # type: ignore[no-any-return]


def _url(created: dict[str, Any], action: str) -> str:
    return f"{BASE}/scheduled-tasks/{created['id']}/{action}"


async def test_pause_resume_and_history(api: httpx.AsyncClient, created: dict[str, Any]) -> None:
    answer = await api.post(_url(created, "pause"), json={"note": "maintenance"})
    assert answer.status_code == 200
    paused = answer.json()
    assert (paused["state"], paused["pause_note"], paused["paused_by"]) == ("paused", "maintenance", "admin")
    assert (paused["next_run_at"], paused["task_enabled"]) == (None, True)
    refused = await api.post(_url(created, "enable"))
    assert refused.status_code == 409
    assert "resume" in refused.json()["detail"].lower()
    would = await api.post(_url(created, "resume"), json={"catch_up": "all", "dry_run": True})
    assert would.status_code == 200
    assert would.json()["scheduled_task"]["state"] == "paused"
    did = await api.post(_url(created, "resume"), json={})
    assert did.json()["scheduled_task"]["state"] == "active"
    assert (await api.post(_url(created, "resume"), json={})).status_code == 409
    history = (await api.get(_url(created, "history"), params={"limit": 2})).json()
    assert [item["action"] for item in history["items"]] == ["resume", "pause"]
    rest = (await api.get(_url(created, "history"), params={"cursor": history["next_cursor"]})).json()
    assert [(item["version"], item["action"], item["author"]) for item in rest["items"]] == [
        (1, "create", "admin")
    ]
    assert rest["next_cursor"] is None


async def test_resuming_with_catch_up_makes_the_runs(
    api: httpx.AsyncClient, created: dict[str, Any], database: Database
) -> None:
    """What the beat does with psycopg is done here with asyncpg."""
    await api.post(_url(created, "pause"), json={"note": "maintenance"})
    with psycopg.connect(database.url) as connection:
        connection.execute(
            "UPDATE celery_periodic_task_configs SET paused_at = paused_at - interval '3 minutes' WHERE id = %s",
            (created["id"],),
        )
    did = await api.post(_url(created, "resume"), json={"catch_up": "all"})
    assert did.status_code == 200, did.text
    ticks = [tick["scheduled_for"] for tick in did.json()["ticks"]]
    assert len(ticks) == did.json()["ticks_passed"] == 3
    runs = (await api.get(f"{BASE}/runs", params={"schedule_id": created["id"]})).json()["items"]
    assert sorted(run["scheduled_for"] for run in runs) == ticks
    assert did.json()["scheduled_task"]["next_run_at"] > ticks[-1]


@pytest.mark.parametrize(
    ("body", "field"),
    [({}, "note"), ({"note": ""}, "note"), ({"note": " "}, "note"), ({"note": "x", "y": 1}, "y")],
)
async def test_a_pause_needs_a_note(
    api: httpx.AsyncClient, created: dict[str, Any], body: dict[str, Any], field: str
) -> None:
    answer = await api.post(_url(created, "pause"), json=body)
    assert answer.status_code == 422
    assert field in answer.json()["errors"][0]["field"]
    assert (await api.get(f"{BASE}/scheduled-tasks/{created['id']}")).json()["state"] == "active"


async def test_backfill_first_tells_and_then_does(api: httpx.AsyncClient, created: dict[str, Any]) -> None:
    end = datetime.now(UTC).replace(second=0, microsecond=0)
    period = {"start": (end - timedelta(minutes=3)).isoformat(), "end": end.isoformat()}
    would = await api.post(_url(created, "backfill"), json=period | {"dry_run": True})
    assert would.status_code == 202, would.text
    assert (would.json()["ticks"], would.json()["runs"], would.json()["run_ids"]) == (3, 3, [])
    did = (await api.post(_url(created, "backfill"), json=period | {"order": "newest_first"})).json()
    listed = (await api.get(f"{BASE}/runs", params={"schedule_id": created["id"]})).json()["items"]
    runs = [next(run for run in listed if run["id"] == run_id) for run_id in did["run_ids"]]
    assert [run["blocked_by"] for run in runs] == [None, *did["run_ids"][:2]]
    assert [datetime.fromisoformat(run["scheduled_for"]) for run in runs] == [
        end - timedelta(minutes=n) for n in range(3)
    ]
    assert {run["origin"] for run in runs} == {"backfill"}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"end": "2999-01-01T00:00:00Z"}, "end"),
        ({"start": "2026-01-02T00:00:00"}, "start"),
        ({"start": "1999-01-01T00:00:00Z"}, "end"),
        ({"start": "2026-02-02T00:00:00Z"}, "start must lie before end"),
        ({"overlap": "allow_all", "max_concurrent": 2}, "max_concurrent"),
        ({"overlap": "skip"}, "overlap"),
    ],
)
async def test_refused_backfills(
    api: httpx.AsyncClient, created: dict[str, Any], change: dict[str, Any], field: str
) -> None:
    period = {"start": "2026-01-02T00:00:00Z", "end": "2026-01-03T00:00:00Z"}
    answer = await api.post(_url(created, "backfill"), json=period | change)
    assert answer.status_code == 422
    assert field in answer.json()["detail"]


async def test_why(api: httpx.AsyncClient, created: dict[str, Any]) -> None:
    answer = await api.get(_url(created, "why"), params={"at": "2020-01-01T00:00:00Z"})
    assert answer.status_code == 200
    assert answer.json()["verdict"] == "before_creation"
    assert answer.json()["version"]["config"]["task_name"] == "test"
    ahead = await api.get(_url(created, "why"), params={"at": created["next_run_at"]})
    assert ahead.json()["verdict"] == "ahead"
    naive = await api.get(_url(created, "why"), params={"at": "2020-01-01T00:00:00"})
    assert naive.status_code == 422
    await api.delete(f"{BASE}/scheduled-tasks/{created['id']}", headers={"If-Match": "*"})
    gone = await api.get(_url(created, "why"), params={"at": created["next_run_at"]})
    assert gone.json()["verdict"] == "deleted"


@pytest.mark.parametrize(
    ("method", "action", "body"),
    [
        ("POST", "pause", {"note": "x"}),
        ("POST", "resume", {}),
        ("POST", "backfill", {"start": "2026-01-02T00:00:00Z", "end": "2026-01-03T00:00:00Z"}),
        ("GET", "why?at=2020-01-01T00:00:00Z", None),
        ("GET", "history", None),
    ],
)
async def test_what_does_not_exist(api: httpx.AsyncClient, method: str, action: str, body: object) -> None:
    answer = await api.request(method, f"{BASE}/scheduled-tasks/{NOWHERE}/{action}", json=body)
    assert answer.status_code == 404


async def test_run_now_beside_another_run(api: httpx.AsyncClient, created: dict[str, Any]) -> None:
    first = await api.post(_url(created, "run"))
    assert (first.status_code, first.json()["state"]) == (202, "queued")
    second = await api.post(_url(created, "run"), json={"overlap": "allow_all"})
    assert second.status_code == 202
    wrong = await api.post(_url(created, "run"), json={"overlap": "sometimes"})
    assert wrong.status_code == 422
