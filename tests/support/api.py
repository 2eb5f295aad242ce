"""The HTTP service in this process, on the tests' own servers, spoken to through its real routes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI

from app.main import create_app
from app.modules.auth import service
from app.settings import Settings

ADMIN = ("admin", "correct horse battery staple")


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[FastAPI]:
    """The application with its connections open."""
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        yield app


def connect(app: FastAPI, token: str | None = None) -> httpx.AsyncClient:
    """A client that sends this token."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://upbeat.test",
        headers={} if token is None else {"Authorization": f"Bearer {token}"},
    )


async def log_in(app: FastAPI, username: str, password: str) -> str:
    """A new session's token."""
    async with connect(app) as client:
        answer = await client.post("/api/v1/auth/login", data={"username": username, "password": password})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["access_token"])


@asynccontextmanager
async def connected(app: FastAPI, role: str = "admin") -> AsyncIterator[httpx.AsyncClient]:
    """A client that is logged in as a user of this role, who is made when missing."""
    username, password = (role, ADMIN[1])
    sessions = app.state.services.sessions
    if role == "admin":
        await service.ensure_admin(sessions, username, password)
    else:
        await service.create_user(sessions, username=username, password=password, role=role)
    async with connect(app, await log_in(app, username, password)) as client:
        yield client
