"""What handlers are given: the services, the caller, and the rule who may do what.

Everything is closed by default: `app.main` mounts every resource behind `authorize`, which asks the
route's own guard (`app.api.guards`), and lets nobody through where there is none.
"""

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app import logs
from app.api.admissions import Admissions
from app.api.companion import arm
from app.api.credentials import bearer, cookie, principal_of
from app.api.feed import Feed
from app.api.following import Following
from app.api.guards import guard_of_request, resource_of
from app.api.probe import Probe
from app.api.ratelimit import Limiter
from app.api.scrapes import Scrapes
from app.errors import Forbidden, Unauthenticated
from app.modules.auth.service import Principal, Refusals, RememberedKeys
from app.outbound import OutboundPolicy
from app.scheduling.catalogue import Catalogue
from app.scheduling.facade import Scheduler
from app.scheduling.observing import Observer
from app.scheduling.statistics import Statistics
from app.sealing import Sealer
from app.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What `app.main` opens for the life of the process."""

    settings: Settings
    sessions: async_sessionmaker[AsyncSession]
    catalogue: Catalogue
    scheduler: Scheduler
    probe: Probe
    limiter: Limiter
    observer: Observer
    statistics: Statistics
    following: Following
    feed: Feed
    admissions: Admissions
    scrapes: Scrapes
    keys: RememberedKeys
    refusals: Refusals
    sealer: Sealer
    outbound: OutboundPolicy


def services_of(request: Request) -> Services:
    """The services of this application."""
    return cast(Services, request.app.state.services)


# What follows are coroutines, since FastAPI runs plain functions in threads; and they have no dependencies of their
# own, since it solves those of each again, however often it has done so in this request.


async def services(request: Request) -> Services:
    """As `services_of`, for handlers."""
    return services_of(request)


async def scheduler(request: Request) -> Scheduler:
    """The embedded facade."""
    return services_of(request).scheduler


async def catalogue(request: Request) -> Catalogue:
    """The tasks of this code."""
    return services_of(request).catalogue


async def caller(request: Request) -> Principal:
    """Who calls: by bearer token, API key or a browser's cookie.

    Raises:
        Unauthenticated: there is no credential, or it is not valid.
        Forbidden: a cookie came without its CSRF token, or from another site.
        TooManyRequests: too many requests without a valid credential came from this address.
    """
    known: Principal | None = getattr(request.state, "caller", None)
    if known is None:
        limiter = services_of(request).limiter
        try:
            token = await bearer(request)
            known = await principal_of(request, token, None if token else await cookie(request))
        except (Unauthenticated, Forbidden):
            await limiter.refused(request)
            raise
        request.state.caller = known
        logs.also(user=known.username, **_named(request))
    return known


def _named(request: Request) -> dict[str, str]:
    """The run or the schedule that the path is about."""
    return {
        name: str(request.path_params[name])
        for name in ("run_id", "schedule_id")
        if name in request.path_params
    }


async def authorize(request: Request) -> None:
    """Let those through whom the route's guard lets through; the rest of the request is theirs. Asked once a request.

    Raises:
        Forbidden: the caller may not call this route, or it declares no guard.
        TooManyRequests: the caller is too fast.
    """
    user = await caller(request)
    if getattr(request.state, "authorized", False):
        return
    guard = guard_of_request(request)
    await services_of(request).limiter.count(request, user)
    guard.check(user, resource_of(request))
    arm(request, guard, user)
    request.state.authorized = True


SchedulerOf = Annotated[Scheduler, Depends(scheduler)]
CatalogueOf = Annotated[Catalogue, Depends(catalogue)]
ServicesOf = Annotated[Services, Depends(services)]
Caller = Annotated[Principal, Depends(caller)]
Token = Annotated[str | None, Depends(bearer)]
