"""Bad input: a 4xx problem that names the field and the remedy, echoes nothing, and changes nothing."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import psycopg
import pytest
from fastapi import FastAPI

from support.api import connect
from support.servers import Database

SCHEDULES = "/api/v1/scheduled-tasks"
JSON = {"Content-Type": "application/json"}
ANY = {"If-Match": "*"}
SECRET = "hunter2"
TABLES = ("periodic_task_configs", "periodic_task_config_versions", "periodic_task_clocks", "task_runs")
GOOD: dict[str, Any] = {
    "task_name": "good",
    "task_path": "scheduled_task.test_task",
    "schedule": {"type": "interval", "every": 1, "unit": "hours"},
}


async def refused(client: httpx.AsyncClient, answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert SECRET not in answer.text
    problem: dict[str, Any] = answer.json()
    assert {"type", "title", "status", "detail", "instance", "request_id"} <= set(problem)
    assert problem["status"] == status
    assert answer.headers["X-Request-ID"] == problem["request_id"]
    assert (await client.get(SCHEDULES)).json()["items"] == []
    return problem


@pytest.mark.parametrize(
    ("change", "field", "remedy"),
    [
        ({"task_path": "auth.cleanup_expired_session"}, "task_path", "auth.cleanup_expired_sessions"),
        ({"task_path": SECRET}, "task_path", "GET /api/v1/tasks"),
        ({"task_extra_config": {"queue": SECRET}}, "task_extra_config.queue", "'priority_high'"),
        ({"task_extra_config": {"overlap": SECRET}}, "task_extra_config.overlap", "'allow_all'"),
        ({"task_extra_config": {"quue": 1}}, "task_extra_config.quue", "Did you mean queue?"),
        ({"task_extra_config": {"time_limit": -1}}, "task_extra_config.time_limit", "greater than 0"),
        ({"task_extra_config": [SECRET]}, "task_extra_config", "object"),
        ({"task_nmae": SECRET}, "task_nmae", "Did you mean task_name?"),
        ({"task_type": SECRET}, "task_type", "'system', 'business' or 'agent'"),
        ({"task_enabled": SECRET}, "task_enabled", "true or false"),
        ({"task_args": {"a": SECRET}}, "task_args", "list"),
        ({"task_kwargs": [SECRET]}, "task_kwargs", "object"),
        ({"task_name": ""}, "task_name", "at least 1 character"),
        ({"schedule": None}, "schedule", "schedule object"),
        ({"schedule": {}}, "schedule.type", "crontab"),
        ({"schedule": {"type": "crontab", "expression": "99 * * * *"}}, "schedule.expression", "0"),
        ({"schedule": {"type": "crontab", "expression": "* *"}}, "schedule.expression", "five"),
        ({"schedule": {"type": "crontab", "expression": "a b c d e"}}, "schedule.expression", "values 0-59"),
        ({"schedule": {"type": "crontab", "expression": "@never"}}, "schedule.expression", "@hourly"),
        (
            {"schedule": {"type": "crontab", "expression": "0 0 30 2 *"}},
            "schedule.expression",
            "change the day-of-month, month or day-of-week field",
        ),
        (
            {"schedule": None, "task_crontab_day_of_month": "31", "task_crontab_month_of_year": "2,4"},
            "task_crontab_day_of_month",
            "change the day-of-month, month or day-of-week field",
        ),
        (
            {"schedule": {"type": "crontab", "expression": "0 0 * * *", "timezone": "Mars/Olympus"}},
            "schedule.timezone",
            "Europe/",
        ),
        ({"schedule": {"type": "one_off", "at": "2099-01-01T00:00:00"}}, "schedule.at", "offset"),
        ({"schedule": {"type": "one_off", "at": "2099-02-30T00:00:00Z"}}, "schedule.at", "2027-03-01T09:00"),
        ({"schedule": {"type": "one_off", "at": "tomorrow"}}, "schedule.at", "2027-03-01T09:00"),
        (
            {"schedule": {"type": "one_off", "at": "2099-03-29T02:30:00", "timezone": "Europe/Berlin"}},
            "schedule.at",
            "2099-03-29T03:00:00+02:00",
        ),
        (
            {"schedule": {"type": "one_off", "at": "2099-10-25T02:30:00", "timezone": "Europe/Berlin"}},
            "schedule.at",
            "2099-10-25T02:30:00+01:00",
        ),
        (
            {"schedule": {"type": "one_off", "at": "2001-01-01T00:00:00", "timezone": "Asia/Shanghai"}},
            "schedule.at",
            "run_if_past",
        ),
        (
            {"schedule": {"type": "one_off", "at": "2099-01-01T00:00:00", "timezone": "Nowhere"}},
            "schedule.timezone",
            "Europe/Berlin",
        ),
        ({"schedule": {"type": "interval", "every": 1, "unit": "fortnights"}}, "schedule.unit", "weeks"),
        ({"schedule": {"type": "yearly"}}, "schedule.type", "crontab, interval or one_off"),
        ({"schedule": {"type": "one_off", "at": "2001-01-01T00:00:00Z"}}, "schedule.at", "run_if_past"),
        ({"schedule": {"type": "interval", "every": 0, "unit": "hours"}}, "schedule.every", "from 1"),
        ({"schedule": {"type": "interval", "evry": 1, "unit": "hours"}}, "schedule.evry", "every"),
        ({"schedule": None, "task_crontab_minute": "61"}, "task_crontab_minute", "59"),
        ({"schedule": None, "task_crontab_timezone": "UTC"}, "task_crontab_timezone", "at least one"),
        (
            {"schedule": None, "task_crontab_minute": "0", "task_crontab_timezone": "Mars/Olympus"},
            "task_crontab_timezone",
            "Europe/",
        ),
        ({"schedule": None, "task_crontab_minute": 0}, "task_crontab_minute", "string"),
        ({"schedule": None, "task_crontab_second": "0"}, "task_crontab_second", "Did you mean"),
        ({"task_crontab_minute": "0"}, "schedule", "not both"),
        ({"task_kwargs": {"x": {"y": "a\0b"}}}, "task_kwargs.x.y", "NUL"),
        ({"task_args": ["\ud800"]}, "task_args.0", "Unicode"),
        ({"description": "\0"}, "description", "NUL"),
    ],
)
async def test_a_field_that_will_not_do(
    admin: httpx.AsyncClient, database: Database, change: dict[str, Any], field: str, remedy: str
) -> None:
    answer = await admin.post(SCHEDULES, content=json.dumps(GOOD | change), headers=JSON)
    problem = await refused(admin, answer, 422)
    assert problem["type"] == "/problems/invalid_input"
    assert [error["field"] for error in problem["errors"]] == [field]
    assert remedy in problem["errors"][0]["message"]
    with psycopg.connect(database.url) as connection:
        for table in TABLES:
            assert connection.execute(f"SELECT count(*) FROM celery_{table}").fetchone() == (0,)


async def test_all_wrong_fields_are_named_at_once(admin: httpx.AsyncClient) -> None:
    problem = await refused(admin, await admin.post(SCHEDULES, json={"task_type": SECRET}), 422)
    assert {error["field"] for error in problem["errors"]} == {"task_name", "task_path", "task_type"}


@pytest.mark.parametrize(
    ("content", "remedy"),
    [
        (b"{", "line 1, column 2"),
        (b'{"task_name": hunter2}', "not valid JSON"),
        (b'{"task_name": "\xff"}', "UTF-8"),
        (b'{"task_kwargs": {"x": NaN}}', "NaN"),
        (b'{"task_kwargs": {"x": -Infinity}}', "infinity"),
        (b'{"task_kwargs": {"x": 1e999}}', "too large"),
        (b'{"task_kwargs": {"x": ' + b"9" * 5000 + b"}}", "64 bits"),
        (b'{"task_kwargs": {"x": 18446744073709551616}}', "64 bits"),
        (b"[" * 100_000, "too deeply"),
        (b"[" * 100 + b"]" * 100, "64 levels"),
        (b'{"a":' * 500 + b"1" + b"}" * 500, "64 levels"),
    ],
)
async def test_a_body_that_cannot_be_read(admin: httpx.AsyncClient, content: bytes, remedy: str) -> None:
    problem = await refused(admin, await admin.post(SCHEDULES, content=content, headers=JSON), 400)
    assert problem["type"] == "/problems/malformed_body"
    assert remedy in problem["detail"]


@pytest.mark.parametrize("content", [b"[]", b"1", b"null", b'"hunter2"', b""])
async def test_json_that_is_no_object(admin: httpx.AsyncClient, content: bytes) -> None:
    problem = await refused(admin, await admin.post(SCHEDULES, content=content, headers=JSON), 422)
    assert [error["field"] for error in problem["errors"]] == ["body"]


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "nonsense", "é"])
async def test_another_content_type(admin: httpx.AsyncClient, kind: str | None) -> None:
    headers = [] if kind is None else [(b"Content-Type", kind.encode("latin-1"))]
    answer = await admin.post(SCHEDULES, content=json.dumps(GOOD), headers=headers)
    problem = await refused(admin, answer, 415)
    assert "application/json" in problem["detail"]


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_body_that_is_too_large(api: FastAPI, admin: httpx.AsyncClient, *, chunked: bool) -> None:
    limit = api.state.services.settings.api.max_body_bytes
    content = b'{"task_name": "' + b"x" * limit + b'"}'

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(content), 65_536):
            yield content[start : start + 65_536]

    answer = await admin.post(SCHEDULES, content=chunks() if chunked else content, headers=JSON)
    problem = await refused(admin, answer, 413)
    assert problem["type"] == "/problems/body_too_large"
    assert str(limit) in problem["detail"]


@pytest.mark.parametrize(
    ("path", "field", "remedy"),
    [
        (f"{SCHEDULES}?limit=0", "limit", "greater than or equal to 1"),
        (f"{SCHEDULES}?limit=201", "limit", "less than or equal to 200"),
        (f"{SCHEDULES}?limit={'9' * 5000}", "limit", "too large"),
        (f"{SCHEDULES}?limit=hunter2", "limit", "whole number"),
        (f"{SCHEDULES}?cursor=hunter2", "cursor", "next_cursor"),
        (f"{SCHEDULES}?cursor=%C3%A9", "cursor", "next_cursor"),
        (f"{SCHEDULES}?cursor=%00", "cursor", "next_cursor"),
        (f"{SCHEDULES}?serach=x", "serach", "Did you mean search?"),
        (f"{SCHEDULES}?search=%00", "search", "NUL"),
        (f"{SCHEDULES}?state=hunter2", "state", "'active'"),
        (f"{SCHEDULES}/hunter2", "schedule_id", "UUID"),
        ("/api/v1/runs?schedule_id=hunter2", "schedule_id", "UUID"),
        ("/api/v1/runs?task=%00", "task", "NUL"),
        ("/api/v1/runs?queue=hunter2", "queue", "'system'"),
        ("/api/v1/runs/hunter2", "run_id", "UUID"),
        ("/api/v1/tasks?cursor=%FF", "cursor", "next_cursor"),
    ],
)
async def test_a_query_that_will_not_do(admin: httpx.AsyncClient, path: str, field: str, remedy: str) -> None:
    problem = (await admin.get(path)).json()
    assert problem["status"] == 422
    assert [error["field"] for error in problem["errors"]] == [field]
    assert remedy in problem["errors"][0]["message"]
    assert SECRET not in problem["detail"]


async def test_a_change_that_is_refused_changes_nothing(admin: httpx.AsyncClient) -> None:
    created = (await admin.post(SCHEDULES, json=GOOD)).json()
    path = f"{SCHEDULES}/{created['id']}"
    try:
        for change in (
            {"task_name": "new", "task_path": "no.such.task"},
            {"task_name": "new", "schedule": {"type": "crontab", "expression": "nonsense"}},
            {"task_name": "new", "unknown": 1},
            {"task_name": None, "task_extra_config": {"queue": "nope"}},
        ):
            assert (await admin.patch(path, json=change, headers=ANY)).status_code == 422
        assert (await admin.get(path)).json() == created
    finally:
        await admin.delete(path, headers=ANY)


async def test_runs_on_demand_of_what_cannot_run(admin: httpx.AsyncClient) -> None:
    path = "/api/v1/tasks/scheduled_task.test_task/runs"
    for body, field in (
        ({"options": {"queue": "nope"}}, "options.queue"),
        ({"args": {}}, "args"),
        ({"countdown": -1}, "countdown"),
        ({"argz": []}, "argz"),
    ):
        problem = (await admin.post(path, json=body)).json()
        assert [error["field"] for error in problem["errors"]] == [field]
    assert (await admin.post("/api/v1/tasks/no.such/runs", json={})).status_code == 404
    assert (await admin.get("/api/v1/runs")).json()["items"] == []


async def test_a_method_that_is_not_served(admin: httpx.AsyncClient) -> None:
    answer = await admin.put(SCHEDULES)
    problem = await refused(admin, answer, 405)
    assert problem["type"] == "/problems/method_not_allowed"
    assert set(answer.headers["Allow"].split(", ")) == {"GET", "POST"}


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE", "OPTIONS"])
async def test_a_path_of_its_own_is_not_one_with_parameters(admin: httpx.AsyncClient, method: str) -> None:
    """`/check` is no schedule, so its absent methods are not those of `/{schedule_id}`."""
    problem = await refused(admin, answer := await admin.request(method, f"{SCHEDULES}/check"), 405)
    assert problem["type"] == "/problems/method_not_allowed"
    assert answer.headers["Allow"] == "POST"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"task_enabled": 1}, "task_enabled"),
        ({"task_enabled": "true"}, "task_enabled"),
        ({"task_extra_config": {"max_attempts": "5"}}, "task_extra_config.max_attempts"),
        ({"task_extra_config": {"max_attempts": 5.0}}, "task_extra_config.max_attempts"),
        ({"task_extra_config": {"time_limit": True}}, "task_extra_config.time_limit"),
        ({"task_extra_config": {"ends_at": 4102444800}}, "task_extra_config.ends_at"),
        ({"task_extra_config": {"ends_at": "4102444800"}}, "task_extra_config.ends_at"),
        ({"task_extra_config": {"ends_at": "9999-12-31T23:59:59-12:00"}}, "task_extra_config.ends_at"),
    ],
)
async def test_what_could_be_read_as_another_type_is_refused(
    admin: httpx.AsyncClient, change: dict[str, Any], field: str
) -> None:
    problem = await refused(admin, await admin.post(SCHEDULES, json=GOOD | change), 422)
    assert [error["field"] for error in problem["errors"]] == [field]


async def test_no_body_is_read_of_those_who_may_not_call(api: FastAPI) -> None:
    """Neither its errors are told, nor is any work spent on it."""
    read = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal read
        for chunk in (b"{", b'"task_enabled": 1, ', b"]"):
            read += 1
            yield chunk

    async with connect(api) as nobody:
        answer = await nobody.post(SCHEDULES, content=chunks(), headers=JSON)
    assert (answer.status_code, read) == (401, 0)


@pytest.mark.parametrize("year", ["0186", "0001", "9999"])
@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", "/api/v1/runs", "since"),
        ("GET", "/api/v1/runs", "until"),
        ("POST", "/api/v1/runs/cancel", "until"),
        ("POST", "/api/v1/runs/replay", "since"),
        ("GET", f"{SCHEDULES}/0199d0c2-f2f0-7a51-9c66-3f0c5f3ad4b1/why", "at"),
        ("GET", f"{SCHEDULES}/0199d0c2-f2f0-7a51-9c66-3f0c5f3ad4b1/preview", "after"),
    ],
)
async def test_an_instant_that_no_id_can_hold(
    admin: httpx.AsyncClient, method: str, path: str, name: str, year: str
) -> None:
    given = {name: f"{year}-05-16T17:20:18-04:27"}
    how: dict[str, Any] = {"params": given} if method == "GET" else {"json": given}
    problem = await refused(admin, await admin.request(method, path, **how), 422)
    assert [error["field"] for error in problem["errors"]] == [name]
    assert "between the years" in problem["errors"][0]["message"]
