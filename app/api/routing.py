"""Routers of resources: strict JSON bodies, and callers are checked before their bodies."""

from fastapi import APIRouter

from app.api.bodies import StrictRoute
from app.api.dependencies import authorize_request


class ResourceRoute(StrictRoute):
    """A route behind `app.api.dependencies.authorize`."""

    authorize = staticmethod(authorize_request)


def resource_router(prefix: str, tag: str) -> APIRouter:
    """A router for one resource."""
    return APIRouter(prefix=prefix, tags=[tag], route_class=ResourceRoute)
