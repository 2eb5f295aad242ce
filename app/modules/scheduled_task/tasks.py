"""The demonstration task, and the cleaning up after old runs."""

import asyncio
import logging
import os
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import delete

from app.scheduling.ids import id_at
from app.scheduling.models import LogRow
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
async def cleanup_old_logs(days: int = 30) -> dict[str, int]:
    """Delete the log lines of runs older than `days` days."""
    if days < 1:
        raise ValueError("days must be 1 or more")
    before = id_at(datetime.now(UTC) - timedelta(days=days))
    async with task_sessions()() as session, session.begin():
        deleted = await session.execute(delete(LogRow).where(LogRow.run_id < before))
    return {"deleted": deleted.rowcount}  # type: ignore[attr-defined]
