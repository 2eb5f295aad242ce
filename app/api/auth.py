"""Login, logout, and who is logged in."""

from datetime import datetime, timedelta
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Response, status
from fastapi.security import OAuth2PasswordRequestForm
from pydantic import BaseModel

from app.api.dependencies import Caller, ServicesOf, Token
from app.api.problems import problems
from app.modules.auth import service

public = APIRouter(prefix="/auth", tags=["Login"])
personal = APIRouter(prefix="/auth", tags=["Login"])


class AccessToken(BaseModel):
    """A new session's token; it is shown only now."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - a kind of token, not one


class CurrentUser(BaseModel):
    """Who is logged in."""

    id: UUID
    username: str
    role: service.Role
    created_at: datetime


@public.post("/login", responses=problems(401, 413, 422, 503), summary="Log in")
async def login(
    form: Annotated[OAuth2PasswordRequestForm, Depends()], services: ServicesOf, response: Response
) -> AccessToken:
    """Takes the OAuth2 password form; send the token as `Authorization: Bearer …` from then on."""
    session = await service.login(
        services.sessions,
        form.username,
        form.password,
        lifetime=timedelta(seconds=services.settings.auth.session_lifetime),
    )
    response.headers["Cache-Control"] = "no-store"
    return AccessToken(access_token=session.token)


@personal.post(
    "/logout", status_code=status.HTTP_204_NO_CONTENT, responses=problems(401, 503), summary="Log out"
)
async def logout(user: Caller, token: Token, services: ServicesOf) -> None:
    """End this session; its token is worth nothing from now on."""
    await service.logout(services.sessions, token)


@personal.get("/me", responses=problems(401, 503), summary="Who is logged in")
async def get_current_user(user: Caller) -> CurrentUser:
    """The user of this token."""
    return CurrentUser.model_validate(user, from_attributes=True)
