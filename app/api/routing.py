"""Routers of resources: strict JSON bodies, callers checked before their bodies, and what goes with each request."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import RouteContext, iter_route_contexts
from pydantic import BaseModel, TypeAdapter
from starlette._utils import get_route_path
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from app.api.bodies import StrictRequest, StrictRoute, validated
from app.api.companion import Render, RequestCompanion, companion_of
from app.api.dependencies import authorize, services_of
from app.api.idempotency import HEADER, Replay, answer_of, kept, repeat_under, replayed
from app.db.companions import accompanied
from app.errors import UpbeatError
from app.modules.audit import service as audit
from app.modules.idempotency import service as idempotency

F = TypeVar("F", bound=Callable[..., Any])
Handler = Callable[[Request], Coroutine[Any, Any, Response]]
VERSION: Final = "/v1"
_ATTRIBUTE: Final = "__direct__"
_MISSING: Final = {"type": "missing", "loc": ("body",), "msg": "Field required"}


class ResourceRoute(StrictRoute):
    """A route behind `app.api.dependencies.authorize`, whose changes are accompanied."""

    authorize = staticmethod(authorize)

    def get_route_handler(self) -> Handler:
        """The handler of `StrictRoute`, accompanied."""
        return _accompanying(super().get_route_handler())


def _accompanying(handle: Handler) -> Handler:
    async def serve(request: Request) -> Response:
        companion = companion_of(request.scope)
        with accompanied(companion):
            try:
                response = await handle(request)
            except Replay as known:
                return replayed(known.answer)
            except UpbeatError:
                # The other one of two requests with one key: its effect may be what this one ran into.
                first = await _first(request, companion)
                if first is None:
                    raise
                return first
        await _settle(request, companion, response)
        return response

    return serve


@dataclass(frozen=True, slots=True)
class _Direct:
    body: TypeAdapter[Any]
    render: Render


def direct(body: type[BaseModel], render: Render) -> Callable[[F], F]:
    """For a busy route: it is served without the framework's search for it and its resolution of dependencies, which
    cost more than all else.

    The decorated function is called with `request`, with `body`, and with the path's parameters as text. Callers, keys
    (``render`` is what `repeatable` says of it) and bodies are checked as everywhere; the document is the framework's.
    """

    def declare(endpoint: F) -> F:
        setattr(endpoint, _ATTRIBUTE, _Direct(TypeAdapter(body), render))
        return endpoint

    return declare


class DirectRoute(BaseRoute):
    """A route of the framework that is served as `direct` says; found by one look at the path."""

    def __init__(self, context: RouteContext, endpoint: Callable[..., Any], what: _Direct) -> None:
        self.path = self.path_format = context.path_format
        self.name, self.endpoint, self.methods = context.name, endpoint, context.methods or set()
        self._pattern = context.path_regex
        self._serve = _accompanying(_directly(endpoint, what))

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """FULL, or not at all: the framework's own route answers other methods."""
        if scope["type"] != "http" or scope["method"] not in self.methods:
            return Match.NONE, {}
        found = self._pattern.match(get_route_path(scope))
        if found is None:
            return Match.NONE, {}
        return Match.FULL, {"endpoint": self.endpoint, "path_params": found.groupdict()}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; what it raises is the middleware's to answer."""
        response = await self._serve(StrictRequest(scope, receive, send))
        await response(scope, receive, send)


def serve_directly(app: FastAPI) -> None:
    """Put a `DirectRoute` before all others for each that is declared so."""
    found = [
        DirectRoute(context, endpoint, what)
        for context in iter_route_contexts(app.routes)
        if (endpoint := context.endpoint) is not None
        and (what := getattr(endpoint, _ATTRIBUTE, None)) is not None
    ]
    app.router.routes[:0] = found


def _directly(endpoint: Callable[..., Any], what: _Direct) -> Handler:
    async def handle(request: Request) -> Response:
        await authorize(request)
        if not (sent := await request.body()):
            raise RequestValidationError([_MISSING])
        await request.json()
        body = validated(what.body, sent)
        await repeat_under(request, request.headers.get(HEADER), what.render)
        response: Response = await endpoint(request=request, body=body, **request.path_params)
        return response

    return handle


class ResourceRouter(APIRouter):
    """Looks through its routes only when the path has its prefix: a request passes all the other resources' routers."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """As `APIRouter`'s, which tries every route."""
        return (
            super().matches(scope) if f"{VERSION}{self.prefix}" in scope.get("path", "") else (Match.NONE, {})
        )


def resource_router(prefix: str, tag: str) -> APIRouter:
    """A router for one resource."""
    return ResourceRouter(prefix=prefix, tags=[tag], route_class=ResourceRoute)


async def _first(request: Request, companion: RequestCompanion) -> Response | None:
    claim = companion.claim
    if claim is None or companion.done:
        return None
    found = await idempotency.known(services_of(request).sessions, claim.caller, claim.key)
    return None if found is None else replayed(answer_of(found, claim))


async def _settle(request: Request, companion: RequestCompanion, response: Response) -> None:
    """What is left to store when the change is made: nothing, as a rule."""
    sessions = services_of(request).sessions
    if companion.entry is not None and not companion.done and response.status_code < 400:
        # It changed something outside of the database, such as a queue in Redis.
        await audit.record_apart(sessions, companion.entry)
    if companion.claim is not None and companion.done and not companion.answered:
        await idempotency.keep_answer(sessions, companion.claim, kept(response))
