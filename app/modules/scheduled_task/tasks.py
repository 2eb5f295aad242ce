"""The demonstration task, and the forgetting of old history."""

import asyncio
import logging
import os
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from app.modules.scheduled_task import history
from app.worker import app
from app.worker.bridge import task_sessions

logger = logging.getLogger(__name__)


@app.task(
    name="scheduled_task.test_task",
    bind=True,
    aliases=(
        "src.apps.scheduled_task.tasks.test_task",
        "src.apps.scheduled_task.tasks.scheduled_test_task",
    ),
)
async def test_task(self: Any, message: str = "It works.", seconds: float = 0.0) -> dict[str, Any]:
    """Wait for `seconds`, then tell who ran it and when."""
    logger.info("%s", message)
    await asyncio.sleep(seconds)
    return {
        "message": message,
        "run_id": self.request.id,
        "attempt": (self.request.retries or 0) + 1,
        "scheduled_for": getattr(self.request, "scheduled_for", None),
        "worker": self.request.hostname,
        "pid": os.getpid(),
        "at": datetime.now(UTC).isoformat(),
    }


@app.task(
    name="scheduled_task.cleanup_old_logs",
    queue="system",
    aliases=(
        "src.apps.scheduled_task.tasks.cleanup_old_logs",
        "src.apps.scheduled_task.tasks.cleanup_old_logs_task",
    ),
)
async def cleanup_old_logs(days: int = 90, whole_months: bool = True) -> dict[str, Any]:  # noqa: FBT001, FBT002
    """Forget runs, attempts, log lines and what else is history, older than `days` days.

    Whole months are dropped, and the rest of a month is kept until it is old as a whole; with
    `whole_months=False` its rows are deleted one by one. Runs that have not ended stay.
    """
    if not 1 <= days <= 36_500:
        raise ValueError("days must be from 1 to 36500")
    done = await history.clean_up(task_sessions(), timedelta(days=days), rows=not whole_months)
    return asdict(done)
