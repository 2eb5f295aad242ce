"""Users and API keys over HTTP."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text

from app.settings import Settings
from support.api import connect, connected, log_in, serving
from support.people import PASSWORD, cheap_passwords, person, token_of
from support.polling import eventually_async

USERS = "/api/v1/users"
KEYS = "/api/v1/api-keys"
ME = "/api/v1/auth/me"
NOBODY = "0199d0c2-f2f0-7a51-9c66-3f0c5f3ad4b1"


@pytest.fixture(scope="module")
async def api(settings: Settings) -> AsyncIterator[FastAPI]:
    with cheap_passwords():
        async with serving(settings) as app:
            yield app


@pytest.fixture(scope="module")
async def admin(api: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with connected(api) as client:
        client.headers["If-Match"] = "*"
        yield client


async def test_a_users_life(api: FastAPI, admin: httpx.AsyncClient) -> None:
    answer = await admin.post(USERS, json={"username": "ada", "password": PASSWORD, "role": "operator"})
    assert answer.status_code == 201, answer.text
    made = answer.json()
    path = f"{USERS}/{made['id']}"
    assert answer.headers["Location"] == path
    assert set(made) == {"id", "username", "role", "active", "version", "created_at", "last_login_at"}
    assert (made["role"], made["active"], made["last_login_at"]) == ("operator", True, None)
    token = await log_in(api, "ada", PASSWORD)
    assert (await admin.get(path)).json()["last_login_at"] is not None
    async with connect(api, token) as ada:
        changed = await admin.patch(path, json={"role": "viewer"})
        assert changed.json()["role"] == "viewer"
        assert (await ada.get(ME)).json()["role"] == "viewer", "at once"
        assert (await admin.patch(path, json={"password": "another long one"})).status_code == 200
        assert (await ada.get(ME)).status_code == 401, "a reset ends sessions"
    async with connect(api, await log_in(api, "ada", "another long one")) as ada:
        key = (await ada.post(KEYS, json={"name": "k", "scopes": ["read"]})).json()["secret"]
        assert (await admin.patch(path, json={"active": False})).json()["active"] is False
        assert (await ada.get(ME)).status_code == 401
    async with connect(api, key) as program:
        assert (await program.get(ME)).status_code == 401, "keys of the inactive do not work"
        await admin.patch(path, json={"active": True})
        assert (await program.get(ME)).status_code == 200
        assert (await admin.delete(path)).status_code == 204
        assert (await program.get(ME)).status_code == 401
    assert (await admin.get(path)).status_code == 404


async def test_the_last_administrator_stays(api: FastAPI, admin: httpx.AsyncClient) -> None:
    mine = f"{USERS}/{(await admin.get(ME)).json()['id']}"
    for change in ({"role": "operator"}, {"active": False}):
        answer = await admin.patch(mine, json=change)
        assert answer.status_code == 409
        assert "last active administrator" in answer.json()["detail"]
    assert (await admin.delete(mine)).status_code == 409
    assert (await admin.patch(mine, json={"role": "admin", "active": True})).status_code == 200


async def test_two_administrators_who_demote_each_other_take_turns(
    api: FastAPI, admin: httpx.AsyncClient
) -> None:
    async with connect(api, await token_of(api, "admin")) as second:
        second.headers["If-Match"] = "*"
        ids = [(await client.get(ME)).json()["id"] for client in (admin, second)]
        answers = await asyncio.gather(
            second.patch(f"{USERS}/{ids[0]}", json={"role": "viewer"}),
            admin.patch(f"{USERS}/{ids[1]}", json={"role": "viewer"}),
        )
        assert sorted(answer.status_code for answer in answers) in ([200, 403], [200, 409])
        left = admin if answers[1].status_code == 200 else second
        for each in ids:
            assert (await left.patch(f"{USERS}/{each}", json={"role": "admin"})).status_code == 200


async def test_users_are_listed_and_searched(api: FastAPI, admin: httpx.AsyncClient) -> None:
    names = [await person(api, "operator") for _ in range(5)]
    found: list[str] = []
    query: dict[str, str | int] = {"limit": 2, "role": "operator", "search": "OPERATOR", "active": "true"}
    while True:
        page = (await admin.get(USERS, params=query)).json()
        found += [item["username"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert found == names
    assert (await admin.get(USERS, params={"search": "%"})).json()["items"] == []


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, ["username", "password"]),
        ({"username": " x", "password": "short"}, ["username", "password"]),
        ({"username": "x", "password": PASSWORD, "role": "emperor"}, ["role"]),
        ({"username": "x", "password": PASSWORD, "admin": True}, ["admin"]),
    ],
)
async def test_users_that_cannot_be_made(
    admin: httpx.AsyncClient, body: dict[str, object], fields: list[str]
) -> None:
    answer = await admin.post(USERS, json=body)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == fields


async def test_what_is_not_there(admin: httpx.AsyncClient) -> None:
    assert (await admin.post(USERS, json={"username": "admin", "password": PASSWORD})).status_code == 409
    for answer in (
        await admin.get(f"{USERS}/{NOBODY}"),
        await admin.patch(f"{USERS}/{NOBODY}", json={"active": True}),
        await admin.delete(f"{USERS}/{NOBODY}"),
        await admin.get(f"{KEYS}/{NOBODY}"),
        await admin.delete(f"{KEYS}/{NOBODY}"),
        await admin.delete(f"/api/v1/sessions/{NOBODY}"),
    ):
        assert answer.status_code == 404


async def test_a_keys_life(api: FastAPI) -> None:
    async with connect(api, await token_of(api, "operator")) as owner:
        body = {"name": "build", "scopes": ["tasks:operate", "read", "read"]}
        answer = await owner.post(KEYS, json=body)
        assert answer.status_code == 201, answer.text
        made = answer.json()
        secret, path = made.pop("secret"), answer.headers["Location"]
        assert secret.startswith(made["start"])
        assert (made["scopes"], made["last_used_at"]) == (["read", "tasks:operate"], None)
        assert (await owner.get(path)).json() == made, "the secret is shown once"
        async with api.state.services.sessions() as session:
            dump = await session.scalar(text("SELECT string_agg(k::text, '') FROM api_keys k"))
        assert secret not in dump
        async with connect(api, secret) as program:
            run = await program.post("/api/v1/tasks/scheduled_task.test_task/runs", json={})
            assert run.status_code == 202
            assert run.json()["requested_by"].startswith("operator")
            first = (await owner.get(path)).json()["last_used_at"]
            assert first is not None
            await program.get(ME)
            assert (await owner.get(path)).json()["last_used_at"] == first, "written once a minute"
            assert (await owner.delete(path)).status_code == 204
            assert (await program.get(ME)).status_code == 401
        assert (await owner.delete(path)).status_code == 204
        assert (await owner.get(KEYS)).json()["items"][0]["revoked_at"] is not None


async def test_a_key_expires_by_the_databases_clock(api: FastAPI) -> None:
    async with connect(api, await token_of(api)) as owner:
        later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        body = {"name": "short", "scopes": ["read"], "expires_at": later}
        made = (await owner.post(KEYS, json=body)).json()
        async with connect(api, made["secret"]) as program:
            assert (await program.get(ME)).status_code == 200
            async with api.state.services.sessions.begin() as session:
                await session.execute(text("UPDATE api_keys SET expires_at = clock_timestamp()"))

            async def refused() -> bool:
                return (await program.get(ME)).status_code == 401

            await eventually_async(refused, 5, "the end of the key, which is looked up once a second")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"scopes": ["everything"]}, "scopes.0"),
        ({"scopes": ["read", "cats:read"]}, "scopes.1"),
        ({"scopes": [":read"]}, "scopes.0"),
        ({"scopes": ["operate"]}, "scopes"),
        ({"scopes": ["users:admin"]}, "scopes"),
        ({"scopes": []}, "scopes"),
        ({"name": ""}, "name"),
        ({"expires_at": "2001-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "2099-01-01T00:00:00"}, "expires_at"),
    ],
)
async def test_keys_that_a_viewer_cannot_make(api: FastAPI, change: dict[str, object], field: str) -> None:
    async with connect(api, await token_of(api)) as owner:
        answer = await owner.post(KEYS, json={"name": "x", "scopes": ["read"]} | change)
        assert answer.status_code == 422, answer.text
        assert [error["field"] for error in answer.json()["errors"]] == [field]
        assert (await owner.get(KEYS)).json()["items"] == []


async def test_a_key_follows_its_owners_role(api: FastAPI, admin: httpx.AsyncClient) -> None:
    token = await token_of(api, "operator")
    async with connect(api, token) as owner:
        user_id = (await owner.get(ME)).json()["id"]
        made = (await owner.post(KEYS, json={"name": "x", "scopes": ["operate"]})).json()
    async with connect(api, made["secret"]) as program:
        assert (await program.post("/api/v1/scheduled-tasks", json={})).status_code == 422
        await admin.patch(f"{USERS}/{user_id}", json={"role": "viewer"})
        assert (await program.post("/api/v1/scheduled-tasks", json={})).status_code == 403
