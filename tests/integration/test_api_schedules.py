"""Scheduled tasks, runs and tasks over HTTP, on a real database and broker."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

SCHEDULES = "/api/v1/scheduled-tasks"
RUNS = "/api/v1/runs"
TASKS = "/api/v1/tasks"
ANY = {"If-Match": "*"}
NOBODY = "0199d0c2-f2f0-7a51-9c66-3f0c5f3ad4b1"
USERS_EXAMPLE = """
{
    "task_name": "清理过期会话",
    "task_path": "src.apps.auth.tasks.cleanup_expired_sessions_task",
    "task_type": "system",
    "task_enabled": true,
    "task_crontab_minute": "0",
    "task_crontab_hour": "*/2",
    "task_extra_config": {
        "queue": "system"
    }
}
"""


async def create(client: httpx.AsyncClient, **changes: Any) -> dict[str, Any]:
    body = {
        "task_name": "test",
        "task_path": "scheduled_task.test_task",
        "schedule": {"type": "interval", "every": 1, "unit": "hours"},
        **changes,
    }
    answer = await client.post(SCHEDULES, json=body)
    assert answer.status_code == 201, answer.text
    created: dict[str, Any] = answer.json()
    return created


async def test_the_users_example_verbatim(admin: httpx.AsyncClient) -> None:
    before = datetime.now(UTC)
    answer = await admin.post(
        SCHEDULES, content=USERS_EXAMPLE.encode(), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 201, answer.text
    created = answer.json()
    assert answer.headers["Location"] == f"{SCHEDULES}/{created['id']}"
    hour = before.replace(minute=0, second=0, microsecond=0)
    upcoming = next(
        tick for n in range(1, 4) if (tick := hour + timedelta(hours=n)).hour % 2 == 0 and tick > before
    )
    assert datetime.fromisoformat(created["next_run_at"]) == upcoming
    assert {key: value for key, value in created.items() if not key.endswith(("_at", "id"))} == {
        "version": 1,
        "task_name": "清理过期会话",
        "task_path": "src.apps.auth.tasks.cleanup_expired_sessions_task",
        "task": "auth.cleanup_expired_sessions",
        "task_type": "system",
        "task_enabled": True,
        "state": "active",
        "state_reason": None,
        "schedule": {
            "type": "crontab",
            "expression": "0 */2 * * *",
            "timezone": "UTC",
            "day_match": "and",
            "dst_gap": "run",
        },
        "task_args": [],
        "task_kwargs": {},
        "task_extra_config": {"queue": "system"},
        "description": None,
        "owner": None,
        "owner_key": None,
        "paused_by": None,
        "pause_note": None,
    }
    assert (await admin.get(answer.headers["Location"])).json() == created


@pytest.mark.parametrize(
    "schedule",
    [
        {"type": "crontab", "expression": "30 9 * * mon-fri", "timezone": "Asia/Shanghai"},
        {"type": "interval", "every": 30, "unit": "seconds"},
        {"type": "one_off", "at": "2099-01-01T00:00:00+08:00"},
    ],
)
async def test_the_other_kinds_of_schedule(admin: httpx.AsyncClient, schedule: dict[str, Any]) -> None:
    created = await create(admin, schedule=schedule)
    assert created["schedule"].items() >= {"type": schedule["type"]}.items()
    assert created["next_run_at"] is not None


async def test_a_one_off_in_the_past_runs_at_once_when_it_is_written_not_when_it_is_renamed(
    admin: httpx.AsyncClient,
) -> None:
    past = {"type": "one_off", "at": "2020-01-01T00:00:00Z", "run_if_past": True}
    made = await create(admin, schedule=past)
    assert datetime.fromisoformat(made["next_run_at"]) >= datetime.fromisoformat(made["created_at"])
    path = f"{SCHEDULES}/{(await create(admin))['id']}"
    edited = (await admin.patch(path, json={"schedule": past}, headers=ANY)).json()
    assert datetime.fromisoformat(edited["next_run_at"]) >= datetime.fromisoformat(edited["created_at"])
    renamed = (await admin.patch(path, json={"task_name": "renamed"}, headers=ANY)).json()
    assert renamed["next_run_at"] == edited["next_run_at"]
    ends = {"task_extra_config": {"ends_at": "2020-06-01T00:00:00Z"}}
    assert (await admin.patch(path, json=ends, headers=ANY)).status_code == 409


async def test_only_what_is_given_changes(admin: httpx.AsyncClient) -> None:
    created = await create(admin, task_kwargs={"message": "hello"}, description="as made")
    changed = (
        await admin.patch(f"{SCHEDULES}/{created['id']}", json={"task_name": "renamed"}, headers=ANY)
    ).json()
    assert changed == created | {
        "task_name": "renamed",
        "version": 2,
        "updated_at": changed["updated_at"],
    }


async def test_disable_and_enable(admin: httpx.AsyncClient) -> None:
    path = f"{SCHEDULES}/{(await create(admin))['id']}"
    disabled = (await admin.post(f"{path}/disable")).json()
    assert (disabled["task_enabled"], disabled["state"], disabled["next_run_at"]) == (False, "disabled", None)
    enabled = (await admin.post(f"{path}/enable")).json()
    assert (enabled["task_enabled"], enabled["state"]) == (True, "active")
    assert enabled["next_run_at"] is not None


async def test_a_deleted_schedule_is_gone_and_its_runs_stay(admin: httpx.AsyncClient) -> None:
    path = f"{SCHEDULES}/{(await create(admin))['id']}"
    run = (await admin.post(f"{path}/run")).json()
    answer = await admin.delete(path, headers=ANY)
    assert (answer.status_code, answer.content) == (204, b"")
    for gone in (
        await admin.get(path),
        await admin.delete(path, headers=ANY),
        await admin.post(f"{path}/run"),
    ):
        assert gone.status_code == 404
    assert (await admin.get(f"{RUNS}/{run['id']}")).status_code == 200


async def test_run_now_makes_a_run_with_the_schedules_options(admin: httpx.AsyncClient) -> None:
    created = await create(
        admin,
        task_kwargs={"message": "hello"},
        task_extra_config={"queue": "priority_high"},
        task_enabled=False,
    )
    answer = await admin.post(f"{SCHEDULES}/{created['id']}/run")
    assert answer.status_code == 202, answer.text
    run = answer.json()
    assert answer.headers["Location"] == f"{RUNS}/{run['id']}"
    assert (
        run.items()
        >= {
            "state": "queued",
            "celery_state": "PENDING",
            "origin": "manual",
            "task": "scheduled_task.test_task",
            "queue": "priority_high",
            "schedule_id": created["id"],
            "schedule_version": 1,
            "scheduled_for": None,
            "attempt": 1,
            "args": [],
            "kwargs": {"message": "hello"},
            "result": None,
            "requested_by": "admin",
        }.items()
    )
    assert (await admin.get(answer.headers["Location"])).json()["id"] == run["id"]


async def test_a_task_is_run_on_demand(admin: httpx.AsyncClient) -> None:
    answer = await admin.post(
        f"{TASKS}/scheduled_task.test_task/runs",
        json={"args": [], "kwargs": {}, "options": {"queue": "priority_low"}, "countdown": 3600},
    )
    assert answer.status_code == 202, answer.text
    run = answer.json()
    assert answer.headers["Location"] == f"{RUNS}/{run['id']}"
    assert (run["queue"], run["schedule_id"]) == ("priority_low", None)
    wait = datetime.fromisoformat(run["due_at"]) - datetime.fromisoformat(run["created_at"])
    assert abs(wait - timedelta(hours=1)) < timedelta(seconds=5)


async def test_pages_of_schedules_hold_each_once(admin: httpx.AsyncClient) -> None:
    made = [(await create(admin, task_name=f"page {n}"))["id"] for n in range(5)]
    found: list[str] = []
    query: dict[str, Any] = {"limit": 2, "search": "page "}
    while True:
        page = (await admin.get(SCHEDULES, params=query)).json()
        assert set(page) == {"items", "next_cursor"}
        found += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert found == made


async def test_runs_are_listed_newest_first_and_filtered(admin: httpx.AsyncClient) -> None:
    schedule = (await create(admin))["id"]
    made = [(await admin.post(f"{SCHEDULES}/{schedule}/run")).json()["id"] for _ in range(3)]
    first = (await admin.get(RUNS, params={"schedule_id": schedule, "limit": 2})).json()
    rest = (
        await admin.get(RUNS, params={"schedule_id": schedule, "limit": 2, "cursor": first["next_cursor"]})
    ).json()
    assert [run["id"] for run in first["items"] + rest["items"]] == made[::-1]
    assert rest["next_cursor"] is None
    for query in ({"state": "failed"}, {"task": "no.such"}, {"queue": "system"}):
        assert (await admin.get(RUNS, params={"schedule_id": schedule, **query})).json()["items"] == []


async def test_tasks_are_listed_and_found_by_every_name(admin: httpx.AsyncClient) -> None:
    listed = (await admin.get(TASKS)).json()["items"]
    names = [task["name"] for task in listed]
    assert names == sorted(names)
    assert {"auth.cleanup_expired_sessions", "scheduled_task.test_task"} <= set(names)
    first = (await admin.get(TASKS, params={"limit": 1})).json()
    second = (await admin.get(TASKS, params={"limit": 1, "cursor": first["next_cursor"]})).json()
    assert [first["items"][0]["name"], second["items"][0]["name"]] == names[:2]
    alias = await admin.get(f"{TASKS}/src.apps.auth.tasks.cleanup_expired_sessions_task")
    assert alias.json()["name"] == "auth.cleanup_expired_sessions"


@pytest.mark.parametrize(
    "path", [f"{SCHEDULES}/{NOBODY}", f"{RUNS}/{NOBODY}", f"{TASKS}/no.such.task", "/api/v1/nothing"]
)
async def test_what_does_not_exist(admin: httpx.AsyncClient, path: str) -> None:
    answer = await admin.get(path, headers={"X-Request-ID": "abc-1"})
    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert (
        answer.json().items()
        >= {
            "type": "/problems/not_found",
            "status": 404,
            "instance": path,
            "request_id": "abc-1",
        }.items()
    )
