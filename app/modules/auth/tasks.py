"""Upkeep of login sessions, as tasks."""

from dataclasses import asdict
from datetime import timedelta

from app.modules.auth import sessions
from app.worker import app
from app.worker.bridge import task_sessions


@app.task(
    name="auth.cleanup_expired_sessions",
    queue="system",
    aliases=(
        "src.apps.auth.tasks.cleanup_expired_sessions",
        "src.apps.auth.tasks.cleanup_expired_sessions_task",
    ),
)
async def cleanup_expired_sessions() -> dict[str, int]:
    """Delete login sessions that have expired."""
    return {"deleted": await sessions.delete_expired(task_sessions())}


@app.task(
    name="auth.cleanup_old_sessions",
    queue="system",
    aliases=("src.apps.auth.tasks.cleanup_old_sessions", "src.apps.auth.tasks.cleanup_old_sessions_task"),
)
async def cleanup_old_sessions(days: int = 30) -> dict[str, int]:
    """Delete login sessions that expired or were revoked more than `days` days ago."""
    if not 0 <= days <= 36_500:
        raise ValueError("days must be from 0 to 36500")
    return {"deleted": await sessions.delete_ended(task_sessions(), timedelta(days=days))}


@app.task(
    name="auth.session_statistics",
    queue="system",
    aliases=("src.apps.auth.tasks.session_statistics", "src.apps.auth.tasks.session_statistics_task"),
)
async def session_statistics() -> dict[str, int]:
    """Count login sessions by what became of them, and keep the counts as those of the day."""
    return asdict(await sessions.statistics(task_sessions()))
