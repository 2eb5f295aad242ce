"""One form of log for API, workers, beats and the command: structlog's, for the lines of the standard library too.

Each line has its instant, level, logger and message, and what it is about: `request_id` and `user` in the API, `run_id`,
`attempt`, `schedule_id` and the `request_id` that asked for it while a run is executed, `action` and whatever else a line
names. As JSON, one object a line
(`UPBEAT_LOG_FORMAT=json`), or for people: ``time LEVEL logger: message key=value …``, coloured on a terminal.

What lines are about is said by `enter` and `also`, for the coroutines that start from there, until `leave`.
"""

import json
import logging
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from types import MappingProxyType
from typing import Any

import structlog
from structlog.dev import Column, ConsoleRenderer, plain_traceback
from structlog.typing import EventDict, Processor

from app.settings import LogSettings

# What others add to records for formatters of their own.
_FOREIGN = ("data", "taskName", "message", "asctime", "color_message", "printed")
_COLOURS = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "1;31"}
OURS = "upbeat"
_NOTHING: Mapping[str, Any] = MappingProxyType({})
_about: ContextVar[Mapping[str, Any]] = ContextVar("about", default=_NOTHING)


def configure(
    settings: LogSettings, *, file: str | None = None, level: str | int | None = None, alone: bool = False
) -> None:
    """Send every line of this process to standard error, or to a file, which others may rotate.

    Handlers that others have added stay, unless it is to be ``alone``. structlog, where tasks use it, writes into the
    same log.
    """
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            _merged,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = WatchedFileHandler(file, encoding="utf-8") if file else logging.StreamHandler(sys.stderr)
    handler.set_name(OURS)
    handler.setFormatter(formatter(settings, colours=file is None and sys.stderr.isatty()))
    root = logging.getLogger()
    root.handlers[:] = [*(old for old in root.handlers if not alone and old.get_name() != OURS), handler]
    root.setLevel(level or settings.level.upper())
    logging.captureWarnings(capture=True)


def formatter(settings: LogSettings, *, colours: bool = False) -> logging.Formatter:
    """The form of a line."""
    final: list[Processor] = [_described, _console(colours)]
    if settings.format == "json":
        final = [
            structlog.processors.format_exc_info,
            _described,
            _ordered,
            structlog.processors.JSONRenderer(as_json),
        ]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.contextvars.merge_contextvars,
            _merged,
            structlog.stdlib.ExtraAdder(),
        ],
        processors=final,
    )


def enter(**about: object) -> None:
    """From here on the lines of this context are about this, and nothing else."""
    _about.set({key: value for key, value in about.items() if value is not None})


def also(**about: object) -> None:
    """The lines of this context are about this as well."""
    _about.set({**_about.get(), **about})


def leave() -> None:
    """From here on the lines of this context are about nothing, nor what its work has said itself to structlog."""
    _about.set(_NOTHING)
    structlog.contextvars.clear_contextvars()


def about() -> Mapping[str, Any]:
    """What the lines of this context are about; `enter` takes it in another thread."""
    return _about.get()


def as_json(fields: Any, **options: Any) -> str:
    """One line, whatever somebody may take for the end of one, and nothing that speaks to a terminal."""
    line = json.dumps(fields, ensure_ascii=False, **options)
    return line if line.isprintable() else json.dumps(fields, **options)


def said(record: logging.LogRecord) -> str:
    """The message of a record, of structlog's too."""
    if isinstance(record.msg, dict):
        fields = {
            key: value for key, value in record.msg.items() if key not in ("event", "exc_info", *about())
        }
        return " ".join([str(record.msg.get("event")), *(f"{key}={value}" for key, value in fields.items())])
    return record.getMessage()


def _merged(_: Any, __: str, event: EventDict) -> EventDict:
    for name, value in _about.get().items():
        event.setdefault(name, value)
    return event


def _described(_: Any, __: str, event: EventDict) -> EventDict:
    """Instant, level and logger are the record's, whoever made it; None says nothing."""
    record: logging.LogRecord = event.pop("_record")
    event.pop("_from_structlog")
    fields = {key: value for key, value in event.items() if value is not None and key not in _FOREIGN}
    return {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "event": fields.pop("event"),
        "pid": record.process,
        **fields,
    }


def _ordered(_: Any, __: str, event: EventDict) -> EventDict:
    """With the names that a line has in JSON, the longest last."""
    names = {"event": "message", "exception": "traceback"}
    return {names.get(key, key): event[key] for key in sorted(event, key=lambda key: key == "exception")}


def _console(colours: bool) -> Processor:  # noqa: FBT001
    def paint(code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if colours else text

    columns = [
        Column("time", lambda _, value: paint("2", str(value))),
        Column("level", lambda _, value: paint(_COLOURS.get(str(value), "0"), f"{str(value).upper():<7}")),
        Column("logger", lambda _, value: f"{value}:"),
        Column("event", lambda _, value: str(value)),
        Column("pid", lambda _, __: ""),
        Column("", lambda key, value: f"{paint('2', f'{key}=')}{value}"),
    ]
    # A richer traceback shows local variables, and so what they hold: tokens, passwords.
    return ConsoleRenderer(columns=columns, exception_formatter=plain_traceback, sort_keys=False)
