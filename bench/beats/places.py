"""Where a contestant finds its servers and files; written by the harness into the environment."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

PERIOD = timedelta(days=1)

# No more than so many are ever made due: the first ones.
MOST = 5_000
TASK = "bench.task"

# The longest sleep between two looks at the schedules. It is what django-celery-beat,
# sqlalchemy-celery-beat and our own beat have by default, and what RedBeat's manual advises.
MAX_SLEEP = 5


def broker() -> str:
    """The address of the contestant's own Redis database."""
    return os.environ["BENCH_BROKER"]


def database() -> str:
    """The address of the contestant's own PostgreSQL database."""
    return os.environ["BENCH_DATABASE"]


def folder() -> Path:
    """A folder of the contestant's own."""
    return Path(os.environ["BENCH_FOLDER"])


def last_run_for(due_at: float) -> datetime:
    """When a daily schedule ran last if it is due at ``due_at``."""
    return datetime.fromtimestamp(due_at, UTC) - PERIOD
