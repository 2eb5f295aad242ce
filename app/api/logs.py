"""The service's log, in the form of `app.logs`: our lines and the server's."""

import logging

from app import logs
from app.api import access
from app.settings import LogSettings


def configure(settings: LogSettings) -> None:
    """Send everything to standard error; the access log is ours, so uvicorn's own is silenced."""
    logs.configure(settings)
    access.install(settings)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = name != "uvicorn.access"
    # Each question after the schema's revision would write two lines.
    logging.getLogger("alembic").setLevel(logging.WARNING)
