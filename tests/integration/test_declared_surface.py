"""Declared schedules and typed arguments as users meet them: over HTTP, and by the command."""

import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.scheduling.declarations import Declared, Owner, read
from app.scheduling.declared import Prune
from support.processes import Processes
from support.stack import Stack

SCHEDULES, TASKS = "/api/v1/scheduled-tasks", "/api/v1/tasks"
OLD_SESSIONS = "auth.cleanup_old_sessions"
ANY = {"If-Match": "*"}
DAILY = {"type": "crontab", "expression": "20 3 * * *"}


@pytest.fixture
async def owned(api: FastAPI, admin: httpx.AsyncClient) -> AsyncIterator[dict[str, Any]]:
    deployment = api.state.services.scheduler.deployment
    given = {"task_name": "Old sessions", "task_path": OLD_SESSIONS, "schedule": DAILY, "task_enabled": False}
    owners = frozenset({Owner.CODE})
    await deployment.apply(Declared(owners, (read(Owner.CODE, "k", given, "here"),)), actor="test")
    listed = (await admin.get(SCHEDULES, params={"owner": "code"})).json()["items"]
    yield listed[0]
    await deployment.apply(Declared(owners, ()), actor="test", prune=Prune.DELETE)


async def create(client: httpx.AsyncClient, **changes: Any) -> httpx.Response:
    body = {"task_name": "test", "task_path": OLD_SESSIONS, "schedule": DAILY, **changes}
    return await client.post(SCHEDULES, json=body)


def errors(answer: httpx.Response) -> dict[str, str]:
    assert answer.status_code == 422, answer.text
    return {each["field"]: each["message"] for each in answer.json()["errors"]}


async def test_arguments_are_checked_when_a_schedule_is_saved(admin: httpx.AsyncClient) -> None:
    assert errors(await create(admin, task_kwargs={"days": "seven-secret"})) == {
        "task_kwargs.days": "Must be a whole number."
    }
    assert errors(await create(admin, task_kwargs={"dayz": 7})) == {
        "task_kwargs.dayz": "The task has no parameter of this name. Did you mean days? It takes days."
    }
    assert errors(await create(admin, task_args=[1, 2])) == {
        "task_args[1]": "Is one argument too many: the task takes at most 1 by position."
    }
    assert (
        "auth.cleanup_old_sessions"
        in errors(await create(admin, task_path="auth.cleanup_old_session"))["task_path"]
    )
    created = await create(admin, task_kwargs={"days": 7})
    assert created.status_code == 201
    path = f"{SCHEDULES}/{created.json()['id']}"
    assert set(errors(await admin.patch(path, json={"task_kwargs": {"days": None}}, headers=ANY))) == {
        "task_kwargs.days"
    }
    assert set(
        errors(await admin.patch(path, json={"task_path": "auth.session_statistics"}, headers=ANY))
    ) == {"task_kwargs.days"}
    both = {"task_path": "auth.session_statistics", "task_kwargs": {}}
    assert (await admin.patch(path, json=both, headers=ANY)).status_code == 200


async def test_arguments_are_checked_when_a_run_is_submitted(admin: httpx.AsyncClient) -> None:
    path = f"{TASKS}/scheduled_task.test_task/runs"
    answer = await admin.post(path, json={"args": [5], "kwargs": {"secondz": 1}})
    assert errors(answer) == {
        "args[0]": "Must be a string.",
        "kwargs.secondz": "The task has no parameter of this name. Did you mean seconds? It takes message, seconds.",
    }
    run = await admin.post(path, json={"args": ["hello"], "kwargs": {"seconds": 0}})
    assert run.status_code == 202
    assert (run.json()["args"], run.json()["kwargs"]) == (["hello"], {"seconds": 0})


async def test_a_tasks_schema_is_shown(admin: httpx.AsyncClient) -> None:
    task = (await admin.get(f"{TASKS}/scheduled_task.test_task")).json()
    assert task["parameters"] == {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "message": {"type": "string", "default": "It works."},
            "seconds": {"type": "number", "default": 0.0},
        },
        "required": [],
        "additionalProperties": False,
        "description": "Wait for `seconds`, then tell who ran it and when.",
    }
    assert [item["title"] for item in task["positional_parameters"]["prefixItems"]] == ["message", "seconds"]


async def test_a_declared_schedule_is_read_only_and_can_be_operated(
    admin: httpx.AsyncClient, owned: dict[str, Any]
) -> None:
    path = f"{SCHEDULES}/{owned['id']}"
    assert (owned["owner"], owned["owner_key"], owned["state"]) == ("code", "k", "disabled")
    for refused in (
        await admin.patch(path, json={"task_kwargs": {"days": 1}}, headers=ANY),
        await admin.patch(path, json={"task_enabled": True, "description": "mine"}, headers=ANY),
        await admin.delete(path, headers=ANY),
    ):
        assert refused.status_code == 409, refused.text
        assert "upbeat schedules apply" in refused.json()["detail"]
    for action, body, state in (
        ("enable", None, "active"),
        ("pause", {"note": "maintenance"}, "paused"),
        ("resume", {}, "active"),
        ("disable", None, "disabled"),
    ):
        assert (await admin.post(f"{path}/{action}", json=body)).status_code == 200
        assert (await admin.get(path)).json()["state"] == state
    assert (await admin.patch(path, json={"task_enabled": True}, headers=ANY)).json()["state"] == "active"
    assert (await admin.post(f"{path}/run")).status_code == 202


async def test_schedules_are_listed_by_owner(admin: httpx.AsyncClient, owned: dict[str, Any]) -> None:
    mine = (await create(admin)).json()
    for owner, there, elsewhere in (("people", mine, owned), ("code", owned, mine)):
        listed = (await admin.get(SCHEDULES, params={"owner": owner, "limit": 200})).json()["items"]
        assert there["id"] in {item["id"] for item in listed}
        assert elsewhere["id"] not in {item["id"] for item in listed}
    assert (await admin.get(SCHEDULES, params={"owner": "file"})).json()["items"] == []
    assert (await admin.get(SCHEDULES, params={"owner": "me"})).status_code == 422


async def test_schedules_are_checked_on_demand(admin: httpx.AsyncClient) -> None:
    found = await admin.post(f"{SCHEDULES}/check")
    assert found.status_code == 200, found.text
    assert found.json()["checked"] >= 1
    assert (found.json()["invalidated"], found.json()["findings"]) == (0, [])
    assert found.json()["next_cursor"] is None
    assert (await admin.post(f"{SCHEDULES}/check", params={"cursor": "?"})).status_code == 422


FILE = """
schedules:
  nightly:
    task_path: auth.cleanup_old_sessions
    schedule: {type: crontab, expression: "20 3 * * *"}
    task_kwargs: {days: 30}
"""
MODULE = '''
from datetime import timedelta

from app.scheduling.declarations import TaskSchedule, cron, every
from app.worker import app

DEFAULT_SCHEDULES = [
    {"key": "in-module", "task_name": "In the module", "task_path": "shop.count", "schedule": cron("0 5 * * *"),
     "task_enabled": False},
]


@app.task(
    name="shop.count",
    schedules=[
        TaskSchedule(schedule=every(timedelta(minutes=5)), task_kwargs={"shop": "north"}),
        TaskSchedule(key="south", schedule=cron("0 * * * *", "Asia/Shanghai"), task_kwargs={"shop": "south"}),
    ],
)
def count(shop: str = "all") -> int:
    """Count what is on the shelves."""
    return len(shop)
'''


class Command:
    """`upbeat`, with a file of schedules and a module of tasks of the test's own."""

    def __init__(self, processes: Processes, stack: Stack, folder: Path) -> None:
        self._processes = processes
        self.file = folder / "schedules.yaml"
        self.module = folder / "shop_tasks.py"
        self.file.write_text(FILE)
        self.module.write_text(MODULE)
        path = f"{stack.environment['PYTHONPATH']}:{folder}"
        own = {
            "UPBEAT_SCHEDULES_FILE": str(self.file),
            "UPBEAT_TASK_MODULES": "shop_tasks",
            "PYTHONPATH": path,
        }
        self._environment = stack.environment | own | {"PYTHONDONTWRITEBYTECODE": "1"}
        self._count = 0

    def __call__(self, *arguments: str) -> tuple[int, str]:
        self._count += 1
        command = [sys.executable, "-m", "app.cli", *arguments]
        process = self._processes.start(f"upbeat{self._count}", command, self._environment)
        return process.wait(40), process.output()


@pytest.fixture
def command(processes: Processes, stack: Stack, tmp_path: Path) -> Command:
    return Command(processes, stack, tmp_path)


async def test_a_deployment_by_the_command(command: Command, api: FastAPI, admin: httpx.AsyncClient) -> None:
    status, output = command("schedules", "plan")
    assert status == 2, output
    created = [
        "code: in-module",
        "code: shop.count",
        "code: south",
        "file: nightly",
        "code: auth.session_statistics",
    ]
    assert [each for each in created if f"create     {each}\n" not in output] == []
    status, output = command("migrate")
    assert status == 0, output
    assert [each for each in created if f"create     {each}\n" not in output] == []

    command.file.write_text(FILE.replace("nightly", "weekly"))
    command.module.write_text(MODULE.replace("shop: str = ", "store: str = ").replace('"shop":', '"store":'))
    status, output = command("schedules", "apply")
    assert status == 0, output
    assert "update     code: south" in output
    assert 'task_kwargs: {"shop": "south"} -> {"store": "south"}' in output
    assert "orphaned   file: nightly" in output

    command.module.write_text(MODULE.partition("DEFAULT_SCHEDULES")[0])
    status, output = command("schedules", "check", "--json")
    assert status == 2, output
    gone = [each for each in json.loads(output)["findings"] if each["task_path"] == "shop.count"]
    assert sorted(each["change"] for each in gone) == ["invalidated", "invalidated", "reported"]
    assert all(each["reason"].startswith("task_path: No task has this name.") for each in gone)
    listed = (await admin.get(SCHEDULES, params={"state": "invalid"})).json()["items"]
    assert {item["task"] for item in listed} == {"shop.count"}

    status, output = command("schedules", "prune", "--json")
    assert status == 0, output
    done = {step["key"]: step["action"] for step in json.loads(output)}
    assert done.pop("auth.session_statistics") == "unchanged"
    assert {key: done[key] for key in done if done[key] != "unchanged" or key == "weekly"} == {
        "in-module": "delete",
        "nightly": "delete",
        "shop.count": "delete",
        "south": "delete",
        "weekly": "unchanged",
    }


def test_what_is_wrong_is_said_and_nothing_is_done(command: Command) -> None:
    command.file.write_text(FILE.replace("days: 30", "days: soon"))
    status, output = command("schedules", "apply")
    assert status == 1
    assert f"{command.file}: schedules.nightly.task_kwargs.days: Must be a whole number." in output
