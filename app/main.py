"""The HTTP service: wiring, no logic. `uvicorn app.main:app` starts it."""

import asyncio
import gc
import importlib
import pkgutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Final

from fastapi import APIRouter, Depends, FastAPI

from app import modules
from app.api import (
    api_keys,
    audit,
    auth,
    calendars,
    docs,
    drift,
    headers,
    health,
    logs,
    metrics,
    middleware,
    openapi,
    previews,
    problems,
    queues,
    routing,
    run_actions,
    run_logs,
    runs,
    schedule_actions,
    schedule_bulk,
    schedule_history,
    schedules,
    sessions,
    statistics,
    streams,
    tasks,
    tracing,
    upkeep,
    users,
    worker_actions,
    workers,
)
from app.api.admissions import Admissions
from app.api.dependencies import Services, authorize
from app.api.feed import Feed
from app.api.following import Following, announced_end
from app.api.probe import Probe
from app.api.ratelimit import Limiter
from app.api.scrapes import Scrapes
from app.db import async_engine, async_sessions
from app.modules.auth.service import Refusals, RememberedKeys
from app.modules.webhooks.courier import Courier
from app.outbound import OutboundPolicy
from app.scheduling.facade import Scheduler
from app.scheduling.observing import Observer
from app.scheduling.statistics import Statistics
from app.sealing import Sealer
from app.settings import Settings, get_settings
from app.worker import app as celery_app
from app.worker import catalogue
from app.worker.beat import EmbeddedBeat
from app.worker.publisher import CeleryPublisher
from app.worker.tracing import flush as flush_traces

GARBAGE: Final = 20_000

# Event streams come before the paths that have an id in the same place.
RESOURCES: Final = (
    auth.personal,
    sessions.router,
    api_keys.router,
    users.router,
    audit.router,
    schedule_bulk.router,
    streams.runs,
    streams.schedules,
    streams.queues,
    schedules.router,
    schedule_actions.router,
    schedule_history.router,
    drift.router,
    previews.router,
    runs.router,
    run_logs.router,
    run_actions.router,
    tasks.router,
    queues.router,
    statistics.router,
    calendars.router,
    workers.workers,
    worker_actions.router,
    workers.beats,
)


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application; its connections open when it is served, and close with it."""
    settings = settings or get_settings()
    settings.require_production()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        logs.configure(settings.log)
        sealer = Sealer(settings.secret.each())
        outbound = OutboundPolicy.parse(settings.outbound.entries())
        engine = async_engine(settings.database)
        units, publisher, known = async_sessions(engine), CeleryPublisher(celery_app), catalogue()
        scheduler = Scheduler(units, publisher, known, settings)
        limiter = Limiter(settings.rate, settings.broker.url())
        probe, observer = Probe(scheduler, publisher), Observer(units)
        following, feed, refusals = Following(settings.database, observer), Feed(units), Refusals(units)
        app.state.services = Services(
            settings=settings,
            sessions=units,
            catalogue=known,
            scheduler=scheduler,
            probe=probe,
            limiter=limiter,
            observer=observer,
            statistics=Statistics(units),
            following=following,
            feed=feed,
            admissions=Admissions(units, settings.auth),
            scrapes=Scrapes(observer, publisher),
            keys=RememberedKeys(units, settings.auth.key_age),
            refusals=refusals,
            sealer=sealer,
            outbound=outbound,
        )
        beat = EmbeddedBeat(celery_app) if settings.api.embedded_beat else None
        if beat is not None:
            beat.start()
        _spare_the_collector()
        try:
            with announced_end(following.end, feed.end):
                courier = Courier(units, settings, sealer=sealer, outbound=outbound)
                async with upkeep.alongside(upkeep.keep_clear(units), courier.run(), refusals.keep()):
                    yield
        finally:
            for streams_of in (feed, following, app.state.services.admissions):
                await streams_of.close()
            if beat is not None:
                await asyncio.to_thread(beat.stop)
            await probe.close()
            await limiter.close()
            publisher.close()
            await engine.dispose()
            await asyncio.to_thread(flush_traces)

    app = FastAPI(
        title="Upbeat",
        version=openapi.VERSION,
        description=openapi.DESCRIPTION,
        openapi_tags=openapi.TAGS,
        openapi_url="/openapi.json" if settings.api.docs_enabled else None,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
        # `tracing.install` is told by the OTEL_ variables; asked for each request, the framework's own would double it.
        telemetry={"tracing": False, "metrics": False, "logs": False},
        generate_unique_id_function=lambda route: route.name,
    )
    app.include_router(health.router)
    app.include_router(metrics.router)
    app.include_router(auth.public, prefix="/api/v1")
    for router in (*RESOURCES, *module_routers()):
        app.include_router(router, prefix="/api/v1", dependencies=[Depends(authorize)])
    routing.serve_directly(app)
    if settings.api.docs_enabled:
        docs.install(app)
    openapi.install(app)
    problems.install(app)
    app.add_middleware(middleware.LiteralPaths, routes=app.routes)
    app.add_middleware(middleware.Deadline, seconds=settings.database.statement_timeout)
    app.add_middleware(middleware.BodyLimit, max_bytes=settings.api.max_body_bytes)
    app.add_middleware(middleware.RequestContext)
    app.add_middleware(headers.SecurityHeaders, https=settings.deployment.production)
    tracing.install(app)
    return app


def _spare_the_collector() -> None:
    """What the start made stays for good, and what a request makes goes by itself: neither needs to be looked through
    again and again, which takes a fiftieth of a busy process's time."""
    gc.freeze()
    gc.set_threshold(GARBAGE)


def module_routers() -> Iterator[APIRouter]:
    """The `router` of each business module that has a `routes.py`."""
    for module in pkgutil.iter_modules(modules.__path__, f"{modules.__name__}."):
        name = f"{module.name}.routes"
        if module.ispkg and importlib.util.find_spec(name) is not None:
            yield importlib.import_module(name).router


app = create_app()
