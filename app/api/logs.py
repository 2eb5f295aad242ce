"""The service's log: one form for our lines and the server's, with the request's id in each."""

import logging
import sys
from typing import TextIO

import structlog

from app.api import access
from app.settings import LogSettings

_SHARED: list[structlog.typing.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
]


def configure(settings: LogSettings) -> None:
    """Send everything to standard error; the access log is ours, so uvicorn's own is silenced."""
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    final: list[structlog.typing.Processor]
    if settings.format == "json":
        final = [
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("message"),
            structlog.processors.JSONRenderer(),
        ]
    else:
        final = [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                timestamp_key="time",
                # A richer traceback shows local variables, and so what they hold: tokens, passwords.
                exception_formatter=structlog.dev.plain_traceback,
            )
        ]
    handler = ServiceHandler()
    formatter: logging.Formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_SHARED,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
    )
    if settings.format == "json":
        formatter = access.Formatter(access.as_json, formatter)
    elif not sys.stderr.isatty():
        formatter = access.Formatter(access.as_text, formatter)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [*(old for old in root.handlers if not isinstance(old, ServiceHandler)), handler]
    root.setLevel(settings.level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = name != "uvicorn.access"
    # Each question after the schema's revision would write two lines.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)


class ServiceHandler(logging.StreamHandler[TextIO]):
    """The one handler of this process; a class of its own, so that it is found when set up again."""
