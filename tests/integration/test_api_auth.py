"""Login, and users as the service makes them."""

from hashlib import sha256

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select, text, update

from app.errors import Conflict, InvalidInput, Unauthenticated
from app.modules.auth import service
from app.modules.auth.models import LoginSession, User
from app.modules.auth.service import Place, Refusals
from app.settings import AuthSettings
from support.api import connect, log_in

SCHEDULES = "/api/v1/scheduled-tasks"
RULES = AuthSettings()
HERE = Place("127.0.0.1")


async def test_a_caller_without_a_token_learns_nothing_about_bodies(api: FastAPI) -> None:
    async with connect(api) as client:
        for content in (b"{", b'{"task_name": 1}', b"\xff", b"[" * 100_000):
            answer = await client.post(
                SCHEDULES, content=content, headers={"Content-Type": "application/json"}
            )
            assert answer.status_code == 401


async def test_login_gives_a_bearer_token_that_is_stored_as_a_hash(
    api: FastAPI, admin: httpx.AsyncClient
) -> None:
    async with connect(api) as client:
        answer = await client.post(
            "/api/v1/auth/login",
            data={"username": "admin", "password": "correct horse battery staple", "grant_type": "password"},
        )
    assert answer.status_code == 200
    assert set(answer.json()) == {"access_token", "token_type"}
    assert answer.json()["token_type"] == "bearer"
    assert answer.headers["Cache-Control"] == "no-store"
    token = answer.json()["access_token"]
    assert len(token) >= 43
    async with api.state.services.sessions() as session:
        row = await session.scalar(
            select(LoginSession).where(LoginSession.token_hash == sha256(token.encode()).digest())
        )
        dump = await session.scalar(text("SELECT string_agg(s::text, '') FROM user_sessions s"))
    assert row is not None
    assert token not in dump


@pytest.mark.parametrize(
    ("username", "password"),
    [
        ("admin", "wrong"),
        ("nobody", "wrong"),
        ("admin", "x" * 5000),
        ("a\0b", "wrong"),
        ("管理员", "密码"),
        ("x" * 5000, "wrong"),
    ],
)
async def test_refused_logins_are_all_alike(
    api: FastAPI, admin: httpx.AsyncClient, username: str, password: str
) -> None:
    async with connect(api) as client:
        answer = await client.post("/api/v1/auth/login", data={"username": username, "password": password})
    assert answer.status_code == 401
    assert answer.json()["detail"] == "The username or the password is wrong."


async def test_login_without_a_password_names_the_field_and_echoes_nothing(api: FastAPI) -> None:
    async with connect(api) as client:
        answer = await client.post("/api/v1/auth/login", data={"username": "hunter2"})
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"field": "password", "message": "This field is required."}]
    assert "hunter2" not in answer.text


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=x", b"--y"),
        ("application/x-www-form-urlencoded", b"a=b&" * 1001),
    ],
)
async def test_a_form_that_cannot_be_read(api: FastAPI, kind: str, content: bytes) -> None:
    for path in ("/api/v1/auth/login", "/api/v1/auth/browser"):
        async with connect(api) as client:
            answer = await client.post(path, content=content, headers={"Content-Type": kind})
        assert (answer.status_code, answer.json()["type"]) == (400, "/problems/bad_request")
        assert "400" in api.openapi()["paths"][path]["post"]["responses"]


async def test_the_hash_of_a_password_is_argon2id(api: FastAPI, admin: httpx.AsyncClient) -> None:
    async with api.state.services.sessions() as session:
        user = await session.scalar(select(User).where(User.username == "admin"))
    assert user.password_hash.startswith("$argon2id$")


async def test_logout_ends_this_session_only(api: FastAPI, admin: httpx.AsyncClient) -> None:
    first = await log_in(api, "admin", "correct horse battery staple")
    second = await log_in(api, "admin", "correct horse battery staple")
    async with connect(api, first) as client:
        assert (await client.post("/api/v1/auth/logout")).status_code == 204
        assert (await client.get("/api/v1/auth/me")).status_code == 401
    async with connect(api, second) as client:
        assert (await client.get("/api/v1/auth/me")).json()["username"] == "admin"


async def test_sessions_end_by_the_databases_clock(api: FastAPI, admin: httpx.AsyncClient) -> None:
    sessions = api.state.services.sessions
    rules = AuthSettings(session_lifetime=1e-6)
    short = await service.login(
        sessions, rules, "admin", "correct horse battery staple", HERE, refusals=Refusals(sessions)
    )
    with pytest.raises(Unauthenticated):
        await service.authenticate(sessions, RULES, short.token)


async def test_a_deactivated_user_is_out_at_once(api: FastAPI) -> None:
    sessions = api.state.services.sessions
    await service.create_user(sessions, username="leaver", password="long enough", role="operator")
    token = await log_in(api, "leaver", "long enough")
    async with sessions.begin() as session:
        await session.execute(update(User).where(User.username == "leaver").values(active=False))
    async with connect(api, token) as client:
        assert (await client.get("/api/v1/auth/me")).status_code == 401
    with pytest.raises(Unauthenticated):
        await service.login(sessions, RULES, "leaver", "long enough", HERE, refusals=Refusals(sessions))


async def test_a_name_is_taken_once(api: FastAPI) -> None:
    sessions = api.state.services.sessions
    await service.create_user(sessions, username="twin", password="long enough", role="viewer")
    with pytest.raises(Conflict):
        await service.create_user(sessions, username="twin", password="long enough", role="viewer")


async def test_ensure_admin_keeps_what_is_there(api: FastAPI, admin: httpx.AsyncClient) -> None:
    sessions = api.state.services.sessions
    assert await service.ensure_admin(sessions, "second", "long enough") is True
    assert await service.ensure_admin(sessions, "second", "another password") is False
    assert await service.login(sessions, RULES, "second", "long enough", HERE, refusals=Refusals(sessions))


@pytest.mark.parametrize(
    ("username", "password", "role", "field"),
    [
        ("", "long enough", "viewer", "username"),
        (" padded", "long enough", "viewer", "username"),
        ("a\0b", "long enough", "viewer", "username"),
        ("short", "short", "viewer", "password"),
        ("role", "long enough", "emperor", "role"),
    ],
)
async def test_users_that_cannot_be_made(
    api: FastAPI, username: str, password: str, role: str, field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        await service.create_user(
            api.state.services.sessions, username=username, password=password, role=role
        )
    assert [error.field for error in caught.value.errors] == [field]
    assert password not in caught.value.detail
