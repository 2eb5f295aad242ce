"""What a start does between servers and services: migrate, make the administrator, seed a demonstration."""

import asyncio
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.cli.embedded import new_password
from app.db.engines import async_engine, async_sessions
from app.db.migrate import upgrade
from app.settings import Settings


@dataclass(frozen=True, slots=True)
class Administrator:
    """``password`` is known only when the account was made now."""

    username: str
    password: str | None
    generated: bool


DEMONSTRATION: dict[str, object] = {
    "task_name": "Demonstration: every ten seconds",
    "task_path": "scheduled_task.test_task",
    "task_type": "system",
    "schedule": {"kind": "interval", "every": 10, "unit": "seconds"},
}


def prepare(settings: Settings) -> Administrator:
    """Bring the database up to date; a database that is new gets its administrator and a schedule.

    Raises:
        ConfigurationError: the server cannot be reached or the role may not create the database.
    """
    upgrade(settings)
    return asyncio.run(_first_steps(settings))


async def _first_steps(settings: Settings) -> Administrator:
    engine = async_engine(settings.database, name="upbeat-up")
    try:
        sessions = async_sessions(engine)
        administrator, created = await _administrator(settings, sessions)
        if created:
            await _demonstrate(settings, sessions)
        return administrator
    finally:
        await engine.dispose()


async def _administrator(
    settings: Settings, sessions: async_sessionmaker[AsyncSession]
) -> tuple[Administrator, bool]:
    from app.modules.auth.service import ensure_admin

    given = settings.auth.admin_password
    password = given.get_secret_value() if given else new_password()
    username = settings.auth.admin_username
    created = await ensure_admin(sessions, username, password)
    return Administrator(username, password if created else None, generated=given is None), created


async def _demonstrate(settings: Settings, sessions: async_sessionmaker[AsyncSession]) -> None: ...
