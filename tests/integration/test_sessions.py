"""Login sessions: throttled logins, lifetimes, rotation, browsers' cookies and CSRF, the own password."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text

from app.modules.auth.service import forget_old
from app.settings import AuthSettings, DeploymentSettings, Settings
from support.api import connect, log_in, serving
from support.people import PASSWORD, cheap_passwords, person, token_of
from support.polling import eventually_async

LOGIN = "/api/v1/auth/login"
BROWSER = "/api/v1/auth/browser"
ME = "/api/v1/auth/me"
TASK_RUNS = "/api/v1/tasks/scheduled_task.test_task/runs"
ATTEMPTS = 5


@pytest.fixture(scope="module")
def patient(settings: Settings) -> Settings:
    """Waits that no test outlasts."""
    auth = AuthSettings(login_attempts=ATTEMPTS, login_attempts_per_address=1000, login_wait=60)
    return settings.model_copy(update={"auth": auth})


@pytest.fixture(scope="module")
async def api(patient: Settings) -> AsyncIterator[FastAPI]:
    with cheap_passwords():
        async with serving(patient) as app:
            yield app


async def sql(app: FastAPI, statement: str, **values: Any) -> Any:
    async with app.state.services.sessions.begin() as session:
        return await session.execute(text(statement), values)


async def attempt(app: FastAPI, username: str, password: str, address: str = "127.0.0.1") -> httpx.Response:
    transport = httpx.ASGITransport(app, client=(address, 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://upbeat.test") as client:
        return await client.post(LOGIN, data={"username": username, "password": password})


async def test_wrong_passwords_cost_time_in_every_process(api: FastAPI, patient: Settings) -> None:
    name = await person(api)
    for _ in range(ATTEMPTS):
        assert (await attempt(api, name, "wrong")).status_code == 401
    async with serving(patient) as another_process:
        answer = await attempt(another_process, name, PASSWORD)
    assert answer.status_code == 429
    assert answer.json()["type"] == "/problems/too_many_requests"
    assert 55 <= int(answer.headers["Retry-After"]) <= 61
    assert (await attempt(api, await person(api), PASSWORD)).status_code == 200, "others are not concerned"
    await sql(api, "UPDATE login_throttles SET blocked_until = clock_timestamp() - interval '1 second'")
    assert (await attempt(api, name, "wrong")).status_code == 401
    again = await attempt(api, name, PASSWORD)
    assert again.status_code == 429
    assert 110 <= int(again.headers["Retry-After"]) <= 121, "twice as long as before"
    await sql(api, "UPDATE login_throttles SET blocked_until = clock_timestamp() - interval '1 second'")
    assert (await attempt(api, name, PASSWORD)).status_code == 200
    assert (await attempt(api, name, "wrong")).status_code == 401, "the count has begun anew"


async def test_attempts_at_once_are_no_way_around(api: FastAPI) -> None:
    name = await person(api)
    answers = await asyncio.gather(*(attempt(api, name, "wrong") for _ in range(20)))
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [401] * ATTEMPTS + [429] * (20 - ATTEMPTS)


async def test_an_address_waits_whatever_names_it_tries(settings: Settings) -> None:
    auth = AuthSettings(login_attempts_per_address=3, login_wait=60)
    async with serving(settings.model_copy(update={"auth": auth})) as app:
        await sql(app, "DELETE FROM login_throttles")
        known = await person(app)
        for number in range(3):
            assert (await attempt(app, f"nobody {number}", "wrong")).status_code == 401
        assert (await attempt(app, known, PASSWORD)).status_code == 429
        await sql(app, "DELETE FROM login_throttles")
        for _ in range(5):
            assert (await attempt(app, known, PASSWORD)).status_code == 200, "right passwords do not count"


async def test_an_address_that_waits_adds_nothing_and_ipv6_counts_by_network(settings: Settings) -> None:
    auth = AuthSettings(login_attempts_per_address=3, login_wait=60)
    async with serving(settings.model_copy(update={"auth": auth})) as app:
        await sql(app, "DELETE FROM login_throttles")
        for number in range(3):
            assert (
                await attempt(app, f"no {number}", "wrong", f"2001:db8::{number + 1:x}")
            ).status_code == 401
        for number in range(50):
            answer = await attempt(app, f"nobody {number}", "wrong", f"2001:db8::ffff:{number:x}")
            assert answer.status_code == 429
        assert (await sql(app, "SELECT count(*) FROM login_throttles")).scalar_one() == 4
        assert (await attempt(app, "no", "wrong", "2001:db8:0:1::1")).status_code == 401, "another network"
        counted = await scraped(app)
        assert counted['upbeat_logins_total{outcome="throttled"}'] >= 50
        assert counted['upbeat_logins_total{outcome="refused"}'] >= 4
        await sql(
            app,
            "UPDATE login_throttles SET last_failure_at = now() - interval '1 hour', blocked_until = NULL",
        )
        assert await forget_old(app.state.services.sessions, batch=2) == 6


async def scraped(app: FastAPI) -> dict[str, float]:
    lines = (await app.state.services.scrapes.text()).decode().splitlines()
    pairs = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
    return {name: float(value) for name, value in pairs}


async def test_old_failures_are_forgotten(api: FastAPI) -> None:
    name = await person(api)
    for _ in range(ATTEMPTS - 1):
        await attempt(api, name, "wrong")
    await sql(api, "UPDATE login_throttles SET last_failure_at = last_failure_at - interval '16 minutes'")
    for _ in range(ATTEMPTS - 1):
        assert (await attempt(api, name, "wrong")).status_code == 401
    assert (await attempt(api, name, PASSWORD)).status_code == 200


@pytest.mark.parametrize(
    "change",
    [
        "last_used_at = last_used_at - interval '3 hours'",
        "expires_at = clock_timestamp()",
        "revoked_at = clock_timestamp()",
    ],
)
async def test_a_session_ends(api: FastAPI, change: str) -> None:
    name = await person(api)
    async with connect(api, await log_in(api, name, PASSWORD)) as client:
        assert (await client.get(ME)).status_code == 200
        await sql(
            api,
            f"UPDATE user_sessions SET {change} FROM users u WHERE u.id = user_id AND u.username = :name",
            name=name,
        )
        assert (await client.get(ME)).status_code == 401


async def test_use_is_written_down_at_most_once_a_minute(api: FastAPI) -> None:
    async with connect(api, await token_of(api)) as client:

        async def used() -> str:
            return str((await client.get("/api/v1/sessions")).json()["items"][0]["last_used_at"])

        first = await used()
        assert await used() == first
        await sql(api, "UPDATE user_sessions SET last_used_at = last_used_at - interval '61 seconds'")
        await used()
        assert await used() > first


async def test_a_bearer_token_is_replaced_on_demand(api: FastAPI) -> None:
    old = await token_of(api)
    async with connect(api, old) as client:
        answer = await client.post("/api/v1/auth/refresh")
        assert answer.status_code == 200
        assert (await client.get(ME)).status_code == 200, "good for a moment more"
        assert (await client.post("/api/v1/auth/refresh")).status_code == 409
        await sql(api, "UPDATE user_sessions SET previous_until = clock_timestamp()")
        assert (await client.get(ME)).status_code == 401
    async with connect(api, answer.json()["access_token"]) as client:
        assert (await client.get(ME)).status_code == 200


@asynccontextmanager
async def browsing(app: FastAPI, role: str) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.Response]]:
    """A browser that is logged in as a new user, and the answer to its login."""
    name = await person(app, role)
    async with connect(app) as client:
        answer = await client.post(BROWSER, data={"username": name, "password": PASSWORD})
        assert answer.status_code == 200, answer.text
        yield client, answer


async def test_a_browsers_session(api: FastAPI) -> None:
    async with browsing(api, "operator") as (client, answer):
        session, csrf = answer.headers.get_list("Set-Cookie")
        assert session.startswith("upbeat_session=")
        assert {"httponly", "samesite=lax", "path=/"} <= set(session.lower().split("; "))
        assert "httponly" not in csrf.lower()
        assert "access_token" not in answer.json()
        token = answer.json()["csrf_token"]
        assert (await client.get(ME)).json()["means"] == "cookie"
        refused = await client.post(TASK_RUNS, json={})
        assert refused.status_code == 403
        assert "X-CSRF-Token" in refused.json()["detail"]
        for forged in ("", "x", token[:-1], token + "x"):
            refused = await client.post(TASK_RUNS, json={}, headers={"X-CSRF-Token": forged})
            assert refused.status_code == 403
        for site in ("cross-site", "same-site"):
            headers = {"X-CSRF-Token": token, "Sec-Fetch-Site": site}
            assert (await client.post(TASK_RUNS, json={}, headers=headers)).status_code == 403
        good = {"X-CSRF-Token": token, "Sec-Fetch-Site": "same-origin"}
        assert (await client.post(TASK_RUNS, json={}, headers=good)).status_code == 202
        cookie = client.cookies["upbeat_session"]
        async with connect(api, cookie) as thief:
            assert (await thief.get(ME)).status_code == 401, "a cookie's token is none for the header"
        assert (await client.post("/api/v1/auth/logout", headers=good)).status_code == 204
        assert not client.cookies


async def test_anothers_csrf_token_does_not_fit(api: FastAPI) -> None:
    async with browsing(api, "operator") as (client, _), browsing(api, "operator") as (_, answer):
        headers = {"X-CSRF-Token": answer.json()["csrf_token"]}
        assert (await client.post(TASK_RUNS, json={}, headers=headers)).status_code == 403


async def test_another_site_cannot_log_a_browser_in(api: FastAPI) -> None:
    form = {"username": await person(api), "password": PASSWORD}
    async with connect(api) as client:
        answer = await client.post(BROWSER, data=form, headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403
    assert "Set-Cookie" not in answer.headers


async def test_a_bearer_session_is_no_cookie(api: FastAPI) -> None:
    async with connect(api) as client:
        client.cookies.set("upbeat_session", await token_of(api))
        assert (await client.get(ME)).status_code == 401


async def test_behind_https_cookies_stay_there(api: FastAPI, settings: Settings) -> None:
    name = await person(api)
    behind_proxy = settings.model_copy(
        update={"deployment": DeploymentSettings(public_url="https://upbeat.example")}
    )
    async with serving(behind_proxy) as proxied:
        for app, scheme in ((api, "https"), (proxied, "http")):
            async with connect(app) as client:
                client.base_url = httpx.URL(f"{scheme}://upbeat.test")
                answer = await client.post(BROWSER, data={"username": name, "password": PASSWORD})
            for cookie in answer.headers.get_list("Set-Cookie"):
                assert cookie.startswith("__Host-upbeat_")
                assert "; secure" in cookie.lower()


async def test_a_cookie_that_has_aged_replaces_itself_once(api: FastAPI) -> None:
    async with browsing(api, "viewer") as (client, _):
        old = client.cookies["upbeat_session"]
        await sql(api, "UPDATE user_sessions SET rotated_at = rotated_at - interval '2 hours'")
        first = await asyncio.gather(*(ask(api, old) for _ in range(8)))
        assert [answer.status_code for answer in first] == [200] * 8
        fresh = [cookie for answer in first if (cookie := answer.cookies.get("upbeat_session"))]
        assert len(fresh) == 1
        assert (await ask(api, old)).status_code == 200, "requests under way are let through"
        assert (await ask(api, fresh[0])).cookies.get("upbeat_session") is None
        await sql(api, "UPDATE user_sessions SET previous_until = clock_timestamp()")
        assert (await ask(api, old)).status_code == 401
        assert (await ask(api, fresh[0])).status_code == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"/api/v1/runs/{UUID(int=1)}", 404),
        ("/api/v1/users", 403),
        ("/api/v1/runs?limit=0", 422),
        ("/metrics", 200),
    ],
)
async def test_the_fresh_cookie_comes_with_any_answer(api: FastAPI, path: str, status: int) -> None:
    """A browser that did not get it would be logged out a minute later."""
    async with browsing(api, "viewer") as (client, _):
        old = client.cookies["upbeat_session"]
        await sql(api, "UPDATE user_sessions SET rotated_at = rotated_at - interval '2 hours'")
        answer = await ask(api, old, path)
        assert (answer.status_code, len(answer.cookies)) == (status, 1)
        assert answer.cookies["upbeat_session"] != old


async def test_a_logout_leaves_no_fresh_cookie(api: FastAPI) -> None:
    async with browsing(api, "viewer") as (client, answer):
        await sql(api, "UPDATE user_sessions SET rotated_at = rotated_at - interval '2 hours'")
        headers = {"X-CSRF-Token": answer.json()["csrf_token"]}
        assert (await client.post("/api/v1/auth/logout", headers=headers)).status_code == 204
        assert not client.cookies


async def ask(app: FastAPI, cookie: str, path: str = ME) -> httpx.Response:
    async with connect(app) as client:
        client.cookies.set("upbeat_session", cookie)
        return await client.get(path)


async def test_the_own_password(api: FastAPI) -> None:
    name = await person(api)
    here, there = [await log_in(api, name, PASSWORD) for _ in range(2)]
    async with connect(api, here) as client, connect(api, there) as other:
        wrong = {"current_password": "wrong", "new_password": "another long one"}
        answer = await client.put("/api/v1/auth/password", json=wrong)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "current_password")
        short = {"current_password": PASSWORD, "new_password": "short"}
        answer = await client.put("/api/v1/auth/password", json=short)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "new_password")
        assert (await other.get(ME)).status_code == 200
        good = {"current_password": PASSWORD, "new_password": "another long one"}
        assert (await client.put("/api/v1/auth/password", json=good)).status_code == 204
        assert (await client.get(ME)).status_code == 200
        assert (await other.get(ME)).status_code == 401
    assert (await attempt(api, name, PASSWORD)).status_code == 401
    assert (await attempt(api, name, "another long one")).status_code == 200


async def test_guesses_of_the_own_password_are_throttled(api: FastAPI) -> None:
    async with connect(api, await token_of(api)) as client:
        body = {"current_password": "wrong", "new_password": "another long one"}
        statuses = [(await client.put("/api/v1/auth/password", json=body)).status_code for _ in range(7)]
    assert statuses == [422] * ATTEMPTS + [429] * 2


async def test_logging_out_everywhere(api: FastAPI) -> None:
    name = await person(api)
    tokens = [await log_in(api, name, PASSWORD) for _ in range(3)]
    async with connect(api, tokens[0]) as client:
        assert (await client.post("/api/v1/auth/logout-everywhere")).json() == {"sessions_ended": 3}
    for token in tokens:
        async with connect(api, token) as client:
            assert (await client.get(ME)).status_code == 401


@pytest.mark.parametrize(
    "change", ["password_hash = 'another one'", "active = false"], ids=["new password", "deactivated"]
)
async def test_a_login_that_a_change_of_the_user_overtakes_is_refused(api: FastAPI, change: str) -> None:
    """The password was right when it was read; the session would outlive the change that ends all sessions."""
    name = await person(api)

    async def waits() -> bool:
        found = await sql(api, "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        return bool(found.scalar_one() == 1)

    async with api.state.services.sessions.begin() as session:
        await session.execute(text(f"UPDATE users SET {change} WHERE username = :name"), {"name": name})
        overtaken = asyncio.create_task(attempt(api, name, PASSWORD))
        await eventually_async(waits, 10, "the login waits for the user's row")
    assert (await overtaken).status_code == 401
    left = "SELECT count(*) FROM user_sessions s JOIN users u ON u.id = s.user_id WHERE u.username = :name"
    assert (await sql(api, left, name=name)).scalar_one() == 0
