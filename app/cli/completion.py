"""What a shell completes beyond verbs and options: names that the service knows, if it tells them in time."""

import os
import re
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr
from io import StringIO
from itertools import islice
from typing import Any

from app.scheduling.messages import QUEUES

PATIENCE = 1.0  # seconds: somebody waits for a key that was pressed
MOST = 200  # names that are looked at


def complete_queues(incomplete: str) -> list[str]:
    """The queues that there are."""
    return [queue for queue in QUEUES if queue.startswith(incomplete)]


def complete_tasks(incomplete: str) -> list[str]:
    """Names of tasks."""
    return _names(incomplete, lambda client: (each.name for each in client.tasks.list(limit=MOST)))


def complete_schedules(incomplete: str) -> list[str]:
    """Names of schedules."""
    which = {"search": incomplete} if incomplete else {}
    return _names(
        incomplete,
        lambda client: (each.task_name for each in client.schedules.list(limit=MOST, **which)),
    )


def complete_runs(incomplete: str) -> list[str]:
    """Ids of the newest runs."""
    return _names(incomplete, lambda client: (str(each.id) for each in client.runs.list(limit=MOST)))


def complete_workers(incomplete: str) -> list[str]:
    """Names of the workers that are alive."""
    return _names(incomplete, lambda client: (each.name for each in client.workers.list(alive=True)))


def _names(incomplete: str, ask: Callable[[Any], Iterable[str]]) -> list[str]:
    from app.cli.client import connected

    try:
        with redirect_stderr(StringIO()), connected() as client:
            found = ask(client.with_options(timeout=PATIENCE, max_retries=0))
            return [_typed(name) for name in islice(found, MOST) if name.startswith(incomplete)]
    except Exception:  # noqa: BLE001 - what is typed is not to be disturbed; the command itself says what is wrong
        return []


def _typed(name: str) -> str:
    """As it has to be typed: other shells quote by themselves what bash takes as it comes."""
    if os.environ.get("_UPBEAT_COMPLETE") != "complete_bash":
        return name
    return re.sub(r"([^\w@%+=:,./-])", r"\\\1", name)
