"""Rate limits: counted in Redis for all processes, told in headers, and no obstacle when Redis is away."""

import socket
import time
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from app.settings import BrokerSettings, RateSettings, Settings
from support.api import connect, connected, serving
from support.people import PASSWORD, cheap_passwords, person, token_of

RUNS = "/api/v1/runs"


def limited(settings: Settings, limit: str = "", refused: str = "") -> Settings:
    return settings.model_copy(update={"rate": RateSettings(limit=limit, refused=refused)})


@pytest.fixture(scope="module")
async def api(settings: Settings) -> AsyncIterator[FastAPI]:
    with cheap_passwords():
        async with serving(limited(settings, "5/day")) as app:
            yield app


async def test_a_caller_is_counted_in_all_processes(api: FastAPI, settings: Settings) -> None:
    token, other = await token_of(api), await token_of(api)
    async with serving(limited(settings, "5/day")) as second, connect(api, token) as client:
        left = []
        for _ in range(3):
            answer = await client.get(RUNS)
            left.append(int(answer.headers["RateLimit-Remaining"]))
            assert answer.headers["RateLimit-Limit"] == "5"
            assert answer.headers["RateLimit-Policy"] == "5;w=86400"
            assert 0 < int(answer.headers["RateLimit-Reset"]) <= 86400
        async with connect(second, token) as elsewhere:
            left += [int((await elsewhere.get(RUNS)).headers["RateLimit-Remaining"]) for _ in range(2)]
            refused = await elsewhere.get(RUNS)
        assert left == [4, 3, 2, 1, 0]
        assert refused.status_code == 429
        assert refused.json()["type"] == "/problems/too_many_requests"
        assert refused.headers["Retry-After"] == refused.headers["RateLimit-Reset"]
        assert (await client.get(RUNS)).status_code == 429
    async with connect(api, other) as client:
        assert (await client.get(RUNS)).status_code == 200
        assert (await client.get("/livez")).headers.get("RateLimit-Limit") is None


async def test_an_address_without_credentials_is_counted(settings: Settings) -> None:
    async with serving(limited(settings, refused="3/day")) as app, connect(app, "guess") as guesser:
        statuses = [(await guesser.get(RUNS)).status_code for _ in range(5)]
        assert statuses == [401, 401, 401, 429, 429]
        async with connected(app) as admin:
            assert (await admin.get(RUNS)).status_code == 200, "who has a credential is not concerned"


async def test_addresses_of_one_ipv6_network_are_counted_together(settings: Settings) -> None:
    async with serving(limited(settings, refused="3/day")) as app:
        statuses = []
        for number in range(5):
            transport = httpx.ASGITransport(app, client=(f"2001:db8:7::{number:x}", 1))
            async with httpx.AsyncClient(transport=transport, base_url="http://upbeat.test") as guesser:
                statuses.append((await guesser.get(RUNS)).status_code)
        assert statuses == [401, 401, 401, 429, 429]
        assert not app.state.services.limiter._known, "of a small limit nothing is kept here"


async def test_a_cookie_without_its_csrf_token_is_counted_as_none(settings: Settings) -> None:
    with cheap_passwords():
        async with serving(limited(settings, refused="4/day")) as app, connect(app) as browser:
            form = {"username": await person(app, "operator"), "password": PASSWORD}
            assert (await browser.post("/api/v1/auth/browser", data=form)).status_code == 200
            cancel = {"task": "scheduled_task.test_task"}
            statuses = [(await browser.post(f"{RUNS}/cancel", json=cancel)).status_code for _ in range(6)]
            assert statuses == [403] * 4 + [429] * 2


async def test_no_limit_is_no_header(settings: Settings) -> None:
    async with serving(limited(settings)) as app, connected(app) as admin:
        assert "RateLimit-Limit" not in (await admin.get(RUNS)).headers


@pytest.mark.parametrize("silent", [True, False])
async def test_without_redis_nobody_is_counted_and_nobody_waits(settings: Settings, *, silent: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"redis://127.0.0.1:{server.getsockname()[1]}/0"
        if not silent:
            server.close()
        broker = BrokerSettings(REDIS_URL=SecretStr(url))
        changed = limited(settings, "1/day").model_copy(update={"broker": broker})
        async with serving(changed) as app, connected(app) as admin:
            started = time.monotonic()
            for _ in range(20):
                answer = await admin.get(RUNS)
                assert answer.status_code == 200
                assert "RateLimit-Limit" not in answer.headers
            assert time.monotonic() - started < 3, "one tenth of a second, once, and then no more"
