"""Around every request: its id, its line in the access log, its limits, and the last resort."""

import asyncio
import re
import time
from collections.abc import Sequence
from secrets import token_hex

import structlog
from starlette._utils import get_route_path
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import logs
from app.api import access
from app.api.methods import literal_paths
from app.api.problems import REQUEST_ID, http_problem, response, unexpected
from app.errors import Unavailable

HEADER = "X-Request-ID"
_SANE = re.compile(r"[A-Za-z0-9._:@/+=-]{1,128}")
_RAW_HEADER = HEADER.lower().encode()
_RUNS = b"/api/v1/runs/"
# Headers of the request's state, whatever its answer is: how fast the caller may be, and a cookie that was replaced.
_OWN = ("rate_headers", "cookie_headers")

log = structlog.get_logger(access.LOGGER)


class RequestContext:
    """Pure ASGI, so that streams and cancellation pass through it untouched.

    The caller's `X-Request-ID` is kept when it is sane, else one is made. It is in every log line
    of the request, in problems and in the answer. The query is not logged: it may hold secrets.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; other kinds of scope pass through."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})[REQUEST_ID] = request_id
        status: int | None = None

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                # Nothing else writes these, so there is nothing to look for.
                headers = message["headers"]
                made = next((value for name, value in headers if name == b"location"), b"")
                if made.startswith(_RUNS):
                    logs.also(run_id=made.removeprefix(_RUNS).decode("latin-1"))
                mine = (_RAW_HEADER, request_id.encode())
                own = (pair for kind in _OWN for pair in scope["state"].get(kind, ()))
                message["headers"] = [*headers, mine, *own]
            await send(message)

        logs.enter(request_id=request_id)
        started = time.perf_counter()
        try:
            await self.app(scope, receive, answer)
        except Exception:
            log.exception("unhandled", action="unhandled", method=scope["method"], path=scope["path"])
            if status is not None:
                # The answer has begun and cannot be taken back; the server cuts the connection.
                raise
            await unexpected(scope)(scope, receive, answer)
        finally:
            access.write(scope, status, time.perf_counter() - started)
            logs.leave()


class BodyLimit:
    """Counts what a body really brings, declared or not. The framework's own limit answers in plain text."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, unless its body is too large."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = _header(scope, b"content-length")
        if declared.isdecimal() and int(declared) > self.max_bytes:
            await http_problem(scope, self._refusal())(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_bytes:
                # The framework wraps any other exception that comes from reading a body.
                raise self._refusal()
            return message

        await self.app(scope, counted, send)

    def _refusal(self) -> HTTPException:
        return HTTPException(413, f"The body may have at most {self.max_bytes} bytes; send a smaller one.")


class Deadline:
    """No caller waits for ever: a database that stopped answering says nothing, and keeps connections.

    Only the time until the answer begins is bounded, so streams may go on.
    """

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self.app = app
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request in time."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self.seconds) as deadline:

                async def answer(message: Message) -> None:
                    deadline.reschedule(None)
                    await send(message)

                await self.app(scope, receive, answer)
        except TimeoutError:
            if not deadline.expired():
                raise
            log.warning("no answer in time", action="deadline", method=scope["method"], path=scope["path"])
            refusal = Unavailable(
                "This took too long. Whether it was done is not known; look, and try again."
            )
            await response(scope, refusal)(scope, receive, send)


class LiteralPaths:
    """Refuses other methods at paths without parameters before a path with parameters takes them."""

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute]) -> None:
        self.app = app
        self.routes = routes
        self._known: dict[str, set[str]] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, unless its path takes other methods."""
        if scope["type"] == "http":
            if self._known is None:
                self._known = literal_paths(self.routes)
            methods = self._known.get(get_route_path(scope))
            if methods is not None and scope["method"] not in methods:
                refusal = HTTPException(405, headers={"Allow": ", ".join(sorted(methods))})
                await http_problem(scope, refusal)(scope, receive, send)
                return
        await self.app(scope, receive, send)


def _request_id(scope: Scope) -> str:
    given = _header(scope, _RAW_HEADER)
    return given if _SANE.fullmatch(given) else token_hex(16)


def _header(scope: Scope, sought: bytes) -> str:
    for name, value in scope["headers"]:
        if name == sought:
            return str(value, "latin-1")
    return ""
