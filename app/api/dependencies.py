"""What handlers are given: the services, the caller, and the rule who may do what.

Everything is closed by default: `app.main` mounts every resource behind `authorize`, which asks
for a viewer to read and for an operator to change.
"""

from dataclasses import dataclass
from typing import Annotated, cast

import structlog
from fastapi import Depends, Request
from fastapi.security import OAuth2PasswordBearer
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.api.following import Following
from app.api.probe import Probe
from app.api.scrapes import Scrapes
from app.errors import Forbidden, Unauthenticated
from app.modules.auth import service as auth
from app.modules.auth.models import User
from app.modules.auth.service import Role
from app.outbound import OutboundPolicy
from app.scheduling.catalogue import Catalogue
from app.scheduling.facade import Scheduler
from app.scheduling.observing import Observer
from app.sealing import Sealer
from app.settings import Settings

READING = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What `app.main` opens for the life of the process."""

    settings: Settings
    sessions: async_sessionmaker[AsyncSession]
    catalogue: Catalogue
    scheduler: Scheduler
    probe: Probe
    observer: Observer
    following: Following
    scrapes: Scrapes
    sealer: Sealer
    outbound: OutboundPolicy


def services(request: Request) -> Services:
    """The services of this application."""
    return cast(Services, request.app.state.services)


def scheduler(request: Request) -> Scheduler:
    """The embedded facade."""
    return services(request).scheduler


def catalogue(request: Request) -> Catalogue:
    """The tasks of this code."""
    return services(request).catalogue


bearer = OAuth2PasswordBearer(
    tokenUrl="/api/v1/auth/login",
    scheme_name="Password",
    description="Log in with username and password; the client fields stay empty.",
    auto_error=False,
)


async def caller(request: Request, token: Annotated[str | None, Depends(bearer)]) -> User:
    """The user whose bearer token this request carries.

    Raises:
        Unauthenticated: there is none, or it is not valid.
    """
    if not token:
        raise Unauthenticated("Send a bearer token: POST /api/v1/auth/login gives one.")
    user = await auth.authenticate(services(request).sessions, token)
    structlog.contextvars.bind_contextvars(user=user.username)
    return user


async def authorize(request: Request, user: Annotated[User, Depends(caller)]) -> None:
    """Let viewers read and operators change.

    Raises:
        Forbidden: the caller's role is not enough for this method.
    """
    needed = Role.VIEWER if request.method in READING else Role.OPERATOR
    if not Role(user.role).includes(needed):
        raise Forbidden(f"Your role, {user.role}, may only read; this needs the role {needed}.")


async def authorize_request(request: Request) -> None:
    """`authorize`, outside of the framework's dependency resolution."""
    await authorize(request, await caller(request, await bearer(request)))


SchedulerOf = Annotated[Scheduler, Depends(scheduler)]
CatalogueOf = Annotated[Catalogue, Depends(catalogue)]
ServicesOf = Annotated[Services, Depends(services)]
Caller = Annotated[User, Depends(caller)]
Token = Annotated[str, Depends(bearer)]
