"""Previews and simulations over HTTP, on a real database."""

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session, sessionmaker

from app.scheduling.calculating import AT_ONCE, calculated
from app.scheduling.models import ClockRow, ScheduleRow

SCHEDULES = "/api/v1/scheduled-tasks"
NOBODY = "0199d0c2-f2f0-7a51-9c66-3f0c5f3ad4b1"
BERLIN = {"type": "crontab", "expression": "30 2 * * *", "timezone": "Europe/Berlin"}
HOURLY = {"type": "interval", "every": 1, "unit": "hours"}
EASTER = "2099-03-28T12:00:00Z"


async def create(client: httpx.AsyncClient, schedule: dict[str, Any], **extra: Any) -> str:
    answer = await client.post(
        SCHEDULES,
        json={
            "task_name": "test",
            "task_path": "scheduled_task.test_task",
            "schedule": schedule,
            "task_extra_config": extra,
        },
    )
    assert answer.status_code == 201, answer.text
    return f"{SCHEDULES}/{answer.json()['id']}"


async def good(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_preview_in_full(admin: httpx.AsyncClient) -> None:
    path = await create(admin, BERLIN)
    found = await good(await admin.get(f"{path}/preview", params={"n": 2, "after": EASTER}))
    tick = {"dst": None, "skipped_local_time": None, "offset_change": None, "excluded_by": None}
    assert found == {
        "description": "At 02:30, Europe/Berlin; a time that the clock skips runs at the end of the gap",
        "timezone": "Europe/Berlin",
        "after": EASTER,
        "items": [
            tick
            | {
                "scheduled_for": "2099-03-29T01:00:00Z",
                "due_at": "2099-03-29T01:00:00Z",
                "local_time": "2099-03-29T03:00:00+02:00",
                "dst": "gap",
                "skipped_local_time": "2099-03-29T02:30:00",
                "offset_change": 3600.0,
                "estimated": False,
            },
            tick
            | {
                "scheduled_for": "2099-03-30T00:30:00Z",
                "due_at": "2099-03-30T00:30:00Z",
                "local_time": "2099-03-30T02:30:00+02:00",
                "estimated": False,
            },
        ],
    }


async def test_a_preview_begins_where_the_clock_stands(admin: httpx.AsyncClient) -> None:
    path = await create(admin, HOURLY)
    found = await good(await admin.get(f"{path}/preview"))
    assert len(found["items"]) == 10
    assert found["items"][0]["scheduled_for"] == (await admin.get(path)).json()["next_run_at"]


async def test_only_the_first_tick_of_a_fixed_delay_is_certain(admin: httpx.AsyncClient) -> None:
    path = await create(admin, {**HOURLY, "fixed_delay": True})
    items = (await good(await admin.get(f"{path}/preview", params={"n": 3})))["items"]
    assert [item["estimated"] for item in items] == [False, True, True]


async def test_what_is_left_of_max_runs_ends_a_preview(
    admin: httpx.AsyncClient, sync: sessionmaker[Session]
) -> None:
    path = await create(admin, HOURLY, max_runs=5)
    with sync.begin() as session:
        session.execute(
            update(ClockRow).where(ClockRow.schedule_id == path.rpartition("/")[2]).values(run_count=3)
        )
    assert len((await good(await admin.get(f"{path}/preview")))["items"]) == 2
    end = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    simulated = await admin.post(f"{path}/simulate", json={"end": end, "duration": 1})
    assert len((await good(simulated))["items"]) == 2


async def test_an_inactive_schedule_is_shown_as_if_it_were_active(admin: httpx.AsyncClient) -> None:
    path = await create(admin, HOURLY)
    await admin.post(f"{path}/disable")
    assert len((await good(await admin.get(f"{path}/preview", params={"n": 4})))["items"]) == 4


async def test_an_invalid_schedule_says_why(admin: httpx.AsyncClient, sync: sessionmaker[Session]) -> None:
    path = await create(admin, HOURLY)
    with sync.begin() as session:
        session.execute(
            update(ScheduleRow)
            .where(ScheduleRow.id == path.rpartition("/")[2])
            .values(schedule={"type": "moon"})
        )
    answer = await admin.get(f"{path}/preview")
    assert answer.status_code == 409
    assert "crontab, interval or one_off" in answer.json()["detail"]


async def test_an_unsaved_schedule(admin: httpx.AsyncClient) -> None:
    before = (await admin.get(SCHEDULES)).json()
    body = {"schedule": HOURLY, "task_extra_config": {"ends_at": "2099-01-01T02:00:00Z", "jitter": "50%"}}
    answer = await admin.post(f"{SCHEDULES}/preview", params={"after": "2098-12-31T23:30:00Z"}, json=body)
    found = await good(answer)
    assert [item["scheduled_for"] for item in found["items"]] == [
        f"2099-01-01T0{hour}:00:00Z" for hour in range(3)
    ]
    for item in found["items"]:
        offset = datetime.fromisoformat(item["due_at"]) - datetime.fromisoformat(item["scheduled_for"])
        assert timedelta(0) < offset < timedelta(minutes=30)
    assert "put off by up to 50 % of the period" in found["description"]
    flat = await admin.post(f"{SCHEDULES}/preview", json={"task_crontab_hour": "*/2"})
    assert len((await good(flat))["items"]) == 10
    assert (await admin.get(SCHEDULES)).json() == before


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "schedule"),
        ({"schedule": {**BERLIN, "expression": "0 0 30 2 *"}}, "schedule.expression"),
        ({"schedule": {"type": "one_off", "at": "2020-01-01T00:00:00Z"}}, "schedule.at"),
        ({"task_crontab_minute": "99"}, "task_crontab_minute"),
        ({"schedule": HOURLY, "task_extra_config": {"jitter": "200%"}}, "task_extra_config.jitter"),
        ({"schedule": HOURLY, "task_extra_config": {"calendars": ["none"]}}, "task_extra_config.calendars.0"),
        (
            {
                "schedule": HOURLY,
                "task_extra_config": {
                    "starts_at": "2099-01-02T00:00:00Z",
                    "ends_at": "2099-01-01T00:00:00Z",
                },
            },
            "task_extra_config.ends_at",
        ),
        (
            {"schedule": HOURLY, "task_extra_config": {"ends_at": "2099-01-01T00:00:00"}},
            "task_extra_config.ends_at",
        ),
        ({"schedule": HOURLY, "task_name": "a"}, "task_name"),
    ],
)
async def test_an_unsaved_schedule_that_would_be_refused(
    admin: httpx.AsyncClient, body: dict[str, Any], field: str
) -> None:
    answer = await admin.post(f"{SCHEDULES}/preview", json=body)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]


async def test_a_simulation(admin: httpx.AsyncClient) -> None:
    await admin.post("/api/v1/calendars", json={"name": "simulated", "dates": ["2099-01-01"]})
    path = await create(admin, HOURLY, overlap="buffer_one", calendars=["simulated"])
    body = {"start": "2098-12-31T20:30:00Z", "end": "2099-01-01T00:00:00Z", "duration": 9000}
    found = await good(await admin.post(f"{path}/simulate", json=body))
    assert found["counts"] == {"succeeded": 2, "cancelled": 0, "skipped": 2}
    assert found["complete"]
    assert [(item["state"], item["reason"], item["waited"]) for item in found["items"]] == [
        ("succeeded", None, 0.0),
        ("succeeded", None, 5400.0),
        ("skipped", "buffer_full", 0.0),
        ("skipped", "calendar", 0.0),
    ]
    assert found["items"][1]["started_at"] == "2098-12-31T23:30:00Z"
    short = await good(await admin.post(f"{path}/simulate", json={**body, "limit": 3}))
    assert not short["complete"]
    assert short["items"] == found["items"][:3]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"end": "2020-01-01T00:00:00Z"}, "end"),
        ({"end": "2099-01-01T00:00:00"}, "end"),
        ({"duration": -1}, "duration"),
        ({"duration": 1e9}, "duration"),
        ({"limit": 5001}, "limit"),
        ({"from": "2099-01-01T00:00:00Z"}, "from"),
    ],
)
async def test_a_simulation_that_makes_no_sense(
    admin: httpx.AsyncClient, change: dict[str, Any], field: str
) -> None:
    path = await create(admin, HOURLY)
    body = {"end": "2099-01-01T00:00:00Z", "duration": 1, **change}
    answer = await admin.post(f"{path}/simulate", json=body)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]


@pytest.mark.parametrize("query", ["n=0", "n=1001", "after=2099-01-01T00:00:00", "after=soon", "m=1"])
async def test_a_query_that_makes_no_sense(admin: httpx.AsyncClient, query: str) -> None:
    path = await create(admin, HOURLY)
    assert (await admin.get(f"{path}/preview?{query}")).status_code == 422
    assert (await admin.post(f"{SCHEDULES}/preview?{query}", json={"schedule": HOURLY})).status_code == 422


FIRST, LAST = "1970-01-01T14:00:00+14:00", "8999-12-31T10:00:00-14:00"


@pytest.mark.parametrize("instant", [FIRST, LAST])
async def test_the_ends_of_the_calendar(admin: httpx.AsyncClient, instant: str) -> None:
    path = await create(admin, BERLIN)
    assert (await admin.get(f"{path}/preview", params={"after": instant})).status_code == 200
    body = {"start": FIRST, "end": LAST, "duration": 2e6}
    assert (await admin.post(f"{path}/simulate", json=body)).status_code == 200


@pytest.mark.parametrize("instant", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
async def test_beyond_the_ends_of_the_calendar(admin: httpx.AsyncClient, instant: str) -> None:
    path = await create(admin, BERLIN)
    assert "1970" in (await admin.get(f"{path}/preview", params={"after": instant})).text
    body = {"start": FIRST, "end": instant, "duration": 2e6}
    assert (await admin.post(f"{path}/simulate", json=body)).status_code == 422


async def test_what_does_not_exist(admin: httpx.AsyncClient) -> None:
    assert (await admin.get(f"{SCHEDULES}/{NOBODY}/preview")).status_code == 404
    body = {"end": "2099-01-01T00:00:00Z", "duration": 1}
    assert (await admin.post(f"{SCHEDULES}/{NOBODY}/simulate", json=body)).status_code == 404


async def test_the_largest_answers_are_quick(admin: httpx.AsyncClient) -> None:
    path = await create(admin, {**BERLIN, "expression": "* * * * *"}, jitter="90%", overlap="buffer_all")
    assert len((await good(await admin.get(f"{path}/preview", params={"n": 1000})))["items"]) == 1000
    body = {"end": "2099-01-01T00:00:00Z", "duration": 3600, "limit": 5000}
    found = await good(await admin.post(f"{path}/simulate", json=body))
    assert len(found["items"]) == 5000
    assert not found["complete"]


async def test_long_calculations_hold_up_nobody_else(admin: httpx.AsyncClient) -> None:
    """All that calculate wait for the threads that others occupy here; the service goes on, and then they are done."""
    path = await create(admin, {**BERLIN, "expression": "* * * * *"})
    end = datetime.now(UTC).replace(second=30, microsecond=0) - timedelta(minutes=1)
    period = {"start": (end - timedelta(minutes=10_000)).isoformat(), "end": end.isoformat()}
    document = {"schedules": {"one": {"task_path": "scheduled_task.test_task", "schedule": HOURLY}}}
    simulated = {"end": "2099-01-01T00:00:00Z", "duration": 3600, "limit": 5000}
    freed = threading.Event()
    occupying = [asyncio.create_task(calculated(freed.wait)) for _ in range(AT_ONCE)]
    try:
        asked = [
            asyncio.create_task(request)
            for request in (
                admin.post(f"{path}/backfill", json=period | {"dry_run": True}),
                admin.post(f"{path}/backfill", json=period | {"overlap": "allow_all"}),
                admin.post(f"{path}/simulate", json=simulated),
                admin.get(f"{path}/preview", params={"n": 1000}),
                admin.post(f"{SCHEDULES}/preview", json={"schedule": HOURLY}),
                admin.post(f"{SCHEDULES}/import", json=document | {"dry_run": True}),
                admin.get(f"{SCHEDULES}/export/yaml"),
            )
        ]
        for _ in range(20):
            assert (await admin.get("/livez")).status_code == 200
            assert (await admin.get(path)).status_code == 200
        assert not any(each.done() for each in asked)
    finally:
        freed.set()
    answers = await asyncio.wait_for(asyncio.gather(*asked), 60)
    assert [answer.status_code for answer in answers] == [202, 202, 200, 200, 200, 200, 200]
    planned, done = (answer.json() for answer in answers[:2])
    assert (planned["ticks"], planned["run_ids"]) == (10_000, [])
    assert (done["runs"], len(set(done["run_ids"]))) == (10_000, 10_000)
    last = (await admin.get(f"/api/v1/runs/{done['run_ids'][-1]}")).json()
    assert (last["state"], last["origin"], last["requested_by"]) == ("queued", "backfill", "admin")
    again = (await admin.post(f"{path}/backfill", json=period | {"dry_run": True})).json()
    assert again["left_out"] == {"active": 10_000}
    await asyncio.gather(*occupying)
