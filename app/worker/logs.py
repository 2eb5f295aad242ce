"""The log of worker and beat, in the form of `app.logs`, with the run that a line belongs to."""

from typing import Any

import click
from celery import signals
from click.core import ParameterSource

from app import logs
from app.settings import get_settings


@signals.setup_logging.connect(weak=False)
def configure(loglevel: int | str | None = None, logfile: str | None = None, **_: Any) -> None:
    """Log to ``logfile``, else to stderr; Celery's own set-up is left out."""
    level = loglevel if _level_was_given() else None
    logs.configure(get_settings().log, file=logfile, level=level, alone=True)


@signals.celeryd_after_setup.connect(weak=False)
def _without_banner(instance: Any, **_: Any) -> None:
    """What reads JSON cannot read Celery's drawing."""
    instance.quiet = instance.quiet or in_json()


def in_json() -> bool:
    """Whether each line of this process is an object."""
    return get_settings().log.format == "json"


@signals.task_postrun.connect(weak=False)
def _leave_run(**_: Any) -> None:
    logs.leave()


def _level_was_given() -> bool:
    context = click.get_current_context(silent=True)
    return context is None or context.get_parameter_source("loglevel") is ParameterSource.COMMANDLINE
