"""Login, logout, the own password, and who is logged in."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Body, Depends, Form, Request, Response, status
from pydantic import BaseModel, ConfigDict, Field

from app.api.credentials import clear_cookies, refuse_other_sites, set_cookies
from app.api.dependencies import Caller, Services, ServicesOf, Token
from app.api.examples import PASSWORD_EXAMPLES
from app.api.guards import MYSELF, OPEN, WHOEVER, guarded
from app.api.problems import REQUEST_ID, problems
from app.api.routing import resource_router
from app.errors import Conflict
from app.modules.auth import service
from app.modules.auth.service import Means, Place, Role

public = APIRouter(prefix="/auth", tags=["Login"])
personal = resource_router("/auth", "Login")

MINE = problems(401, 403, 429, 503)


class LoginForm(BaseModel):
    """OAuth2's password form. What else it may have is not looked at: there are no clients and no scopes here."""

    username: str
    password: str = Field(json_schema_extra={"format": "password"})


class AccessToken(BaseModel):
    """A new session's token; it is shown only now."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - a kind of token, not one


class BrowserSession(BaseModel):
    """A browser's session; its token is in a cookie that scripts cannot read."""

    csrf_token: str = Field(description="Send it as `X-CSRF-Token` with each change; also in a cookie.")
    expires_at: datetime


class CurrentUser(BaseModel):
    """Who is logged in."""

    id: UUID
    username: str
    role: Role
    means: Means = Field(description="How this request proved it.")
    created_at: datetime


class LoggedOut(BaseModel):
    """What logging out everywhere did."""

    sessions_ended: int


class PasswordChange(BaseModel):
    """A new password of one's own."""

    model_config = ConfigDict(extra="forbid")

    current_password: str = Field(max_length=1024)
    new_password: str = Field(description="8 to 1024 characters.")


def place_of(request: Request) -> Place:
    """Where a login comes from."""
    return Place(
        address=request.client.host if request.client else "",
        user_agent=request.headers.get("User-Agent"),
        request_id=request.scope["state"].get(REQUEST_ID),
    )


PlaceOf = Annotated[Place, Depends(place_of)]


@public.post("/login", responses=problems(400, 401, 413, 422, 429, 503), summary="Log in")
@guarded(OPEN)
async def login(form: Annotated[LoginForm, Form()], services: ServicesOf, place: PlaceOf) -> AccessToken:
    """Takes the OAuth2 password form; send the token as `Authorization: Bearer …` from then on."""
    session = await _begin(form, services, place)
    return AccessToken(access_token=session.token)


@public.post(
    "/browser", responses=problems(400, 401, 403, 413, 422, 429, 503), summary="Log in with a cookie"
)
@guarded(OPEN)
async def login_browser(
    form: Annotated[LoginForm, Form()],
    services: ServicesOf,
    place: PlaceOf,
    request: Request,
    response: Response,
) -> BrowserSession:
    """For pages in a browser: the session is a cookie, and each change needs `X-CSRF-Token` too."""
    refuse_other_sites(request)
    session = await _begin(form, services, place, browser=True)
    set_cookies(request, response, session)
    return BrowserSession(csrf_token=session.csrf_token or "", expires_at=session.expires_at)


async def _begin(
    form: LoginForm, services: Services, place: Place, *, browser: bool = False
) -> service.Login:
    return await service.login(
        services.sessions,
        services.settings.auth,
        form.username,
        form.password,
        place,
        refusals=services.refusals,
        browser=browser,
    )


@personal.post("/refresh", responses=MINE | problems(409), summary="Replace the token")
@guarded(MYSELF)
async def refresh_token(user: Caller, token: Token, services: ServicesOf) -> AccessToken:
    """A new token for this session; the old one is good for a minute more. Browsers' cookies replace themselves."""
    fresh = None
    if token and user.means is Means.SESSION:
        fresh = await service.rotate(services.sessions, services.settings.auth, token)
    if fresh is None:
        raise Conflict(
            "Only the newest bearer token of a session can be replaced. Send that one, or log in again."
        )
    return AccessToken(access_token=fresh.token)


@personal.post("/logout", status_code=status.HTTP_204_NO_CONTENT, responses=MINE, summary="Log out")
@guarded(MYSELF)
async def logout(user: Caller, services: ServicesOf, request: Request, response: Response) -> None:
    """End this session; its token is worth nothing from now on."""
    await service.logout(services.sessions, user.credential_id)
    clear_cookies(request, response)


@personal.post("/logout-everywhere", responses=MINE, summary="Log out everywhere")
@guarded(MYSELF)
async def logout_everywhere(
    user: Caller, services: ServicesOf, request: Request, response: Response
) -> LoggedOut:
    """End all your sessions, this one too. API keys stay; revoke them one by one."""
    ended = await service.logout_everywhere(services.sessions, user.id)
    clear_cookies(request, response)
    return LoggedOut(sessions_ended=ended)


@personal.put(
    "/password",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=MINE | problems(400, 409, 413, 415, 422),
    summary="Change your password",
)
@guarded(MYSELF)
async def change_own_password(
    body: Annotated[PasswordChange, Body(openapi_examples=PASSWORD_EXAMPLES)],
    user: Caller,
    services: ServicesOf,
    place: PlaceOf,
) -> None:
    """Your other sessions end. Wrong guesses of the current password count as failed logins."""
    await service.change_password(
        services.sessions,
        services.settings.auth,
        user,
        body.current_password,
        body.new_password,
        place=place,
        refusals=services.refusals,
    )


@personal.get("/me", responses=MINE, summary="Who is logged in")
@guarded(WHOEVER)
async def get_current_user(user: Caller) -> CurrentUser:
    """The user whose credential this is."""
    return CurrentUser.model_validate(user, from_attributes=True)
