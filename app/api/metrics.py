"""`/metrics`: closed as everything is, but for the token that a scraper is given."""

import secrets

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from app.api.credentials import bearer
from app.api.dependencies import ServicesOf, authorize
from app.api.guards import READ, guarded
from app.api.problems import problems
from app.settings import MetricsSettings

router = APIRouter(tags=["Health"])


async def authorize_scrape(request: Request, settings: MetricsSettings) -> None:
    """Open for the metrics' own token, if one is set, and for whoever is logged in.

    Raises:
        Unauthenticated: neither.
        Forbidden: an API key whose scopes do not allow it.
    """
    given = await bearer(request)
    own = settings.token
    if given and own is not None and secrets.compare_digest(given.encode(), own.get_secret_value().encode()):
        return
    await authorize(request)


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=Response,
    responses={
        **problems(401, 403, 429, 503),
        200: {"description": "Prometheus's text format.", "content": {"text/plain": {}}},
    },
)
@guarded(READ)
async def get_metrics(request: Request, services: ServicesOf) -> Response:
    """What waits, who is there, what the broker holds. Send `UPBEAT_METRICS_TOKEN`, or a login's token."""
    await authorize_scrape(request, services.settings.metrics)
    return Response(await services.scrapes.text(), media_type=CONTENT_TYPE_LATEST)
