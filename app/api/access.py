"""The access log: a line for each request, of the form that all lines have, at a fifth of the cost.

structlog's chain and renderer take longer than the rest of a quick request; nothing here needs them.
"""

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextvars import Context
from functools import lru_cache
from typing import Any, Final

from starlette.types import Scope

from app import logs
from app.settings import LogSettings

LOGGER: Final = "app.access"
_QUIET = frozenset({"/livez", "/readyz"})
_logger = logging.getLogger(LOGGER)


class Request(dict[str, Any]):
    """What a line tells, complete and plain; ``at`` in seconds since the epoch."""

    at: float


class Requests(list[Request]):
    """A record of the log that is several lines: of those that were answered in one turn of the event loop."""


class _Turn:
    """Gathers lines, and writes them when the event loop comes round: a busy process answers many in a turn."""

    def __init__(self) -> None:
        self.straight = False
        self._lines = Requests()
        self._loop: asyncio.AbstractEventLoop | None = None

    def add(self, line: Request) -> None:
        self._lines.append(line)
        loop = asyncio.get_running_loop()
        # A loop that ended in mid-turn never came round.
        if self._loop is not loop:
            self._loop = loop
            loop.call_soon(self._write, context=Context())

    def _write(self) -> None:
        lines, self._lines, self._loop = self._lines, Requests(), None
        _handle(logging.INFO, lines)


_turn = _Turn()


def write(scope: Scope, status: int | None, seconds: float) -> None:
    """Tell of a request that was answered; the query is left out, as it may hold secrets."""
    level = logging.DEBUG if scope["path"] in _QUIET and status == 200 else logging.INFO
    if not _logger.isEnabledFor(level):
        return
    client = scope.get("client")
    line = Request(
        event="request",
        action="request",
        method=scope["method"],
        path=scope["path"],
        status=status,
        milliseconds=round(seconds * 1000, 1),
        client=client[0] if client else None,
        **logs.about(),
    )
    line.at = time.time()
    if _turn.straight and level == logging.INFO:
        _turn.add(line)
    else:
        _handle(level, line)


def _handle(level: int, message: Request | Requests) -> None:
    _logger.handle(_logger.makeRecord(LOGGER, level, "", 0, message, (), None))


def install(settings: LogSettings) -> None:
    """Let the service's own handler write these lines straight; where it paints them, nothing is in a hurry."""
    _turn.straight = False
    for handler in logging.getLogger().handlers:
        rest = handler.formatter
        if handler.get_name() == logs.OURS and rest is not None and not sys.stderr.isatty():
            handler.setFormatter(Formatter(as_json if settings.format == "json" else as_text, rest))
            _turn.straight = True


class Formatter(logging.Formatter):
    """Writes lines of the access log, and leaves the others to ``rest``."""

    def __init__(self, render: Callable[[logging.LogRecord, Request], str], rest: logging.Formatter) -> None:
        super().__init__()
        self._render = render
        self._rest = rest

    def format(self, record: logging.LogRecord) -> str:
        """One line, or those of one turn."""
        if isinstance(record.msg, Requests):
            return "\n".join(self._render(record, line) for line in record.msg)
        if isinstance(record.msg, Request):
            return self._render(record, record.msg)
        return self._rest.format(record)


def as_json(record: logging.LogRecord, event: Request) -> str:
    """As `app.logs` writes an object."""
    head = {
        "time": _time(event.at),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": event["event"],
        "pid": record.process,
    }
    return logs.as_json(head | dict(_fields(event)))


def as_text(record: logging.LogRecord, event: Request) -> str:
    """As `app.logs` writes a line without colours, but that a path cannot speak to a terminal."""
    rest = " ".join(f"{name}={_shown(value)}" for name, value in _fields(event))
    return f"{_time(event.at)} {record.levelname:<7} {record.name}: {event['event']} {rest}"


def _fields(event: Request) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name, value in event.items() if value is not None and name != "event")


def _time(at: float) -> str:
    return f"{_second(int(at))}.{int(at % 1 * 1000):03d}+00:00"


@lru_cache(maxsize=4)
def _second(at: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))


def _shown(value: object) -> str:
    text = str(value)
    return text if text.isprintable() else repr(text)
