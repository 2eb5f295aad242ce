"""The OpenAPI document. `python -m app.api.openapi > openapi.json` writes the committed one."""

import json
import sys
from collections.abc import Iterator
from copy import deepcopy
from typing import Any, Final, get_args

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic import BaseModel

from app.api import streams
from app.api.credentials import bearer, cookie
from app.api.guards import guard_of
from app.api.problems import Problem, ProblemField
from app.modules.webhooks.examples import RECEIVED

VERSION = "1.0.0"
CLOSED = "/api/"
HEAD = ("tags", "summary", "description", "operationId", "deprecated")
# By what names the document knows the ways to prove who calls.
BY_LOGIN: Final = "Password"
BY_TOKEN: Final = "Token"  # noqa: S105 - a name, not a secret
DESCRIPTION = """The schedule-and-run service for Celery: nothing lost, nothing doubled, every tick accounted for.

Press **Authorize** and log in with username and password to try the calls. Errors are problem
details (RFC 9457) with a stable `type`; lists are pages with an opaque `next_cursor`."""

TAGS = [
    {"name": "Scheduled tasks", "description": "What runs when, under which policies."},
    {"name": "Runs", "description": "What was executed, is being executed, or was decided not to be."},
    {"name": "Tasks", "description": "What can be executed, and running it on demand."},
    {"name": "Queues", "description": "What waits for workers; pause, resume and purge."},
    {"name": "Agents", "description": "HTTP endpoints that do work on demand, within a daily budget."},
    {"name": "Alerts", "description": "What is wrong, from when it is noticed until it is over."},
    {"name": "Webhooks", "description": RECEIVED},
    {"name": "Calendars", "description": "Dates on which schedules skip their ticks."},
    {"name": "Statistics", "description": "Throughput, failures and lateness."},
    {"name": "Workers and beats", "description": "Who is there, and its last sign of life."},
    {
        "name": "Login",
        "description": "Sessions of users. Viewers read, operators change, admins manage users.",
    },
    {"name": "API keys", "description": "Credentials for programs, narrowed by scopes."},
    {"name": "Users", "description": "People who may log in."},
    {"name": "Audit", "description": "Who changed what, when and how."},
    {"name": "Health", "description": "For load balancers, supervisors and Prometheus."},
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
    document["components"]["securitySchemes"] = {
        scheme.scheme_name: scheme.model.model_dump(mode="json", by_alias=True, exclude_none=True)
        for scheme in (bearer, cookie)
    }
    _declare_access(app, document)
    _declare_tokens(document)
    _declare_preconditions(document)
    _restore_nulls(app, document)
    _tidy(document)
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
                closed = guard.role is not None and (context.path or "").startswith(CLOSED)
                schemes: list[dict[str, list[str]]] = [{each.scheme_name: []} for each in (bearer, cookie)]
                security = {"security": schemes} if closed else {}
                told = {name: operation.pop(name) for name in list(operation) if name in HEAD}
                rest = {name: value for name, value in operation.items() if name != "security"}
                operation.clear()
                operation |= told | security | rest | {"x-access": guard.documented}


def _declare_tokens(document: dict[str, Any]) -> None:
    """A token or an API key that one has may be sent as it is; whoever may call by login may call so."""
    document["components"]["securitySchemes"][BY_TOKEN] = {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key, or the token of a session.",
    }
    for operation in _operations(document):
        if operation["x-access"]["role"] != "anyone":
            named = [name for each in operation.get("security", [{BY_LOGIN: []}]) for name in each]
            operation["security"] = [{name: []} for name in (*dict.fromkeys(named), BY_TOKEN)]


def _declare_preconditions(document: dict[str, Any]) -> None:
    """What answers 428 without a header needs it; the framework would call its absence a 422."""
    for operation in _operations(document):
        if "428" in operation["responses"]:
            for parameter in operation["parameters"]:
                if parameter["name"] == "If-Match":
                    parameter["required"] = True


def _restore_nulls(app: FastAPI, document: dict[str, Any]) -> None:
    """Give examples back as they were written: the framework leaves every null out of the document, theirs too."""
    schemas = document["components"]["schemas"]
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        if not isinstance(route, APIRoute):
            continue
        shown = getattr(route.body_field and route.body_field.field_info, "openapi_examples", None)
        for method in context.methods or ():
            operation = document["paths"].get(context.path, {}).get(method.lower(), {})
            if shown and operation:
                operation["requestBody"]["content"]["application/json"]["examples"] = deepcopy(shown)
        for model in _models(route.response_model):
            extra = model.model_config.get("json_schema_extra")
            if isinstance(extra, dict) and "examples" in extra:
                schemas[model.__name__]["examples"] = deepcopy(extra["examples"])


def _tidy(document: dict[str, Any]) -> None:
    """Answers stand in the order of their numbers. A parameter that may be left out is not null besides: a URL cannot
    say so, and Swagger UI would offer none of its choices."""
    for operation in _operations(document):
        operation["responses"] = dict(sorted(operation["responses"].items()))
        for parameter in operation.get("parameters", ()):
            schema = parameter["schema"]
            choices = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
            if len(choices) == 1:
                rest = {name: value for name, value in schema.items() if name != "anyOf"}
                parameter["schema"] = choices[0] | rest


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models of an answer: its own, and those of its fields."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from _models(field.annotation)
    for part in get_args(annotation):
        yield from _models(part)


def _operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for methods in document["paths"].values():
        yield from methods.values()


def render(document: dict[str, Any]) -> str:
    """The text of the committed file."""
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


if __name__ == "__main__":
    from app.main import create_app

    sys.stdout.write(render(create_app().openapi()))
