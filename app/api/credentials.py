"""What a request proves about its caller: a bearer token, an API key, or a browser's cookie with its CSRF token."""

import hmac
from datetime import UTC, datetime
from typing import Final

from fastapi import Request, Response
from fastapi.openapi.models import APIKey, APIKeyIn
from fastapi.security import OAuth2PasswordBearer
from fastapi.security.base import SecurityBase

from app.api.guards import SAFE
from app.errors import Forbidden, Unauthenticated
from app.modules.auth import service as auth
from app.modules.auth.service import Means, Principal
from app.settings import Settings

COOKIE: Final = "upbeat_session"
CSRF_COOKIE: Final = "upbeat_csrf"
CSRF_HEADER: Final = "X-CSRF-Token"

bearer = OAuth2PasswordBearer(
    tokenUrl="/api/v1/auth/login",
    scheme_name="Password",
    description="Log in with username and password; the client fields stay empty. An API key will do as well.",
    auto_error=False,
)


class _Cookie(SecurityBase):
    """The browser's cookie, whichever of its two names it has here."""

    def __init__(self) -> None:
        self.model = APIKey(
            **{"in": APIKeyIn.cookie},
            name=COOKIE,
            description=f"Of POST /api/v1/auth/browser; what changes something needs the header {CSRF_HEADER} too.",
        )
        self.scheme_name = "Cookie"

    async def __call__(self, request: Request) -> str | None:
        return request.cookies.get(cookie_name(COOKIE, secure=is_secure(request)))


cookie = _Cookie()


def settings_of(request: Request) -> Settings:
    """The settings of this application."""
    return request.app.state.services.settings  # type: ignore[no-any-return]


def is_secure(request: Request) -> bool:
    """Whether browsers reach us by https: the proxy's word for it, or production, which has nothing else."""
    deployment = settings_of(request).deployment
    public = deployment.public_url or ""
    return deployment.production or public.startswith("https:") or request.url.scheme == "https"


def cookie_name(name: str, *, secure: bool) -> str:
    """The prefix makes browsers insist on https, on this host alone, and on the whole path."""
    return f"__Host-{name}" if secure else name


def set_cookies(request: Request, response: Response, login: auth.Login) -> None:
    """Give the browser its session, and the token that its scripts send back as a header."""
    secure = is_secure(request)
    age = max(0, int((login.expires_at - datetime.now(UTC)).total_seconds()))
    pairs = [(COOKIE, login.token, True)]
    if login.csrf_token is not None:
        pairs.append((CSRF_COOKIE, login.csrf_token, False))
    for name, value, hidden in pairs:
        response.set_cookie(
            cookie_name(name, secure=secure),
            value,
            max_age=age,
            path="/",
            secure=secure,
            httponly=hidden,
            samesite="lax",
        )


def clear_cookies(request: Request, response: Response) -> None:
    """Take them back, and one that this request would have been given."""
    request.state.cookie_headers = ()
    secure = is_secure(request)
    for name in (COOKIE, CSRF_COOKIE):
        response.delete_cookie(cookie_name(name, secure=secure), path="/", secure=secure, samesite="lax")


async def principal_of(request: Request, token: str | None, session_cookie: str | None) -> Principal:
    """The caller. A token in the header counts alone; a cookie that is old enough is replaced with the answer.

    Raises:
        Unauthenticated: there is no credential, or it is not valid.
        Forbidden: a cookie came without its CSRF token, or from another site.
    """
    services = request.app.state.services
    if token:
        if token.startswith(auth.PREFIX):
            return await services.keys.authenticate(token)  # type: ignore[no-any-return]
        return _by_header(
            (await auth.authenticate(services.sessions, services.settings.auth, token)).principal
        )
    if not session_cookie:
        raise Unauthenticated("Send a bearer token: POST /api/v1/auth/login gives one.")
    seen = await auth.authenticate(services.sessions, services.settings.auth, session_cookie)
    if seen.principal.means is not Means.COOKIE:
        raise Unauthenticated("This session is not a browser's. Send its token as a bearer token.")
    _refuse_forgery(request, seen.principal)
    if seen.rotate:
        fresh = await auth.rotate(services.sessions, services.settings.auth, session_cookie)
        if fresh is not None:
            # Sent with any answer, also an error's or a stream's: the old token is good for a moment only.
            carrier = Response()
            set_cookies(request, carrier, fresh)
            request.state.cookie_headers = [pair for pair in carrier.raw_headers if pair[0] == b"set-cookie"]
    return seen.principal


def refuse_other_sites(request: Request) -> None:
    """Raises Forbidden when a browser says that another site's page sent this."""
    if request.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site"):
        raise Forbidden("Another site's page cannot do this.")


def _by_header(principal: Principal) -> Principal:
    if principal.means is Means.COOKIE:
        # What a script could read is not enough: this token is for the cookie, which scripts cannot read.
        raise Unauthenticated("This session is a browser's; its token is good as a cookie only.")
    return principal


def _refuse_forgery(request: Request, caller: Principal) -> None:
    if request.method in SAFE:
        return
    refuse_other_sites(request)
    given = auth.hash_token(request.headers.get(CSRF_HEADER, ""))
    if not hmac.compare_digest(given, caller.csrf_hash or b""):
        raise Forbidden(
            f"A change by cookie needs the header {CSRF_HEADER}, with the value of the cookie {CSRF_COOKIE}."
        )
