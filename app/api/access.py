"""The access log: a line for each request, of the form that all lines have, at a fifth of the cost.

structlog's chain and renderer take longer than the rest of a quick request; nothing here needs them.
"""

import json
import logging
import re
import time
from collections.abc import Callable
from typing import Any, Final

import structlog
from starlette.types import Scope

LOGGER: Final = "app.access"
_PLAIN = re.compile(r"[\x21\x23-\x26\x28-\x3c\x3e-\x5b\x5d-\x7e]+")
_QUIET = frozenset({"/livez", "/readyz"})
_logger = logging.getLogger(LOGGER)


class Request(dict[str, Any]):
    """What a line tells, complete and plain."""


def write(scope: Scope, status: int | None, seconds: float) -> None:
    """Tell of a request that was answered; the query is left out, as it may hold secrets."""
    level = logging.DEBUG if scope["path"] in _QUIET and status == 200 else logging.INFO
    if not _logger.isEnabledFor(level):
        return
    client, now = scope.get("client"), time.time()
    event = Request(
        event="request",
        action="request",
        method=scope["method"],
        path=scope["path"],
        status=status,
        milliseconds=round(seconds * 1000, 1),
        client=client[0] if client else None,
        **structlog.contextvars.get_contextvars(),
        logger=LOGGER,
        level="info" if level == logging.INFO else "debug",
        time=f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now % 1 * 1e6):06d}Z",
    )
    _logger.handle(_logger.makeRecord(LOGGER, level, "", 0, event, (), None))


class Formatter(logging.Formatter):
    """Writes lines of the access log, and leaves the others to ``rest``."""

    def __init__(self, render: Callable[[dict[str, Any]], str], rest: logging.Formatter) -> None:
        super().__init__()
        self._render = render
        self._rest = rest

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        if isinstance(record.msg, Request):
            return self._render(record.msg)
        return self._rest.format(record)


def as_json(event: dict[str, Any]) -> str:
    """As structlog's JSONRenderer."""
    rest = dict(event)
    message = rest.pop("event")
    return json.dumps(rest | {"message": message})


def as_text(event: dict[str, Any]) -> str:
    """As structlog's ConsoleRenderer without colours."""
    rest = " ".join(
        f"{name}={_shown(event[name])}"
        for name in sorted(event)
        if name not in ("event", "logger", "level", "time")
    )
    return f"{event['time']} [{event['level']:<9}] {event['event']:<30} [{event['logger']}] {rest}"


def _shown(value: object) -> str:
    return value if isinstance(value, str) and _PLAIN.fullmatch(value) else repr(value)
