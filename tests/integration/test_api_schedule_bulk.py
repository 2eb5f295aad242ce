"""Many scheduled tasks over HTTP: sorting, bulk actions, export and import; and their versions."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from app.settings import Settings
from support.api import connected, serving
from support.polling import eventually_async

SCHEDULES = "/api/v1/scheduled-tasks"
TASK = "scheduled_task.test_task"
# Too deep, endless, and a few hundred bytes that stand for more than a machine has memory.
TRAPS = (
    {"yaml": "[" * 5000},
    {"yaml": "schedules: {a: &a {task_path: b, task_args: [*a]}}"},
    {
        "yaml": "schedules:\n  a: &a0 {b: [x, x, x, x, x, x, x, x, x, x]}\n"
        + "".join(f"  b{n}: &a{n} {{c: [{', '.join([f'*a{n - 1}'] * 10)}]}}\n" for n in range(1, 10))
    },
)
DAILY = {"type": "crontab", "expression": "0 9 * * *", "timezone": "UTC", "day_match": "or"}


@pytest.fixture(scope="module")
async def admin(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(settings) as app, connected(app) as client:
        yield client


async def create(client: httpx.AsyncClient, name: str, **more: Any) -> dict[str, Any]:
    body = {"task_name": name, "task_path": TASK, "schedule": DAILY, **more}
    answer = await client.post(SCHEDULES, json=body)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def family(client: httpx.AsyncClient, number: int, **more: Any) -> tuple[str, list[str]]:
    """So many schedules that a search finds, and nobody else's."""
    mark = uuid4().hex
    made = [await create(client, f"{mark} {position}", **more) for position in range(number)]
    return mark, [each["id"] for each in made]


async def listed(client: httpx.AsyncClient, **query: Any) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        answer = await client.get(SCHEDULES, params={**query, **cursor})
        assert answer.status_code == 200, answer.text
        page = answer.json()
        items += page["items"]
        if page["next_cursor"] is None:
            return items
        cursor = {"cursor": page["next_cursor"]}


async def act(client: httpx.AsyncClient, action: str, mark: str, **more: Any) -> dict[str, Any]:
    answer = await client.post(
        f"{SCHEDULES}/bulk", json={"action": action, "filter": {"search": mark}, **more}
    )
    assert answer.status_code == 200, answer.text
    done: dict[str, Any] = answer.json()
    return done


async def audited(client: httpx.AsyncClient, action: str) -> list[dict[str, Any]]:
    answer = await client.get("/api/v1/audit", params={"action": action})
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


@pytest.mark.parametrize("sort", ["created", "-created", "name", "-name", "updated", "-updated", "next_run"])
async def test_each_order_walks_all_pages(admin: httpx.AsyncClient, sort: str) -> None:
    mark, _ = await family(admin, 3)
    await create(admin, f"{mark} a", schedule={"type": "interval", "every": 1, "unit": "hours"})
    await create(admin, f"{mark} b", task_enabled=False)
    key = {"created": "created_at", "name": "task_name", "updated": "updated_at", "next_run": "next_run_at"}
    found = await listed(admin, search=mark, sort=sort, limit=2)
    values = [each[key[sort.lstrip("-")]] for each in found]
    assert values == sorted(values, reverse=sort.startswith("-"))
    assert len({each["id"] for each in found}) == (4 if sort == "next_run" else 5)
    first = (await admin.get(SCHEDULES, params={"search": mark, "sort": sort, "limit": 1})).json()
    other = "name" if sort == "created" else "created"
    wrong = await admin.get(SCHEDULES, params={"cursor": first["next_cursor"], "sort": other})
    assert wrong.json()["errors"][0]["field"] == "cursor"


async def test_filters(admin: httpx.AsyncClient) -> None:
    mark, _ = await family(admin, 1)
    await create(admin, f"{mark} s", task_type="system", task_extra_config={"queue": "system"})
    for query in ({"task_type": "system"}, {"queue": "system"}):
        assert [each["task_name"] for each in await listed(admin, search=mark, **query)] == [f"{mark} s"]
    assert len(await listed(admin, search=mark, task=TASK)) == 2


async def test_a_bulk_action_changes_all_that_the_filter_finds(admin: httpx.AsyncClient) -> None:
    mark, ids = await family(admin, 53)
    before = len(await audited(admin, "act_on_scheduled_tasks"))
    dry = await act(admin, "pause", mark, note="moving house", dry_run=True)
    assert (dry["matched"], dry["changed"], dry["next_cursor"]) == (53, 53, None)
    assert {each["state"] for each in await listed(admin, search=mark)} == {"active"}
    assert len(await audited(admin, "act_on_scheduled_tasks")) == before
    done = await act(admin, "pause", mark, note="moving house", limit=51)
    assert (done["matched"], done["changed"], done["refused"]) == (51, 51, 0)
    rest = await act(admin, "pause", mark, note="moving house", cursor=done["next_cursor"])
    assert (rest["matched"], rest["changed"], rest["next_cursor"]) == (2, 2, None)
    found = await listed(admin, search=mark)
    assert {(each["state"], each["pause_note"]) for each in found} == {("paused", "moving house")}
    # Parts of fifty, each with its own line in the audit.
    assert len(await audited(admin, "act_on_scheduled_tasks")) == before + 3
    refused = await act(admin, "enable", mark)
    assert (refused["changed"], refused["refused"], len(refused["refusals"])) == (0, 53, 53)
    assert "paused" in refused["refusals"][0]["why"]
    assert (await act(admin, "resume", mark))["changed"] == 53
    disabled = await act(admin, "disable", mark, reason="not needed")
    assert disabled["changed"] == 53
    assert (await act(admin, "disable", mark))["unchanged"] == 53
    history = (await admin.get(f"{SCHEDULES}/{ids[0]}/history")).json()["items"]
    assert (history[0]["author"], history[0]["reason"]) == ("admin", "not needed")
    ran = await act(admin, "run", mark, limit=3)
    assert ran["changed"] == 3
    runs = (await admin.get("/api/v1/runs", params={"schedule_id": ids[0]})).json()["items"]
    assert [(each["origin"], each["requested_by"]) for each in runs] == [("manual", "admin")]
    assert (await act(admin, "delete", mark))["changed"] == 53
    assert await listed(admin, search=mark) == []


@pytest.mark.parametrize(
    "body",
    [
        {"action": "delete", "filter": {}},
        {"action": "pause", "filter": {"state": "active"}},
        {"action": "pause", "filter": {"state": "active"}, "note": " "},
        {"action": "explode", "filter": {"state": "active"}},
        {"action": "delete", "filter": {"state": "active"}, "limit": 1001},
        {"action": "delete", "filter": {"nmae": "x"}},
    ],
)
async def test_a_bulk_action_that_is_not_clear_is_refused(
    admin: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    assert (await admin.post(f"{SCHEDULES}/bulk", json=body)).status_code == 422


async def test_what_is_exported_imports_as_it_is(admin: httpx.AsyncClient) -> None:
    mark, _ = await family(admin, 2)
    twins = [await create(admin, f"{mark} twin", description=str(number)) for number in range(2)]
    await create(
        admin,
        f"{mark} ünïcode: {{yaml}} 'quotes' # 1",
        task_kwargs={"message": "2026-01-01T00:00:00Z", "seconds": 1e-07},
        task_extra_config={"queue": "system", "jitter": "5%", "starts_at": "2099-01-01T00:00:00Z"},
        task_type="system",
        description="line\nline: 'x'\n\ttab",
    )
    off = await create(admin, f"{mark} off", task_enabled=False)
    still = await create(admin, f"{mark} still")
    await admin.post(f"{SCHEDULES}/{still['id']}/pause", json={"note": "yes"})
    before = await listed(admin, search=mark)
    exported = (await admin.get(f"{SCHEDULES}/export", params={"search": mark})).json()
    yaml = await admin.get(f"{SCHEDULES}/export/yaml", params={"search": mark})
    assert yaml.headers["Content-Type"].startswith("text/yaml")
    assert len(exported["schedules"]) == 7
    assert set(exported["schedules"]) >= {twins[0]["id"], twins[1]["id"]}
    for body in ({"schedules": exported["schedules"]}, {"yaml": yaml.text}):
        done = (await admin.post(f"{SCHEDULES}/import", json=body)).json()
        assert done["counts"] == {"create": 0, "update": 0, "unchanged": 7, "conflict": 0}, done
    assert await listed(admin, search=mark) == before
    # And where they are gone, they come back as they were.
    await act(admin, "delete", mark)
    back = await admin.post(
        f"{SCHEDULES}/import", json={"yaml": yaml.text}, headers={"Idempotency-Key": mark}
    )
    assert back.json()["counts"]["create"] == 7, back.text
    again = await admin.post(
        f"{SCHEDULES}/import", json={"yaml": yaml.text}, headers={"Idempotency-Key": mark}
    )
    assert again.json() == back.json()
    after = await listed(admin, search=mark)
    own = {"id", "version", "created_at", "updated_at", "paused_at", "next_run_at"}
    plain = [{name: value for name, value in each.items() if name not in own} for each in before]
    assert [{name: value for name, value in each.items() if name not in own} for each in after] == plain
    assert {each["state"] for each in after if each["task_name"] == off["task_name"]} == {"disabled"}


async def test_an_import_creates_and_updates_by_name(admin: httpx.AsyncClient) -> None:
    mark, ids = await family(admin, 1)
    entries = {
        f"{mark} 0": {
            "task_path": TASK,
            "schedule": DAILY | {"expression": "0 10 * * *"},
            "pause_note": "wait",
        },
        f"{mark} new": {"task_path": TASK, "schedule": DAILY},
    }
    plan = (await admin.post(f"{SCHEDULES}/import", json={"schedules": entries, "dry_run": True})).json()
    assert [(each["action"], each["id"]) for each in plan["items"]] == [("update", ids[0]), ("create", None)]
    assert plan["items"][0]["changes"][1] == {"field": "pause_note", "before": None, "after": "wait"}
    assert len(await listed(admin, search=mark)) == 1
    done = await admin.post(f"{SCHEDULES}/import", json={"schedules": entries, "reason": "by file"})
    assert done.status_code == 200, done.text
    first, second = await listed(admin, search=mark)
    assert (first["state"], first["pause_note"], second["state"]) == ("paused", "wait", "active")
    history = (await admin.get(f"{SCHEDULES}/{ids[0]}/history")).json()["items"]
    assert [(each["action"], each["reason"]) for each in history] == [
        ("pause", "wait"), ("update", "by file"), ("create", None),
    ]  # fmt: skip


async def test_an_import_names_what_is_wrong_and_changes_nothing(admin: httpx.AsyncClient) -> None:
    mark, _ = await family(admin, 1)
    good = {"task_path": TASK, "schedule": DAILY}
    bad = {
        f"{mark} task": good | {"task_path": "no.such.task"},
        f"{mark} cron": good | {"schedule": DAILY | {"expression": "99 * * * *"}},
        f"{mark} fine": good,
    }
    answer = await admin.post(f"{SCHEDULES}/import", json={"schedules": bad})
    assert answer.status_code == 422
    fields = [each["field"] for each in answer.json()["errors"]]
    assert fields == [
        f"body: schedules.{mark} task.task_path",
        f"body: schedules.{mark} cron.schedule.expression",
    ]
    unknown = {f"{mark} x": good | {"shedule": DAILY}, f"{mark} y": good | {"pause_note": 3}}
    answer = await admin.post(f"{SCHEDULES}/import", json={"schedules": unknown})
    assert answer.json()["errors"][0]["field"] == f"body: schedules.{mark} y.pause_note"
    for body in (
        {},
        {"schedules": {}, "yaml": "schedules: {}"},
        {"yaml": "schedules: ["},
        {"yaml": "a: b"},
        *TRAPS,
    ):
        assert (await admin.post(f"{SCHEDULES}/import", json=body)).status_code == 422, body
    for _ in range(2):
        await create(admin, f"{mark} twin")
    clash = {f"{mark} twin": good, f"{mark} 0": good | {"description": "new"}}
    answer = await admin.post(f"{SCHEDULES}/import", json={"schedules": clash})
    assert answer.status_code == 409
    assert "Several schedules have this name" in answer.json()["detail"]
    answer = await admin.post(f"{SCHEDULES}/import", json={"schedules": clash, "skip_conflicts": True})
    assert answer.json()["counts"] == {"create": 0, "update": 1, "unchanged": 0, "conflict": 1}
    assert len(await listed(admin, search=mark)) == 3


async def test_versions_are_compared_and_brought_back(admin: httpx.AsyncClient) -> None:
    made = await create(admin, "versioned")
    url = f"{SCHEDULES}/{made['id']}"
    change = {"schedule": DAILY | {"expression": "0 10 * * *"}, "description": "late", "reason": "too early"}
    changed = await admin.patch(url, json=change, headers={"If-Match": '"1"'})
    assert changed.status_code == 200, changed.text
    version = (await admin.get(f"{url}/history/2")).json()
    assert (version["reason"], version["author"], version["config"]["description"]) == (
        "too early", "admin", "late",
    )  # fmt: skip
    diff = (await admin.get(f"{url}/history/2/diff")).json()
    assert (diff["before"], diff["after"], diff["reason"]) == (1, 2, "too early")
    assert [each["field"] for each in diff["changes"]] == ["description", "schedule"]
    assert diff["changes"][0] == {"field": "description", "before": None, "after": "late"}
    backwards = (await admin.get(f"{url}/history/1/diff", params={"against": 2})).json()
    assert backwards["changes"][0] == {"field": "description", "before": "late", "after": None}
    assert (await admin.get(f"{url}/history/1/diff")).json()["before"] is None
    restore = f"{url}/history/1/restore"
    assert (await admin.post(restore)).status_code == 428
    assert (await admin.post(restore, headers={"If-Match": '"1"'})).status_code == 412
    back = await admin.post(restore, json={"reason": "was right"}, headers={"If-Match": '"2"'})
    assert back.status_code == 200, back.text
    assert back.headers["ETag"] == '"3"'
    assert (back.json()["schedule"], back.json()["description"]) == (made["schedule"], None)
    newest = (await admin.get(f"{url}/history")).json()["items"][0]
    assert (newest["action"], newest["reason"]) == ("restore", "was right")
    for missing in (f"{url}/history/9", f"{url}/history/9/diff", f"{SCHEDULES}/{uuid4()}/history/1"):
        assert (await admin.get(missing)).status_code == 404
    gone = await admin.delete(url, params={"reason": "done"}, headers={"If-Match": "*"})
    assert gone.status_code == 204
    assert (await admin.get(f"{url}/history/4")).json()["reason"] == "done"


async def test_a_deleted_schedule_comes_back_with_its_history_and_its_runs(admin: httpx.AsyncClient) -> None:
    made = await create(admin, "gone too soon")
    url = f"{SCHEDULES}/{made['id']}"
    restore = f"{url}/history/1/restore"
    run = (await admin.post(f"{url}/run")).json()["id"]
    await admin.patch(url, json={"description": "changed"}, headers={"If-Match": "*"})
    await admin.delete(url, headers={"If-Match": "*"})
    assert (await admin.get(url)).status_code == 404
    assert (await admin.post(restore, headers={"If-Match": '"2"'})).status_code == 412
    answers = await asyncio.gather(
        *(admin.post(restore, json={"reason": "missed"}, headers={"If-Match": '"3"'}) for _ in range(3))
    )
    assert sorted(answer.status_code for answer in answers) == [200, 412, 412], "once, whoever asks"
    back = (await admin.get(url)).json()
    assert (back["id"], back["version"], back["state"], back["description"]) == (
        made["id"],
        4,
        "active",
        None,
    )
    assert back["next_run_at"] is not None
    history = (await admin.get(f"{url}/history")).json()["items"]
    assert [each["action"] for each in history] == ["restore", "delete", "update", "create"]
    assert history[0]["reason"] == "missed"
    runs = (await admin.get("/api/v1/runs", params={"schedule_id": made["id"]})).json()["items"]
    assert [each["id"] for each in runs] == [run]


@pytest.mark.parametrize("was", ["paused", "disabled"])
async def test_what_did_not_fire_when_it_was_deleted_does_not_when_it_is_back(
    admin: httpx.AsyncClient, was: str
) -> None:
    made = await create(admin, f"deleted while {was}")
    url = f"{SCHEDULES}/{made['id']}"
    if was == "paused":
        await admin.post(f"{url}/pause", json={"note": "the disk is full"})
    else:
        await admin.patch(url, json={"task_enabled": False}, headers={"If-Match": "*"})
    await admin.delete(url, headers={"If-Match": "*"})
    back = await admin.post(f"{url}/history/1/restore", headers={"If-Match": "*"})
    assert back.status_code == 200, back.text
    found = back.json()
    assert (found["state"], found["next_run_at"]) == (was, None)
    assert found["pause_note"] == ("the disk is full" if was == "paused" else None)
    assert back.headers["ETag"] == f'"{found["version"]}"'


async def test_what_could_not_be_saved_does_not_come_back(admin: httpx.AsyncClient) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=1)
    made = await create(admin, "once", schedule={"type": "one_off", "at": soon.isoformat()})
    url = f"{SCHEDULES}/{made['id']}"
    await admin.delete(url, headers={"If-Match": "*"})

    async def past() -> bool:
        return datetime.now(UTC) > soon + timedelta(seconds=1)  # kept in whole seconds, rounded up

    await eventually_async(past, 10)
    answer = await admin.post(f"{url}/history/1/restore", headers={"If-Match": "*"})
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["field"] == "schedule.at"
    assert (await admin.get(url)).status_code == 404
