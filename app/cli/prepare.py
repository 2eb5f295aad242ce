"""What a start does between servers and services: migrate, make the administrator, seed a demonstration."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.cli.deployment import deploy, headlines
from app.cli.embedded import new_password
from app.cli.recorded import CommandLine
from app.db.companions import accompanied
from app.db.engines import async_engine, async_sessions
from app.db.migrate import upgrade
from app.modules.auth.service import ensure_admin
from app.scheduling.choosing import ScheduleFilter
from app.scheduling.config import ScheduleCreate
from app.scheduling.facade import PEOPLE, Scheduler
from app.settings import Settings
from app.worker import app as celery_app
from app.worker import catalogue
from app.worker.publisher import CeleryPublisher

DEMONSTRATION = ScheduleCreate(
    task_name="Demonstration: every ten seconds",
    task_path="scheduled_task.test_task",
    task_type="system",
    schedule={"type": "interval", "every": 10, "unit": "seconds"},
    description="Made by the first start. Pause or delete it as you like.",
)


@dataclass(frozen=True, slots=True)
class Administrator:
    """``password`` is known only when the account was made now."""

    username: str
    password: str | None
    generated: bool


def prepare(settings: Settings, tell: Callable[[str], None]) -> Administrator:
    """Bring database and declared schedules up to date; what is new gets its administrator and a schedule.

    ``tell`` is given the lines that say what became of schedules.

    Raises:
        ConfigurationError: the server cannot be reached, or the role may not create the database.
        InvalidInput: the administrator's name or password will not do, or a declared schedule is not valid.
    """
    upgrade(settings)
    # Before the administrator: a declaration that is not valid must not cost the password that is shown once.
    for line in headlines(deploy(settings)):
        tell(line)
    return asyncio.run(_first_steps(settings))


async def _first_steps(settings: Settings) -> Administrator:
    engine = async_engine(settings.database, name="upbeat-up")
    try:
        sessions = async_sessions(engine)
        given = settings.auth.admin_password
        password = given.get_secret_value() if given else new_password()
        username = settings.auth.admin_username
        with accompanied(CommandLine("create_user", "users")):
            created = await ensure_admin(sessions, username, password)
        if created:
            await _demonstrate(settings, sessions)
        return Administrator(username, password if created else None, generated=given is None)
    finally:
        await engine.dispose()


async def _demonstrate(settings: Settings, sessions: async_sessionmaker[AsyncSession]) -> None:
    """A schedule to look at, unless people have one: another administrator may have made theirs."""
    scheduler = Scheduler(sessions, CeleryPublisher(celery_app), catalogue(), settings)
    if not (await scheduler.list_schedules(limit=1, which=ScheduleFilter(owner=PEOPLE))).items:
        await scheduler.create_schedule(DEMONSTRATION, actor="upbeat up")
