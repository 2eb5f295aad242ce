"""What is done with readings by itself."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

from app.modules.readings import service
from app.worker import app
from app.worker.bridge import task_sessions


@app.task(name="readings.add_up", bind=True, queue="priority_low", max_attempts=3, on_worker_lost="retry")
async def add_up(self: Any, day: str | None = None) -> dict[str, int]:
    """Add up the readings of `day` (2027-03-01), or of the day before the tick.

    It ends up the same when it is repeated, so a lost worker's run may start again.
    """
    which = date.fromisoformat(day) if day else _tick(self.request).date() - timedelta(days=1)
    return {"meters": await service.add_up(task_sessions(), which)}


def _tick(request: Any) -> datetime:
    """The nominal time of a scheduled run: a late run means the same day as a punctual one."""
    named = request.scheduled_for
    return datetime.fromisoformat(named).astimezone(UTC) if named else datetime.now(UTC)
