"""Upkeep of login sessions, as tasks."""

from dataclasses import asdict
from datetime import timedelta

from app.modules.auth import sessions
from app.worker import app
from app.worker.bridge import task_sessions


@app.task(
    name="auth.cleanup_expired_sessions",
    queue="system",
    aliases=("src.apps.auth.tasks.cleanup_expired_sessions_task",),
)
async def cleanup_expired_sessions() -> dict[str, int]:
    """Delete login sessions that have expired."""
    async with task_sessions()() as session, session.begin():
        return {"deleted": await sessions.delete_expired(session)}


@app.task(
    name="auth.cleanup_old_sessions",
    queue="system",
    aliases=("src.apps.auth.tasks.cleanup_old_sessions_task",),
)
async def cleanup_old_sessions(days: int = 30) -> dict[str, int]:
    """Delete login sessions that ended more than `days` days ago."""
    if days < 0:
        raise ValueError("days must be 0 or more")
    async with task_sessions()() as session, session.begin():
        return {"deleted": await sessions.delete_old(session, timedelta(days=days))}


@app.task(
    name="auth.session_statistics",
    queue="system",
    aliases=("src.apps.auth.tasks.session_statistics_task",),
)
async def session_statistics() -> dict[str, int]:
    """Count login sessions by what became of them."""
    async with task_sessions()() as session:
        return asdict(await sessions.statistics(session))
