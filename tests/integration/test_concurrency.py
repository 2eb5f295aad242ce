"""ETags and repeated creations of what people edit beside schedules: calendars, agents, users, API keys."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text

from app.settings import Settings
from support.agents import with_agents
from support.api import connected, serving
from support.people import PASSWORD, cheap_passwords

API = "/api/v1"


@dataclass(frozen=True)
class Kind:
    """Something that is created and edited."""

    path: str
    new: dict[str, Any]
    change: dict[str, Any]
    further: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)


KINDS = {
    "calendar": Kind("/calendars", {"dates": ["2027-01-01"]}, {"description": "x"}),
    "agent": Kind(
        "/agents",
        {"kind": "webhook", "url": "https://hooks.example.com/a"},
        {"description": "x"},
        [("PUT", "/credential", {"credential": "a-secret-of-some-length"})],
    ),
    "user": Kind("/users", {"password": PASSWORD}, {"role": "operator"}),
}


@pytest.fixture(scope="module")
async def api(settings: Settings) -> AsyncIterator[FastAPI]:
    with cheap_passwords():
        async with serving(with_agents(settings)) as app:
            yield app


@pytest.fixture(scope="module")
async def admin(api: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with connected(api) as client:
        yield client


def body(kind: Kind) -> dict[str, Any]:
    return kind.new | {"username" if kind.path == "/users" else "name": uuid4().hex}


@pytest.mark.parametrize("name", KINDS)
async def test_nobody_overwrites_what_they_have_not_seen(admin: httpx.AsyncClient, name: str) -> None:
    kind = KINDS[name]
    made = await admin.post(API + kind.path, json=body(kind))
    assert (made.status_code, made.headers["ETag"]) == (201, '"1"'), made.text
    path = made.headers["Location"]
    assert (await admin.get(path)).headers["ETag"] == '"1"'
    edits = [("PATCH", path, kind.change), ("DELETE", path, None)]
    edits += [(method, path + rest, given) for method, rest, given in kind.further]
    for method, target, given in edits:
        for match, status in ((None, 428), ('"9"', 412), ("nonsense", 422)):
            headers = {} if match is None else {"If-Match": match}
            answer = await admin.request(method, target, json=given, headers=headers)
            assert answer.status_code == status, (method, match, answer.text)
    assert (await admin.get(path)).headers["ETag"] == '"1"'
    changed = await admin.patch(path, json=kind.change, headers={"If-Match": '"1"'})
    assert (changed.status_code, changed.headers["ETag"], changed.json()["version"]) == (200, '"2"', 2)
    for method, target, given in edits[2:]:
        answer = await admin.request(method, target, json=given, headers={"If-Match": '"2"'})
        assert (answer.status_code, answer.headers["ETag"]) == (200, '"3"')
    late = await admin.patch(path, json=kind.change, headers={"If-Match": '"1"'})
    assert late.status_code == 412
    assert (await admin.delete(path, headers={"If-Match": late.headers.get("ETag", "*")})).status_code == 204


@pytest.mark.parametrize("name", KINDS)
async def test_a_repeated_creation_has_one_effect(admin: httpx.AsyncClient, name: str) -> None:
    kind = KINDS[name]
    key, given = {"Idempotency-Key": uuid4().hex}, body(kind)
    first, second = [await admin.post(API + kind.path, json=given, headers=key) for _ in range(2)]
    assert first.status_code == 201, first.text
    assert (second.status_code, second.json(), second.headers["ETag"]) == (201, first.json(), '"1"')
    assert second.headers["Idempotency-Replayed"] == "true"
    other = await admin.post(API + kind.path, json=body(kind), headers=key)
    assert other.json()["errors"][0]["field"] == "Idempotency-Key"


async def test_a_repeated_key_is_not_shown_again(api: FastAPI, admin: httpx.AsyncClient) -> None:
    key, given = {"Idempotency-Key": uuid4().hex}, {"name": uuid4().hex, "scopes": ["read"]}
    first = await admin.post(f"{API}/api-keys", json=given, headers=key)
    assert first.status_code == 201, first.text
    second = await admin.post(f"{API}/api-keys", json=given, headers=key)
    assert second.status_code == 409
    names = [each["name"] for each in (await admin.get(f"{API}/api-keys")).json()["items"]]
    assert names.count(given["name"]) == 1
    async with api.state.services.sessions() as session:
        stored = await session.scalar(text("SELECT string_agg(k::text, '') FROM idempotency_keys k"))
    assert first.json()["secret"] not in stored


async def test_bulk_actions_on_runs_are_safe_to_repeat(admin: httpx.AsyncClient) -> None:
    run = await admin.post(f"{API}/tasks/scheduled_task.test_task/runs", json={})
    assert run.status_code == 202
    key, wish = {"Idempotency-Key": uuid4().hex}, {"task": "scheduled_task.test_task"}
    first, second = [await admin.post(f"{API}/runs/cancel", json=wish, headers=key) for _ in range(2)]
    assert first.json()["changed"] == 1
    assert second.json() == first.json()
    replays = [
        await admin.post(
            f"{API}/runs/replay",
            json=wish | {"states": ["cancelled"]},
            headers={"Idempotency-Key": key["Idempotency-Key"] + "r"},
        )
        for _ in range(2)
    ]
    assert [each.json()["changed"] for each in replays] == [1, 1]
    runs = (await admin.get(f"{API}/runs")).json()["items"]
    assert [each["state"] for each in runs] == ["queued", "cancelled"]
