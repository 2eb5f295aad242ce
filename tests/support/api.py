"""The HTTP service in this process, on the tests' own servers, spoken to through its real routes."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager

import httpx
import pytest
from fastapi import FastAPI

from app.db import async_engine, async_sessions
from app.main import create_app
from app.modules.auth import service
from app.settings import Settings, get_settings
from app.worker import celery_app

ADMIN = ("admin", "correct horse battery staple")


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[FastAPI]:
    """The application with its connections open."""
    service_app = create_app(settings)
    with _broker(settings.broker.url()):
        async with service_app.router.lifespan_context(service_app):
            yield service_app


@contextmanager
def _broker(url: str) -> Iterator[None]:
    """Celery's application is one for the process, and reads the environment: point it at this broker."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REDIS_URL", url)
        get_settings.cache_clear()
        patch.setattr(celery_app.conf, "broker_url", url)
        yield
    get_settings.cache_clear()


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


@contextmanager
def client_of(url: str, settings: Settings) -> Iterator[httpx.Client]:
    """A client of an API process on this database, logged in as its administrator."""

    async def make() -> None:
        engine = async_engine(settings.database, name="test")
        await service.ensure_admin(async_sessions(engine), *ADMIN)
        await engine.dispose()

    # In a thread: the caller may be inside a loop.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, make()).result()
    username, password = ADMIN
    with httpx.Client(base_url=url, timeout=30) as client:
        answer = client.post("/api/v1/auth/login", data={"username": username, "password": password})
        client.headers["Authorization"] = f"Bearer {answer.raise_for_status().json()['access_token']}"
        yield client
