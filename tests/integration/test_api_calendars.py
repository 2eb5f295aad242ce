"""Calendars over HTTP, and what they do to schedules, on a real database."""

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy.orm import Session, sessionmaker

from app.errors import InvalidInput
from app.scheduling.calendars import CalendarLoader, chosen
from app.scheduling.plan import Plan
from app.scheduling.timing import parse
from support.api import connected

CALENDARS = "/api/v1/calendars"
SCHEDULES = "/api/v1/scheduled-tasks"


@pytest.fixture(scope="module")
async def admin(api: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with connected(api) as client:
        client.headers["If-Match"] = "*"
        yield client


async def create(client: httpx.AsyncClient, name: str, **more: Any) -> dict[str, Any]:
    answer = await client.post(CALENDARS, json={"name": name, **more})
    assert answer.status_code == 201, answer.text
    assert answer.headers["Location"] == f"{CALENDARS}/{quote(name)}"
    created: dict[str, Any] = answer.json()
    return created


async def schedule(client: httpx.AsyncClient, *calendars: str) -> httpx.Response:
    return await client.post(
        SCHEDULES,
        json={
            "task_name": "on working days",
            "task_path": "scheduled_task.test_task",
            "schedule": {"type": "crontab", "expression": "0 9 * * *"},
            "task_extra_config": {"calendars": list(calendars)},
        },
    )


async def test_a_calendars_life(admin: httpx.AsyncClient) -> None:
    holidays = {"country": "DE", "subdivision": "BY"}
    made = await create(admin, "office", dates=["2027-12-31", "2027-12-24", "2027-12-24"], holidays=holidays)
    assert made == {
        "id": made["id"],
        "name": "office",
        "version": 1,
        "description": None,
        "dates": ["2027-12-24", "2027-12-31"],
        "holidays": holidays,
        "created_at": made["created_at"],
        "updated_at": made["updated_at"],
    }
    assert (await admin.get(f"{CALENDARS}/office")).json() == made
    changed = (await admin.patch(f"{CALENDARS}/office", json={"description": "closed"})).json()
    assert changed == made | {"version": 2, "description": "closed", "updated_at": changed["updated_at"]}
    assert changed["updated_at"] > made["updated_at"]
    without = (await admin.patch(f"{CALENDARS}/office", json={"holidays": None, "dates": []})).json()
    assert (without["holidays"], without["dates"], without["description"]) == (None, [], "closed")
    assert (await admin.delete(f"{CALENDARS}/office")).status_code == 204
    for gone in (await admin.get(f"{CALENDARS}/office"), await admin.delete(f"{CALENDARS}/office")):
        assert gone.status_code == 404


async def test_the_dates_of_a_year(admin: httpx.AsyncClient) -> None:
    await create(
        admin, "bavaria", dates=["2027-01-06", "2028-02-29"], holidays={"country": "DE", "subdivision": "BY"}
    )
    listed = (await admin.get(f"{CALENDARS}/bavaria/dates", params={"year": 2027})).json()
    named = {item["date"]: item["holiday"] for item in listed["items"]}
    assert list(named) == sorted(named)
    assert named["2027-05-06"] == "Ascension Day"
    assert named["2027-01-06"] == "Epiphany"
    assert "2028-02-29" not in named
    own = (await admin.get(f"{CALENDARS}/bavaria/dates", params={"year": 2028})).json()["items"]
    assert {"date": "2028-02-29", "holiday": None} in own


async def test_pages(admin: httpx.AsyncClient) -> None:
    names = [(await create(admin, f"page {number}"))["name"] for number in range(3)]
    query: dict[str, Any] = {"limit": 2}
    found = []
    while True:
        page = (await admin.get(CALENDARS, params=query)).json()
        found += [item["name"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert found == sorted(found)
    assert set(names) <= set(found)


@pytest.mark.parametrize(
    ("body", "field", "remedy"),
    [
        ({}, "name", "required"),
        ({"name": "a/b"}, "name", "pattern"),
        ({"name": " a"}, "name", "pattern"),
        ({"name": "x" * 101}, "name", "pattern"),
        ({"name": "a", "dates": ["2027-02-30"]}, "dates.0", "date"),
        ({"name": "a", "dates": ["2027-01-01"] * 5001}, "dates", "5000"),
        ({"name": "a", "dates": None}, "dates", "list"),
        ({"name": "a", "holidays": {"country": "Germany"}}, "holidays.country", "code"),
        ({"name": "a", "holidays": {"country": "DEU"}}, "holidays.country", "DE"),
        ({"name": "a", "holidays": {"country": "DE", "subdivision": "BA"}}, "holidays.subdivision", "BY"),
        ({"name": "a", "holidays": {"country": "MC", "subdivision": "X"}}, "holidays.subdivision", "null"),
        ({"name": "a", "date": []}, "date", "Did you mean dates?"),
    ],
)
async def test_a_field_that_will_not_do(
    admin: httpx.AsyncClient, body: dict[str, Any], field: str, remedy: str
) -> None:
    answer = await admin.post(CALENDARS, json=body)
    assert answer.status_code == 422, answer.text
    (error,) = answer.json()["errors"]
    assert error["field"] == field
    assert remedy in error["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "nothing", 404),
        ("PATCH", "nothing", 404),
        ("GET", "nothing/dates?year=2027", 404),
        ("GET", "nothing/dates", 422),
        ("GET", "nothing/dates?year=2101", 422),
        ("GET", "%00", 422),
        ("GET", "%00/dates?year=2027", 422),
        ("GET", "?cursor=AA", 422),
    ],
)
async def test_what_is_not_there(admin: httpx.AsyncClient, method: str, path: str, status: int) -> None:
    url = f"{CALENDARS}{'' if path.startswith('?') else '/'}{path}"
    answer = await admin.request(method, url, json={} if method == "PATCH" else None)
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"


async def test_a_name_is_taken_once(admin: httpx.AsyncClient) -> None:
    await create(admin, "taken")
    assert (await admin.post(CALENDARS, json={"name": "taken"})).status_code == 409


async def test_a_calendar_in_use_stays(admin: httpx.AsyncClient) -> None:
    await create(admin, "节假日", dates=["2027-01-01"])
    made = await schedule(admin, "节假日")
    assert made.status_code == 201, made.text
    refused = await admin.delete(f"{CALENDARS}/节假日")
    assert refused.status_code == 409
    assert "on working days" in refused.json()["detail"]
    path = f"{SCHEDULES}/{made.json()['id']}"
    freed = await admin.patch(path, json={"task_extra_config": {}}, headers={"If-Match": "*"})
    assert freed.status_code == 200, freed.text
    assert (await admin.delete(f"{CALENDARS}/节假日")).status_code == 204


async def test_a_schedule_names_calendars_that_exist(admin: httpx.AsyncClient) -> None:
    await create(admin, "holidays-de")
    answer = await schedule(admin, "holidays-de", "holiday-de")
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["field"] == "task_extra_config.calendars.1"
    assert "Did you mean holidays-de?" in error["message"]
    made = (await schedule(admin, "holidays-de")).json()
    answer = await admin.patch(
        f"{SCHEDULES}/{made['id']}",
        json={"task_extra_config": {"calendars": ["nowhere"]}},
        headers={"If-Match": "*"},
    )
    assert answer.status_code == 422


async def test_viewers_read_only(api: FastAPI) -> None:
    async with connected(api, "viewer") as viewer:
        assert (await viewer.get(CALENDARS)).status_code == 200
        assert (await viewer.post(CALENDARS, json={"name": "a"})).status_code == 403


async def test_an_edit_is_seen_by_a_loader_that_knows_the_calendar(
    admin: httpx.AsyncClient, sync: sessionmaker[Session]
) -> None:
    loader, new_year = CalendarLoader(), datetime(2027, 1, 1, 9, tzinfo=UTC)

    def excluded() -> str | None:
        with sync() as session:
            known = loader.load(session, {"edited", "unheard"})
        plan = Plan(
            timing=parse({"type": "crontab", "expression": "0 9 * * *"}),
            calendars=chosen(["edited"], known),
        )
        return plan.excluded_by(new_year)

    await create(admin, "edited")
    assert excluded() is None
    await admin.patch(f"{CALENDARS}/edited", json={"holidays": {"country": "FR"}})
    assert excluded() == "edited"
    await admin.patch(f"{CALENDARS}/edited", json={"holidays": None})
    assert excluded() is None
    await admin.delete(f"{CALENDARS}/edited")
    with pytest.raises(InvalidInput, match="no calendar called edited"):
        excluded()
    await create(admin, "edited", dates=["2027-01-01"])
    assert excluded() == "edited"


async def test_a_calendar_is_read_once(admin: httpx.AsyncClient, sync: sessionmaker[Session]) -> None:
    await create(admin, "read once", holidays={"country": "DE", "subdivision": "BY"})
    loader = CalendarLoader()
    with sync() as session:
        assert loader.load(session, ()) == {}
        first = loader.load(session, ["read once"])["read once"]
        assert loader.load(session, ["read once"])["read once"] is first
    assert first.excludes(date(2027, 12, 25))
