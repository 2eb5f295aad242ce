"""From a reading to the sum of its day: routes, service, task and schedule, on real servers."""

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.db import async_engine, async_sessions
from app.db.migrate import check, downgrade, upgrade
from app.modules.readings import service
from app.settings import Settings
from app.worker import catalogue
from app.worker.declared import declared
from support.api import client_of, connected, serving
from support.polling import eventually
from support.stack import Stack

PATH = "/api/v1/readings"
DAY = date(2027, 3, 1)
NOON = datetime(2027, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
async def api(settings: Settings) -> AsyncIterator[FastAPI]:
    async with serving(settings) as app:
        yield app


@pytest.fixture
async def client(api: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with connected(api) as client:
        yield client


async def test_a_reading_is_stored_and_listed(client: httpx.AsyncClient) -> None:
    made = await client.post(PATH, json={"meter": "m1", "value": 2.5, "taken_at": NOON.isoformat()})
    assert made.status_code == 201, made.text
    listed = await client.get(PATH, params={"meter": "m1"})
    assert listed.json() == [made.json()]
    assert (await client.get(PATH, params={"meter": "another"})).json() == []


@pytest.mark.parametrize("body", [{"meter": "m1", "value": -1}, {"meter": "", "value": 1}, {"value": 1}])
async def test_what_is_no_reading_is_refused(client: httpx.AsyncClient, body: dict[str, object]) -> None:
    answer = await client.post(PATH, json=body)
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/invalid_input")


async def test_nobody_reads_without_logging_in(api: FastAPI) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://test") as stranger:
        assert (await stranger.get(PATH, params={"meter": "m1"})).status_code == 401


async def test_a_day_is_added_up_also_twice(client: httpx.AsyncClient, settings: Settings) -> None:
    for value in (1.5, 2.0):
        await client.post(PATH, json={"meter": "m2", "value": value, "taken_at": NOON.isoformat()})
    engine = async_engine(settings.database, name="test")
    sessions = async_sessions(engine)
    first, second = await service.add_up(sessions, DAY), await service.add_up(sessions, DAY)
    await engine.dispose()
    assert first == second >= 1
    sums = (await client.get(f"{PATH}/sums", params={"meter": "m2"})).json()
    assert sums == [{"day": "2027-03-01", "total": 3.5, "number": 2}]


def test_a_real_worker_adds_up(shared_stack: Stack, settings: Settings) -> None:
    shared_stack.worker("-P", "solo", wait=False)
    with client_of(shared_stack.api().url, settings) as client:
        client.post(PATH, json={"meter": "m3", "value": 4, "taken_at": NOON.isoformat()})
        asked = client.post("/api/v1/tasks/readings.add_up/runs", json={"args": ["2027-03-01"]})
        assert asked.status_code == 202, asked.text

        def ended() -> dict[str, Any]:
            run: dict[str, Any] = client.get(asked.headers["Location"]).json()
            assert run["state"] == "succeeded", run
            return run

        assert eventually(ended, 40, "the run")["result"]["meters"] >= 1
        assert client.get(f"{PATH}/sums", params={"meter": "m3"}).json()[0]["total"] == 4


def test_its_task_and_its_schedule_are_found(settings: Settings) -> None:
    assert catalogue().named("readings.add_up").queue == "priority_low"
    assert "readings.add_up" in {each.key for each in declared(settings).declarations}


def test_its_tables_are_as_its_migration_makes_them(settings: Settings) -> None:
    check(settings)
    downgrade(settings, "readings@base")
    upgrade(settings)
    check(settings)
