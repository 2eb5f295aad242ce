"""Headers that tell browsers what not to do with our answers."""

from typing import Final

from starlette._utils import get_route_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CSP: Final = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
HSTS: Final = "max-age=31536000; includeSubDomains"
Pairs = tuple[tuple[bytes, bytes], ...]
_HSTS_HEADER: Final = (b"strict-transport-security", HSTS.encode())
_NO_STORE: Final = (b"cache-control", b"no-store")
_ALWAYS: Final[Pairs] = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
    (b"content-security-policy", CSP.encode()),
)


class SecurityHeaders:
    """On every answer; a route that set one of them, as the documentation's page does, keeps its own."""

    def __init__(self, app: ASGIApp, *, https: bool) -> None:
        self.app = app
        self.https = https

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        wanted: Pairs = _ALWAYS
        if get_route_path(scope).startswith("/api/"):
            wanted = (*wanted, _NO_STORE)
        if self.https or scope.get("scheme") == "https":
            wanted = (*wanted, _HSTS_HEADER)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = message["headers"]
                own = {name for name, _ in given}
                message["headers"] = [*given, *(pair for pair in wanted if pair[0] not in own)]
            await send(message)

        await self.app(scope, receive, answer)
