"""Exceptions as the run row keeps them, and back again as Celery's callers expect them."""

import builtins
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from celery import current_app
from celery.exceptions import TaskRevokedError

from app.scheduling.runs import RunState
from app.worker import codec

MESSAGE_LENGTH = 10_000
TRACEBACK_LENGTH = 50_000

_REVOKED = frozenset({RunState.CANCELLED, RunState.EXPIRED, RunState.SKIPPED})
_CELERY_ERRORS: Mapping[str, str] = {
    RunState.LOST: "WorkerLostError",
    RunState.TIMED_OUT: "TimeLimitExceeded",
}


def error_of(error: BaseException, traceback: object = None) -> dict[str, Any]:
    """An exception as a document: type, message, traceback, and args where the message is not all of them."""
    kind = type(error)
    well_known = kind.__module__.startswith(("builtins", "celery.", "billiard.", "app.worker."))
    name = kind.__qualname__ if well_known else f"{kind.__module__}.{kind.__qualname__}"
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - a user's own __str__
        message = "(its message could not be read)"
    document: dict[str, Any] = {
        "type": name,
        "message": _clean(message)[:MESSAGE_LENGTH],
        "traceback": _clean(str(traceback))[-TRACEBACK_LENGTH:] if traceback else None,
    }
    # What is not a text may be anything, and not even be comparable.
    only = error.args[0] if len(error.args) == 1 else None
    if not (isinstance(only, str) and only == message):
        with suppress(codec.NotStorable):
            document["args"] = codec.to_stored(list(error.args), largest=MESSAGE_LENGTH)
    return document


def revoked(reason: str) -> dict[str, Any]:
    """The error of those that waited for a run that did not execute."""
    return {"type": "TaskRevokedError", "message": reason, "traceback": None}


def exception_of(state: str, error: Mapping[str, Any] | None, reason: str | None) -> BaseException:
    """The exception that `get` raises for a run that ended in ``state``, not succeeded."""
    exception: BaseException
    if state in _REVOKED:
        exception = TaskRevokedError(reason or state)
        return exception
    document = error or {}
    named = _CELERY_ERRORS.get(state) or str(document.get("type") or "Exception")
    module, _, name = named.rpartition(".")
    if not module:
        module = "builtins" if hasattr(builtins, name) else "celery.exceptions"
    arguments = document.get("args") or [document.get("message") or state]
    exception = current_app.backend.exception_to_python(
        {"exc_type": name, "exc_module": module, "exc_message": codec.from_stored(arguments)}
    )
    return exception


def _clean(text: str) -> str:
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()
