"""Who may do what: every route by every role, on own and on others' objects, as each route declares it.

The cells are generated from the guards that routes declare (`app.api.guards`) and compared with what the service does.
A route without a guard is closed, and is named here.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute, iter_route_contexts

from app.api.dependencies import authorize
from app.api.guards import Guard, guard_of
from app.api.routing import resource_router
from app.modules.auth import service
from app.modules.auth.service import Role
from app.settings import Settings
from support.api import connect, connected, log_in, serving
from support.people import PASSWORD, cheap_passwords

NOBODY = "0199d0c2-f2f0-7a51-9c66-3f0c5f3ad4b1"
UNDOCUMENTED = {("GET", "/docs")}
REFUSED = {401, 403}
# What is open to everybody, on purpose. A new line here is a decision.
OPEN = {
    ("GET", "/livez"),
    ("GET", "/readyz"),
    ("POST", "/api/v1/auth/login"),
    ("POST", "/api/v1/auth/browser"),
}
# These end the session that calls them, so each needs one of its own.
ENDS_SESSION = {"logout", "logout_everywhere"}


@dataclass(frozen=True)
class Route:
    """One operation and what it declares."""

    method: str
    path: str
    name: str
    guard: Guard | None

    @property
    def title(self) -> str:
        return f"{self.method} {self.path}"


@pytest.fixture(scope="module")
async def api(settings: Settings) -> AsyncIterator[FastAPI]:
    # Each route is tried without a valid credential, more often than one address may in a minute.
    rate = settings.rate.model_copy(update={"refused": "3000/minute"})
    with cheap_passwords():
        async with serving(settings.model_copy(update={"rate": rate})) as app:
            yield app


@pytest.fixture(scope="module")
async def clients(api: FastAPI) -> AsyncIterator[dict[str, httpx.AsyncClient]]:
    """A client of each role, and one of nobody's."""
    async with (
        connected(api) as admin,
        connected(api, "operator") as operator,
        connected(api, "viewer") as viewer,
        connect(api) as nobody,
    ):
        yield {"admin": admin, "operator": operator, "viewer": viewer, "nobody": nobody}


def routes(app: FastAPI) -> list[Route]:
    return [
        Route(method, str(context.path), str(context.name), guard_of(context.endpoint))
        for context in iter_route_contexts(app.routes)
        if isinstance(context.original_route, APIRoute)
        for method in sorted(context.methods or ())
        if (method, context.path) not in UNDOCUMENTED
    ]


def allowed(guard: Guard, role: str) -> bool:
    """What the declaration says of this role."""
    if guard.role is None:
        return True
    return role != "nobody" and Role(role).includes(guard.role)


def address(route: Route, identifier: str = NOBODY) -> str:
    parts = [identifier if part.startswith("{") else part for part in route.path.split("/")]
    return "/".join(parts)


async def call(client: httpx.AsyncClient, route: Route, identifier: str = NOBODY) -> httpx.Response:
    """With a body that is read by no route before the caller is known, and does no harm after."""
    # The last one is no place in a stream: what is followed without an end is refused, too.
    headers = {"If-Match": '"0"', "Idempotency-Key": "not used", "Last-Event-ID": "x"}
    body = None if route.method == "GET" else {"no_such_field": True}
    return await client.request(route.method, address(route, identifier), json=body, headers=headers)


async def test_every_route_declares_its_guard(api: FastAPI) -> None:
    bare = [route.title for route in routes(api) if route.guard is None]
    assert not bare, (
        f"These routes do not say who may call them, so nobody may: {', '.join(bare)}. Put @guarded(READ), "
        "@guarded(OPERATE) or another guard of app.api.guards under the path of each."
    )
    assert {(r.method, r.path) for r in routes(api) if r.guard is not None and r.guard.role is None} == OPEN
    assert len(routes(api)) > 30


async def test_every_route_that_is_served_is_documented(api: FastAPI) -> None:
    documented = {
        (method.upper(), path) for path, methods in api.openapi()["paths"].items() for method in methods
    }
    assert {(route.method, route.path) for route in routes(api)} == documented


async def test_a_route_without_a_guard_is_closed(settings: Settings) -> None:
    forgotten = resource_router("/forgotten", "Runs")

    @forgotten.get("")
    async def read_forgotten() -> str:
        return "secret"

    async with serving(settings) as app:
        app.include_router(forgotten, prefix="/api/v1", dependencies=[Depends(authorize)])
        async with connected(app) as admin:
            answer = await admin.get("/api/v1/forgotten")
        assert answer.status_code == 403
        assert "secret" not in answer.text
        assert [route.title for route in routes(app) if route.guard is None] == ["GET /api/v1/forgotten"]


@pytest.mark.parametrize("role", ["nobody", "viewer", "operator", "admin"])
async def test_each_cell_is_as_declared(
    api: FastAPI, clients: dict[str, httpx.AsyncClient], role: str
) -> None:
    wrong = []
    for route in routes(api):
        if route.guard is None or (route.name in ENDS_SESSION and role != "nobody"):
            continue
        answer = await call(clients[role], route)
        refused = answer.status_code in REFUSED and (route.method, route.path) not in OPEN
        if role == "nobody" and refused:
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        if refused is allowed(route.guard, role):
            wrong.append(f"{route.title}: {answer.status_code} for {role}")
        assert answer.status_code != 500, (route, answer.text)
    assert wrong == []


async def test_a_forged_token_opens_nothing(api: FastAPI) -> None:
    for token in ("not-a-token", "upb_not-a-key", "x" * 5000):
        async with connect(api, token) as forger:
            for route in routes(api):
                if (route.method, route.path) not in OPEN:
                    answer = await call(forger, route)
                    assert (route.title, answer.status_code) == (route.title, 401)


async def test_sessions_end_at_what_ends_them(api: FastAPI, clients: dict[str, httpx.AsyncClient]) -> None:
    ending = [route for route in routes(api) if route.name in ENDS_SESSION]
    assert len(ending) == len(ENDS_SESSION)
    await service.create_user(
        api.state.services.sessions, username="leaver", password=PASSWORD, role="viewer"
    )
    for route in ending:
        async with connect(api, await log_in(api, "leaver", PASSWORD)) as client:
            assert (await call(client, route)).status_code in (200, 204)
            assert (await client.get("/api/v1/auth/me")).status_code == 401


@pytest.mark.parametrize("role", ["viewer", "operator", "admin"])
async def test_own_objects_and_others(api: FastAPI, clients: dict[str, httpx.AsyncClient], role: str) -> None:
    """Each owned route, on an object of the caller's and on somebody else's."""
    owned = [r for r in routes(api) if r.guard is not None and r.guard.owned and "{" in r.path]
    assert {route.path.split("/")[3] for route in owned} == {"sessions", "api-keys"}
    stranger = "viewer" if role != "viewer" else "operator"
    for route in owned:
        own = await call(clients[role], route, await made(api, clients[role], route, role))
        assert (route.title, own.status_code) == (route.title, 200 if route.method == "GET" else 204)
        other = await call(clients[role], route, await made(api, clients[stranger], route, stranger))
        expected = own.status_code if role == "admin" else 404
        assert (route.title, other.status_code) == (route.title, expected)


async def made(api: FastAPI, client: httpx.AsyncClient, route: Route, owner: str) -> str:
    """An object of this client's, of the kind that the route is about."""
    if route.path.startswith("/api/v1/api-keys"):
        answer = await client.post("/api/v1/api-keys", json={"name": "x", "scopes": ["read"]})
        return str(answer.json()["id"])
    token = await log_in(api, owner, PASSWORD)
    async with connect(api, token) as other:
        listed: dict[str, Any] = (await other.get("/api/v1/sessions")).json()
    return str(next(item["id"] for item in listed["items"] if item["current"]))


@pytest.mark.parametrize("path", ["/api/v1/sessions", "/api/v1/api-keys"])
async def test_lists_of_others_are_for_administrators(
    clients: dict[str, httpx.AsyncClient], path: str
) -> None:
    mine = (await clients["viewer"].get("/api/v1/auth/me")).json()["id"]
    for query in ({"everybody": True}, {"user_id": NOBODY}):
        assert (await clients["viewer"].get(path, params=query)).status_code == 403
        assert (await clients["admin"].get(path, params=query)).status_code == 200
    own = (await clients["viewer"].get(path, params={"user_id": mine})).json()["items"]
    assert {item["user_id"] for item in own} <= {mine}
    everybody = (await clients["admin"].get(path, params={"everybody": True, "limit": 200})).json()["items"]
    assert {item["id"] for item in own} <= {item["id"] for item in everybody}


@pytest.mark.parametrize(
    ("scopes", "opens", "closes"),
    [
        (["read"], ["GET /api/v1/runs"], ["POST /api/v1/scheduled-tasks", "GET /api/v1/users"]),
        (["operate"], ["GET /api/v1/runs", "POST /api/v1/scheduled-tasks"], ["POST /api/v1/users"]),
        (["admin"], ["POST /api/v1/users", "GET /api/v1/audit"], ["GET /api/v1/api-keys"]),
        (["runs:read"], ["GET /api/v1/runs"], ["GET /api/v1/tasks", "GET /api/v1/audit"]),
        (["tasks:operate"], ["POST /api/v1/tasks/{name}/runs"], ["GET /api/v1/runs"]),
    ],
)
async def test_scopes_narrow_what_a_key_may_do(
    api: FastAPI,
    clients: dict[str, httpx.AsyncClient],
    scopes: list[str],
    opens: list[str],
    closes: list[str],
) -> None:
    """Of an administrator's key."""
    answer = await clients["admin"].post("/api/v1/api-keys", json={"name": "narrow", "scopes": scopes})
    assert answer.status_code == 201, answer.text
    by_title = {route.title: route for route in routes(api)}
    async with connect(api, answer.json()["secret"]) as key:
        assert (await key.get("/api/v1/auth/me")).json()["means"] == "api_key"
        for title in opens:
            assert (title, (await call(key, by_title[title])).status_code in REFUSED) == (title, False)
        for title in closes:
            assert (title, (await call(key, by_title[title])).status_code) == (title, 403)
        for route in routes(api):
            if route.guard is not None and route.guard.interactive:
                assert (route.title, (await call(key, route)).status_code) == (route.title, 403)
