"""Log lines of worker and beat: one form, with the run that a line belongs to."""

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import click
from celery import signals
from click.core import ParameterSource

from app.settings import get_settings

current_run: ContextVar[str | None] = ContextVar("current_run", default=None)

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "data", "taskName"}


class _Formatter(logging.Formatter):
    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        extra = {
            key: value for key, value in vars(record).items() if key not in _STANDARD and value is not None
        }
        run = extra.pop("run_id", None) or current_run.get()
        return ({"run_id": run} if run else {}) | extra

    def time(self, record: logging.LogRecord) -> str:
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


class ConsoleFormatter(_Formatter):
    """``time level logger: message key=value …``, a traceback below it."""

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {key}={value}" for key, value in self.fields(record).items())
        line = f"{self.time(record)} {record.levelname:<7} {record.name}: {record.getMessage()}{fields}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class JsonFormatter(_Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
        } | self.fields(record)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


@signals.setup_logging.connect(weak=False)
def configure(loglevel: int | str | None = None, logfile: str | None = None, **_: Any) -> None:
    """Log to ``logfile``, else to stderr; Celery's own set-up is left out."""
    settings = get_settings().log
    handler: logging.Handler = logging.FileHandler(logfile) if logfile else logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.format == "json" else ConsoleFormatter())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(loglevel if _level_was_given() and loglevel else settings.level.upper())
    logging.captureWarnings(capture=True)


@signals.task_postrun.connect(weak=False)
def _leave_run(**_: Any) -> None:
    current_run.set(None)


def _level_was_given() -> bool:
    context = click.get_current_context(silent=True)
    return context is None or context.get_parameter_source("loglevel") is ParameterSource.COMMANDLINE
