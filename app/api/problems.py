"""Problem details (RFC 9457): the one form of every error, whoever raised it.

A problem never repeats the rejected input, which may be a secret, and tells nothing of the inside.
"""

from collections.abc import Mapping
from typing import Any, cast

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette._utils import get_route_path
from starlette.exceptions import HTTPException
from starlette.types import Scope

from app.api.methods import methods_of
from app.api.validation import field_errors
from app.db.outages import SUSPECTS, is_away
from app.errors import InvalidInput, TooManyRequests, Unauthenticated, Unavailable, UpbeatError

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = "5"
REQUEST_ID = "request_id"
UNEXPECTED = "The service failed unexpectedly. Its log has the cause, under this request_id."

log = structlog.get_logger(__name__)


class ProblemField(BaseModel):
    """One wrong field."""

    field: str = Field(description="Dotted path in the caller's own document or query.")
    message: str = Field(description="What is wrong, and what would be right.")


class Problem(BaseModel):
    """Problem details, RFC 9457."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "/problems/invalid_input",
                    "title": "The input is not valid",
                    "status": 422,
                    "detail": "task_path: No task has this name. Did you mean auth.cleanup_expired_sessions?",
                    "instance": "/api/v1/scheduled-tasks",
                    "request_id": "0199d0c2f2f07a51",
                    "errors": [
                        {
                            "field": "task_path",
                            "message": "No task has this name. Did you mean auth.cleanup_expired_sessions?",
                        }
                    ],
                }
            ]
        }
    )

    type: str = Field(description="Stable for each kind of error: `/problems/` and its code.")
    title: str
    status: int
    detail: str = Field(description="What happened, and what to do next.")
    instance: str = Field(description="The path that was asked for.")
    request_id: str | None = Field(None, description="Also in `X-Request-ID` and in the service's log.")
    errors: list[ProblemField] | None = Field(None, description="The wrong fields of an invalid input.")


class MalformedBody(UpbeatError):
    """The body cannot be read at all."""

    code = "malformed_body"
    status = 400
    title = "The body cannot be read"


class UnsupportedMediaType(UpbeatError):
    """The body is not of a kind that this route takes."""

    code = "unsupported_media_type"
    status = 415
    title = "The body is not JSON"


_HTTP: dict[int, tuple[str, str, str]] = {
    400: (
        "bad_request",
        "The request is not valid",
        "The body could not be read. Send it as its Content-Type says.",
    ),
    404: ("not_found", "Not found", "Nothing is served at this path; /docs lists what is."),
    405: (
        "method_not_allowed",
        "This method is not allowed here",
        "The Allow header names the methods that this path takes.",
    ),
    413: ("body_too_large", "The body is too large", ""),
}


def document(
    scope: Scope, *, code: str, status: int, title: str, detail: str, errors: InvalidInput | None = None
) -> dict[str, Any]:
    """The problem's JSON object."""
    problem = Problem(
        type=f"/problems/{code}",
        title=title,
        status=status,
        detail=detail,
        instance=scope["path"],
        request_id=scope.get("state", {}).get(REQUEST_ID),
        errors=None
        if errors is None
        else [ProblemField(field=error.field, message=error.message) for error in errors.errors],
    )
    return problem.model_dump(exclude_none=True)


def response(scope: Scope, error: UpbeatError, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The answer for an error of our own tree."""
    extra = dict(headers or {})
    if isinstance(error, Unauthenticated):
        extra["WWW-Authenticate"] = "Bearer"
    if isinstance(error, Unavailable):
        extra["Retry-After"] = RETRY_AFTER
    if isinstance(error, TooManyRequests):
        extra["Retry-After"] = str(error.retry_after)
    body = document(
        scope,
        code=error.code,
        status=error.status,
        title=error.title,
        # What a server error says is for the log, not for the caller.
        detail=_detail(error),
        errors=error if isinstance(error, InvalidInput) else None,
    )
    return JSONResponse(body, error.status, extra, MEDIA_TYPE)


def _detail(error: UpbeatError) -> str:
    if error.status == UpbeatError.status:
        return UNEXPECTED
    if isinstance(error, InvalidInput):
        return " ".join(f"{wrong.field}: {wrong.message.rstrip('.')}." for wrong in error.errors)
    return error.detail


def unexpected(scope: Scope) -> JSONResponse:
    """The answer for an exception that nobody handled."""
    return response(scope, UpbeatError("unexpected"))


async def _on_upbeat_error(request: Request, error: Exception) -> JSONResponse:
    error = cast(UpbeatError, error)
    if error.status >= UpbeatError.status:
        log.warning("problem", action="problem", code=error.code, detail=error.detail)
    return response(request.scope, error)


async def _on_validation_error(request: Request, error: Exception) -> JSONResponse:
    findings = cast(RequestValidationError, error).errors()
    return response(request.scope, InvalidInput(field_errors(findings, request.scope.get("endpoint"))))


def http_problem(scope: Scope, error: HTTPException) -> JSONResponse:
    """The answer for an error that the framework raised, or the body limit."""
    code, title, detail = _HTTP.get(
        error.status_code, ("http_error", "The request was refused", "The request was refused.")
    )
    body = document(scope, code=code, status=error.status_code, title=title, detail=detail or error.detail)
    return JSONResponse(body, error.status_code, error.headers, MEDIA_TYPE)


async def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    answer = http_problem(request.scope, cast(HTTPException, error))
    if answer.status_code == 405:
        # The framework names the methods of the first route of this path only.
        served = methods_of(request.app.routes, get_route_path(request.scope))
        answer.headers["Allow"] = ", ".join(sorted(served))
    return answer


async def _on_outage(request: Request, error: Exception) -> JSONResponse:
    if not is_away(error):
        raise error
    log.warning("database unavailable", action="outage", error=type(error).__name__)
    return response(
        request.scope,
        Unavailable("The database cannot be reached now. Nothing is known to be stored; try again."),
    )


def install(app: FastAPI) -> None:
    """Give every error of this application its form."""
    app.add_exception_handler(UpbeatError, _on_upbeat_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    for kind in SUSPECTS:
        app.add_exception_handler(kind, _on_outage)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI declaration of a route's problems."""
    return {
        status: {
            "description": _DESCRIPTIONS[status],
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in sorted(statuses)
    }


_DESCRIPTIONS = {
    400: "The body cannot be read.",
    401: "No valid credential.",
    403: "The role, or the scopes of the API key, do not allow this; or a cookie came without its CSRF token.",
    404: "It does not exist.",
    409: "The current state does not allow this.",
    413: "The body is too large.",
    412: "It was changed since the version that `If-Match` names. Nothing was changed now.",
    415: "The body is not declared as JSON.",
    422: "The input is wrong; `errors` names the fields. Nothing was changed.",
    428: "`If-Match` is missing.",
    429: "Too many requests, or failed logins; `Retry-After` says how long to wait.",
    503: "What this needs cannot be reached now, or took too long; `Retry-After` says when to try again.",
}

READS = problems(401, 403, 422, 429, 503)
READS_ONE = problems(401, 403, 404, 422, 429, 503)
WRITES = problems(400, 401, 403, 409, 413, 415, 422, 429, 503)
WRITES_ONE = problems(400, 401, 403, 404, 409, 413, 415, 422, 429, 503)
ACTS_ON_ONE = problems(401, 403, 404, 409, 422, 429, 503)
EDITS_ONE = WRITES_ONE | problems(412, 428)
REMOVES_ONE = ACTS_ON_ONE | problems(412, 428)
