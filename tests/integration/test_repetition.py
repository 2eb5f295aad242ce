"""ETags against lost updates, and keys that make a repeated request have one effect."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import text

from app.api.dependencies import ServicesOf, authorize
from app.api.guards import OPERATE, guarded
from app.api.idempotency import repeatable
from app.api.routing import resource_router
from app.api.upkeep import clear
from app.settings import Settings
from support.api import connect, connected, serving
from support.people import cheap_passwords, token_of
from support.threads import none_free

SCHEDULES = "/api/v1/scheduled-tasks"
SUBMIT = "/api/v1/tasks/scheduled_task.test_task/runs"
BODY: dict[str, Any] = {
    "task_name": "repeated",
    "task_path": "scheduled_task.test_task",
    "schedule": {"type": "crontab", "expression": "* * * * *"},
}
NOTES = resource_router("/notes", "Runs")


@NOTES.post("", dependencies=[repeatable()])
@guarded(OPERATE)
async def write_note(services: ServicesOf) -> dict[str, str]:
    """As a module would that does not say what its unit of work made."""
    async with services.sessions.begin() as session:
        await session.execute(text("INSERT INTO notes DEFAULT VALUES"))
    return {"note": uuid4().hex}


@pytest.fixture(scope="module")
async def api(settings: Settings) -> AsyncIterator[FastAPI]:
    with cheap_passwords():
        async with serving(settings) as app:
            app.include_router(NOTES, prefix="/api/v1", dependencies=[Depends(authorize)])
            async with app.state.services.sessions.begin() as session:
                await session.execute(text("CREATE TABLE notes (id serial)"))
            yield app


@pytest.fixture(scope="module")
async def admin(api: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with connected(api) as client:
        yield client


@pytest.fixture
async def schedule(admin: httpx.AsyncClient) -> str:
    """The path of a new schedule."""
    return str((await admin.post(SCHEDULES, json=BODY)).headers["Location"])


def key() -> dict[str, str]:
    return {"Idempotency-Key": uuid4().hex}


async def count(app: FastAPI, table: str) -> int:
    async with app.state.services.sessions() as session:
        return int(await session.scalar(text(f"SELECT count(*) FROM {table}")) or 0)


async def test_the_etag_is_the_version(admin: httpx.AsyncClient, schedule: str) -> None:
    read = await admin.get(schedule)
    assert read.headers["ETag"] == '"1"'
    changed = await admin.patch(schedule, json={"task_name": "x"}, headers={"If-Match": '"1"'})
    assert (changed.status_code, changed.headers["ETag"]) == (200, '"2"')
    assert (await admin.get(schedule)).headers["ETag"] == '"2"'


@pytest.mark.parametrize(
    ("given", "status", "type_"),
    [
        (None, 428, "precondition_required"),
        ('"2"', 412, "precondition_failed"),
        ('W/"1"', 412, "precondition_failed"),
        ('"other"', 412, "precondition_failed"),
        ('"7", "8"', 412, "precondition_failed"),
        ("1", 422, "invalid_input"),
        ("", 422, "invalid_input"),
        ('"', 422, "invalid_input"),
    ],
)
async def test_a_change_of_another_version_is_refused(
    admin: httpx.AsyncClient, schedule: str, given: str | None, status: int, type_: str
) -> None:
    headers = {} if given is None else {"If-Match": given}
    before = (await admin.get(schedule)).json()
    for answer in (
        await admin.patch(schedule, json={"task_name": "lost"}, headers=headers),
        await admin.delete(schedule, headers=headers),
    ):
        assert answer.status_code == status, answer.text
        assert answer.json()["type"] == f"/problems/{type_}"
    assert (await admin.get(schedule)).json() == before


@pytest.mark.parametrize("given", ["*", '"1"', '"9", "1"', ' "1" '])
async def test_a_change_of_this_version_is_made(admin: httpx.AsyncClient, schedule: str, given: str) -> None:
    assert (await admin.delete(schedule, headers={"If-Match": given})).status_code == 204


async def test_of_many_editors_one_wins(admin: httpx.AsyncClient, schedule: str) -> None:
    answers = await asyncio.gather(
        *(
            admin.patch(schedule, json={"task_name": f"editor {n}"}, headers={"If-Match": '"1"'})
            for n in range(8)
        )
    )
    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 7
    winner = next(answer.json() for answer in answers if answer.status_code == 200)
    assert (await admin.get(schedule)).json()["task_name"] == winner["task_name"]


def period() -> dict[str, str]:
    end = datetime.now(UTC).replace(second=0, microsecond=0)
    return {"start": (end - timedelta(minutes=3)).isoformat(), "end": end.isoformat()}


@pytest.mark.parametrize(
    ("path", "body", "table"),
    [
        (SCHEDULES, BODY, "celery_periodic_task_configs"),
        (SUBMIT, {"kwargs": {"message": "hello"}}, "celery_task_runs"),
        ("{schedule}/run", {"overlap": "allow_all"}, "celery_task_runs"),
        ("{schedule}/backfill", period(), "celery_task_runs"),
        ("/api/v1/notes", None, "notes"),
    ],
)
async def test_a_repeat_has_no_second_effect_and_the_same_answer(
    api: FastAPI, admin: httpx.AsyncClient, schedule: str, path: str, body: object, table: str
) -> None:
    path, headers = path.format(schedule=schedule), key()
    first = await admin.post(path, json=body, headers=headers)
    assert first.status_code in (200, 201, 202), first.text
    assert "Idempotency-Replayed" not in first.headers
    stored = await count(api, table)
    for _ in range(2):
        again = await admin.post(path, json=body, headers=headers)
        assert again.status_code == first.status_code
        assert again.json() == first.json()
        assert again.headers["Idempotency-Replayed"] == "true"
        assert again.headers["Content-Type"] == first.headers["Content-Type"]
        for name in ("Location", "ETag"):
            assert again.headers.get(name) == first.headers.get(name)
    assert await count(api, table) == stored
    other = await admin.post(path, json=body, headers=key())
    assert other.json() != first.json()


@pytest.mark.parametrize(("path", "table"), [(SUBMIT, "celery_task_runs"), ("/api/v1/notes", "notes")])
async def test_duplicates_at_once_have_one_effect(
    api: FastAPI, admin: httpx.AsyncClient, path: str, table: str
) -> None:
    before, headers = await count(api, table), key()
    answers = await asyncio.gather(*(admin.post(path, json={}, headers=headers) for _ in range(12)))
    assert await count(api, table) == before + 1
    done = [answer.json() for answer in answers if answer.status_code != 409]
    assert done
    assert all(answer == done[0] for answer in done)
    if path == SUBMIT:
        assert {answer.status_code for answer in answers} == {202}


async def test_a_repeated_replay_makes_one_run(api: FastAPI, admin: httpx.AsyncClient, schedule: str) -> None:
    run = (await admin.post(f"{schedule}/run")).json()["id"]
    assert (await admin.post(f"/api/v1/runs/{run}/cancel")).status_code == 202
    before, headers = await count(api, "celery_task_runs"), key()
    first, again = [await admin.post(f"/api/v1/runs/{run}/replay", headers=headers) for _ in range(2)]
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json() == again.json()
    assert first.json()["id"] != run
    assert await count(api, "celery_task_runs") == before + 1


async def test_a_key_is_for_one_request(admin: httpx.AsyncClient, schedule: str) -> None:
    headers = key()
    assert (await admin.post(SUBMIT, json={"countdown": 60}, headers=headers)).status_code == 202
    for path, body in (
        (SUBMIT, {"countdown": 61}),
        (f"{schedule}/run", {"countdown": 60}),
        (SCHEDULES, BODY),
    ):
        answer = await admin.post(path, json=body, headers=headers)
        assert answer.status_code == 422, answer.text


async def test_keys_belong_to_their_callers(api: FastAPI, admin: httpx.AsyncClient) -> None:
    headers = key()
    mine = (await admin.post(SUBMIT, json={}, headers=headers)).json()
    async with connect(api, await token_of(api, "operator")) as other:
        theirs = await other.post(SUBMIT, json={}, headers=headers)
    assert theirs.status_code == 202
    assert theirs.json()["id"] != mine["id"]
    assert "Idempotency-Replayed" not in theirs.headers


async def test_a_refused_request_leaves_its_key_free(api: FastAPI, admin: httpx.AsyncClient) -> None:
    headers = key()
    refused = await admin.post(SCHEDULES, json=BODY | {"task_path": "no.such"}, headers=headers)
    assert refused.status_code == 422
    async with connect(api) as nobody:
        assert (await nobody.post(SCHEDULES, json=BODY, headers=headers)).status_code == 401
    assert (await admin.post(SCHEDULES, json=BODY, headers=headers)).status_code == 201


async def test_a_dry_run_leaves_its_key_free(admin: httpx.AsyncClient, schedule: str) -> None:
    headers = key()
    for _ in range(2):
        answer = await admin.post(f"{schedule}/backfill", json=period() | {"dry_run": True}, headers=headers)
        assert answer.status_code == 202
        assert answer.json()["dry_run"] is True
        assert "Idempotency-Replayed" not in answer.headers


async def test_a_secret_is_hardened_beside_the_threads_that_publish(admin: httpx.AsyncClient) -> None:
    async with none_free():
        body = {"name": "k", "scopes": ["read"]}
        made = await asyncio.wait_for(admin.post("/api/v1/api-keys", json=body, headers=key()), 10)
    assert made.status_code == 201


@pytest.mark.parametrize("given", ["", " ", "a b", "é", "x" * 256])
async def test_keys_that_are_none(admin: httpx.AsyncClient, given: str) -> None:
    answer = await admin.post(SUBMIT, json={}, headers=[(b"Idempotency-Key", given.encode("latin-1"))])
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == ["Idempotency-Key"]


async def test_after_a_day_a_key_is_free_again_and_cleared_away(
    api: FastAPI, admin: httpx.AsyncClient
) -> None:
    headers = key()
    sessions = api.state.services.sessions
    first = (await admin.post(SUBMIT, json={}, headers=headers)).json()
    async with sessions.begin() as session:
        await session.execute(text("UPDATE idempotency_keys SET expires_at = clock_timestamp()"))
    second = (await admin.post(SUBMIT, json={}, headers=headers)).json()
    assert first["id"] != second["id"]
    assert await count(api, "idempotency_keys") > 1
    many = (
        "INSERT INTO idempotency_keys (caller, key, fingerprint, expires_at)"
        " SELECT 'program', number::text, '', now() FROM generate_series(1, 1500) AS number"
    )
    async with sessions.begin() as session:
        await session.execute(text(many))
    await clear(sessions)
    assert await count(api, "idempotency_keys") == 1


async def test_an_effect_whose_answer_was_lost_is_not_repeated(
    api: FastAPI, admin: httpx.AsyncClient
) -> None:
    """A crash between an effect and its answer, at a route that does not say what it made."""
    headers = key()
    assert (await admin.post("/api/v1/notes", headers=headers)).status_code == 200
    async with api.state.services.sessions.begin() as session:
        await session.execute(text("UPDATE idempotency_keys SET status = NULL, body = NULL"))
    before = await count(api, "notes")
    assert (await admin.post("/api/v1/notes", headers=headers)).status_code == 409
    assert await count(api, "notes") == before
