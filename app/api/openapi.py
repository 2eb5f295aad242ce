"""The OpenAPI document. `python -m app.api.openapi > openapi.json` writes the committed one."""

import json
import sys
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import iter_route_contexts

from app.api import streams
from app.api.guards import guard_of
from app.api.problems import Problem, ProblemField
from app.modules.webhooks.examples import RECEIVED

VERSION = "1.0.0"
DESCRIPTION = """The schedule-and-run service for Celery: nothing lost, nothing doubled, every tick accounted for.

Press **Authorize** and log in with username and password to try the calls. Errors are problem
details (RFC 9457) with a stable `type`; lists are pages with an opaque `next_cursor`."""

TAGS = [
    {"name": "Scheduled tasks", "description": "What runs when, under which policies."},
    {"name": "Runs", "description": "What was executed, is being executed, or was decided not to be."},
    {"name": "Tasks", "description": "What can be executed, and running it on demand."},
    {"name": "Agents", "description": "HTTP endpoints that do work on demand, within a daily budget."},
    {"name": "Alerts", "description": "What is wrong, from when it is noticed until it is over."},
    {"name": "Webhooks", "description": RECEIVED},
    {"name": "Calendars", "description": "Dates on which schedules skip their ticks."},
    {"name": "Queues", "description": "What waits, and what is being executed, by queue."},
    {"name": "Workers and beats", "description": "Who is there, and its last sign of life."},
    {
        "name": "Login",
        "description": "Sessions of users. Viewers read, operators change, admins manage users.",
    },
    {"name": "API keys", "description": "Credentials for programs, narrowed by scopes."},
    {"name": "Users", "description": "People who may log in."},
    {"name": "Audit", "description": "Who changed what, when and how."},
    {"name": "Health", "description": "For load balancers and supervisors; open."},
]


def install(app: FastAPI) -> None:
    """Replace the application's `openapi()` by one that knows problem details."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
        tags=app.openapi_tags,
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for model in (Problem, ProblemField, *streams.MODELS):
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(schema.pop("$defs", {}))
        schemas[model.__name__] = schema
    _declare_access(app, document)
    document["components"]["schemas"] = dict(sorted(schemas.items()))
    return document


def _declare_access(app: FastAPI, document: dict[str, Any]) -> None:
    """Say with each operation who may call it."""
    for context in iter_route_contexts(app.routes):
        endpoint = getattr(context, "endpoint", None)
        guard = guard_of(endpoint)
        for method in context.methods or ():
            operation = document["paths"].get(context.path, {}).get(method.lower())
            if operation is not None and guard is not None:
                operation["x-access"] = guard.documented


def render(document: dict[str, Any]) -> str:
    """The text of the committed file."""
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


if __name__ == "__main__":
    from app.main import create_app

    sys.stdout.write(render(create_app().openapi()))
