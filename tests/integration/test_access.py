"""Who may do what: every route by every role, on own and on others' objects, as each route declares it.

The cells are generated from the guards that routes declare (`app.api.guards`) and compared with what the service does.
A route without a guard is closed, and is named here.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from sqlalchemy import text
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as AsgiScope

from app.api.dependencies import authorize
from app.api.guards import Guard, guard_of, resource_in
from app.api.routing import DirectRoute, resource_router
from app.modules.auth import service
from app.modules.auth.service import LEVELS, Role, Scope
from app.settings import RateSettings, Settings
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
# The page of the documentation, which asks for a login itself; no operation.
FILES = {"/openapi.json", "/docs/assets"}
OWNED = {"sessions", "api-keys"}
SHARED = {
    "agents",
    "alerts",
    "beats",
    "calendars",
    "queues",
    "runs",
    "scheduled-tasks",
    "tasks",
    "users",
    "webhooks",
    "workers",
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


class Beginnings:
    """ASGI: of a stream only its beginning is sent, for an endless one would not let this client go on."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        begun = False

        async def sent(message: Message) -> None:
            nonlocal begun
            await send(message)
            if message["type"] == "http.response.start":
                begun = (
                    Headers(raw=message["headers"]).get("Content-Type", "").startswith("text/event-stream")
                )
                if begun:
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
                    raise ConnectionResetError

        try:
            await self.app(scope, receive, sent)
        except Exception:
            if not begun:
                raise


@pytest.fixture(scope="module")
async def api(settings: Settings) -> AsyncIterator[FastAPI]:
    without_limits = settings.model_copy(update={"rate": RateSettings(limit="", refused="")})
    with cheap_passwords():
        async with serving(without_limits) as app:
            app.add_middleware(Beginnings)
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


async def call(
    client: httpx.AsyncClient,
    route: Route,
    identifier: str = NOBODY,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> httpx.Response:
    """With a body that is read by no route before the caller is known, and does no harm after."""
    # The last one is no place in a stream: what is followed without an end is refused, too.
    sent = {"If-Match": '"0"', "Idempotency-Key": "not used", "Last-Event-ID": "x", **headers}
    body = None if route.method == "GET" else {"no_such_field": True}
    return await client.request(route.method, address(route, identifier), json=body, headers=sent)


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


async def test_what_is_no_operation_is_a_page_or_its_files(api: FastAPI) -> None:
    """The other tests see operations only: whatever else is served has its line here."""
    others = {
        context.path
        for context in iter_route_contexts(api.routes)
        if not isinstance(context.original_route, APIRoute | DirectRoute)
    }
    assert others == FILES


async def test_objects_are_everybodys_or_declared_owned(api: FastAPI) -> None:
    """Each kind of object: owned by users, with own and foreign ones tried below, or shared; a new kind is a decision."""
    named = [route for route in routes(api) if "{" in route.path]
    kinds = {resource_in(route.path): set[bool]() for route in named}
    for route in named:
        assert route.guard is not None
        kinds[resource_in(route.path)].add(route.guard.owned)
    assert {kind for kind, owned in kinds.items() if owned == {True}} == OWNED
    assert {kind for kind, owned in kinds.items() if owned == {False}} == SHARED
    assert set(kinds) == OWNED | SHARED, "no kind is both"


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


@pytest.fixture(scope="module")
async def invalid(api: FastAPI, clients: dict[str, httpx.AsyncClient]) -> dict[str, str]:
    """Credentials of an administrator that were good once, by what became of them."""
    sessions = api.state.services.sessions
    admin = clients["admin"]

    async def key(name: str) -> dict[str, Any]:
        answer = await admin.post("/api/v1/api-keys", json={"name": name, "scopes": ["admin"]})
        return answer.json()  # type: ignore[no-any-return]

    expired, revoked = await key("expired"), await key("revoked")
    await admin.delete(f"/api/v1/api-keys/{revoked['id']}")
    for name in ("late", "away"):
        await service.create_user(sessions, username=name, password=PASSWORD, role="admin")
    found = {
        "expired key": expired["secret"],
        "revoked key": revoked["secret"],
        "expired session": await log_in(api, "late", PASSWORD),
        "session of a deactivated user": await log_in(api, "away", PASSWORD),
    }
    async with sessions.begin() as session:
        for statement in (
            "UPDATE api_keys SET expires_at = clock_timestamp() - interval '1 second' WHERE name = 'expired'",
            "UPDATE user_sessions s SET expires_at = clock_timestamp() FROM users u WHERE u.id = s.user_id AND username = 'late'",
            "UPDATE users SET active = false WHERE username = 'away'",
        ):
            await session.execute(text(statement))
    return found


async def test_what_was_a_credential_opens_nothing(api: FastAPI, invalid: dict[str, str]) -> None:
    for what, token in invalid.items():
        async with connect(api, token) as client:
            for route in routes(api):
                if (route.method, route.path) not in OPEN:
                    assert (what, route.title, (await call(client, route)).status_code) == (
                        what,
                        route.title,
                        401,
                    )


async def test_a_cookie_alone_changes_nothing(api: FastAPI, clients: dict[str, httpx.AsyncClient]) -> None:
    """What reads is served; what changes is refused without the CSRF token, and by another site's page with it."""
    async with connect(api) as browser:
        answer = await browser.post("/api/v1/auth/browser", data={"username": "admin", "password": PASSWORD})
        csrf = {"X-CSRF-Token": answer.json()["csrf_token"], "Sec-Fetch-Site": "cross-site"}
        for route in routes(api):
            if (route.method, route.path) in OPEN:
                continue
            for headers in ({}, csrf):
                got = await call(browser, route, headers=headers)
                assert (route.title, got.status_code == 403) == (route.title, route.method != "GET"), got.text


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
    assert {route.path.split("/")[3] for route in owned} == OWNED
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


def resources(app: FastAPI) -> list[str]:
    """What a scope may name."""
    return sorted({resource_in(route.path) for route in routes(app) if route.path.startswith("/api/v1/")})


async def test_scopes_narrow_what_a_key_may_do(api: FastAPI, clients: dict[str, httpx.AsyncClient]) -> None:
    """Of an administrator's key: each level of everything and of each resource, against every route."""
    wrong, cells = [], 0
    for scope in (*LEVELS, *(f"{name}:{level}" for name in resources(api) for level in LEVELS)):
        answer = await clients["admin"].post("/api/v1/api-keys", json={"name": scope, "scopes": [scope]})
        assert answer.status_code == 201, answer.text
        async with connect(api, answer.json()["secret"]) as key:
            assert (await key.get("/api/v1/auth/me")).json()["means"] == "api_key"
            for route in routes(api):
                guard = route.guard
                if guard is None or guard.role is None or not worth_asking(scope, route):
                    continue
                cells += 1
                opened = (await call(key, route)).status_code not in REFUSED
                if opened is not opens(Scope.parse(scope), guard, resource_in(route.path)):
                    wrong.append(f"{route.title} with {scope}: {'open' if opened else 'closed'}")
    assert wrong == []
    assert cells > 1000


def opens(scope: Scope, guard: Guard, resource: str) -> bool:
    """What the declaration says of an administrator's key with this scope."""
    if guard.interactive:
        return False
    return not guard.scoped or (guard.role is not None and scope.covers(guard.role, resource))


def worth_asking(scope: str, route: Route) -> bool:
    """Of the lower levels of one resource, the routes of others say nothing that its highest does not."""
    resource, _, level = scope.rpartition(":")
    return not resource or level == "admin" or resource == resource_in(route.path)


@pytest.mark.parametrize("role", ["viewer", "operator"])
async def test_a_key_may_not_do_more_than_its_user(
    api: FastAPI, clients: dict[str, httpx.AsyncClient], role: str
) -> None:
    """A wider scope is refused at once, and does not help either when its user was demoted since."""
    for level, needed in LEVELS.items():
        answer = await clients[role].post("/api/v1/api-keys", json={"name": "wide", "scopes": [level]})
        assert (level, answer.status_code) == (level, 201 if Role(role).includes(needed) else 422)
    name = f"demoted to {role}"
    made = await service.create_user(
        api.state.services.sessions, username=name, password=PASSWORD, role="admin"
    )
    async with connect(api, await log_in(api, name, PASSWORD)) as owner:
        key = (await owner.post("/api/v1/api-keys", json={"name": "k", "scopes": ["admin"]})).json()["secret"]
    demoted = await clients["admin"].patch(
        f"/api/v1/users/{made.id}", json={"role": role}, headers={"If-Match": "*"}
    )
    assert demoted.status_code == 200, demoted.text
    async with connect(api, key) as program:
        for route in routes(api):
            if route.guard is not None and route.guard.role is not None:
                expected = not route.guard.interactive and allowed(route.guard, role)
                got = (await call(program, route)).status_code
                assert (route.title, got not in REFUSED) == (route.title, expected)
