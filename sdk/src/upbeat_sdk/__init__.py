"""The client of Upbeat, the schedule-and-run service for Celery.

    with Upbeat("https://upbeat.example.com", token="…") as client:
        run = client.tasks.run("reports.monthly", kwargs={"month": "2026-03"})
        print(run.result(timeout=60))

`AsyncUpbeat` has the same resources and methods, awaited. `upbeat_sdk.models` holds what answers are
made of, `upbeat_sdk.bodies` the typed dictionaries of what can be sent, `upbeat_sdk.testing` a
service in memory. Everything else is private.
"""

from upbeat_sdk._client import AsyncUpbeat, Upbeat
from upbeat_sdk._errors import (
    BadRequest,
    ConfigurationError,
    Conflict,
    ConnectionFailed,
    Forbidden,
    InvalidInput,
    NotFound,
    PreconditionFailed,
    ProblemError,
    ResultTimeout,
    RunCancelled,
    RunFailed,
    RunLost,
    RunNotStarted,
    RunNotSucceeded,
    RunTimedOut,
    ServerError,
    TimedOut,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
    UnexpectedAnswer,
    UpbeatError,
    WebhookRefused,
)
from upbeat_sdk._events import AsyncEventStream, Event, EventStream
from upbeat_sdk._generated import bodies, models
from upbeat_sdk._generated.models import LogLine
from upbeat_sdk._pages import AsyncPage, AsyncPages, Page
from upbeat_sdk._runs import AsyncRun, Run
from upbeat_sdk._version import __version__
from upbeat_sdk._webhooks import WebhookEvent, sign_webhook, verify_webhook

__all__ = [
    "AsyncEventStream",
    "AsyncPage",
    "AsyncPages",
    "AsyncRun",
    "AsyncUpbeat",
    "BadRequest",
    "ConfigurationError",
    "Conflict",
    "ConnectionFailed",
    "Event",
    "EventStream",
    "Forbidden",
    "InvalidInput",
    "LogLine",
    "NotFound",
    "Page",
    "PreconditionFailed",
    "ProblemError",
    "ResultTimeout",
    "Run",
    "RunCancelled",
    "RunFailed",
    "RunLost",
    "RunNotStarted",
    "RunNotSucceeded",
    "RunTimedOut",
    "ServerError",
    "TimedOut",
    "TooManyRequests",
    "Unauthenticated",
    "Unavailable",
    "UnexpectedAnswer",
    "Upbeat",
    "UpbeatError",
    "WebhookEvent",
    "WebhookRefused",
    "__version__",
    "bodies",
    "models",
    "sign_webhook",
    "verify_webhook",
]
