"""Our own beat, as `celery -A app.worker beat` makes it."""

import math
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.db import sync_engine, sync_sessions
from app.errors import Conflict, InvalidInput
from app.scheduling import drift, schedules
from app.scheduling.config import ScheduleUpdate
from app.settings import get_settings
from app.worker import app
from app.worker.beat import DatabaseScheduler, Service
from bench.beats.population import arm_first, populate

app.loader.import_default_modules()
app.finalize()
sessions = sync_sessions(sync_engine(get_settings().database, name="bench"))
identifiers: dict[int, UUID] = {}

# A tick is a whole second, and must lie ahead when the edit is decided: edits are made shortly before one,
# so that what is measured is how soon the beat hears of them.
LEAD = 0.015


def fill(count: int) -> None:
    """Insert in bulk, as schedules that a deployment has checked: a beat does not look at all of them again."""
    populate(sessions, count)
    with sessions.begin() as session:
        drift.remember(session, app.catalogue())


def arm(due: int, at: float) -> None:
    """Set the clocks of the first ``due``."""
    arm_first(sessions, due, datetime.fromtimestamp(at, UTC))


def service() -> Service:
    """A beat whose first tick does not wait for the second."""
    made = Service(app, scheduler_cls=DatabaseScheduler)
    made.scheduler.wake()
    return made


def prepare_edits() -> None:
    """Learn which id has which number."""
    with sessions() as session:
        rows: Any = session.execute(
            text("SELECT CAST(task_kwargs ->> 'n' AS int), id FROM celery_periodic_task_configs LIMIT 2000")
        )
        identifiers.update(enumerate(row[1] for row in rows))


def edit(number: int) -> float:
    """Change one schedule through the service that the API calls; answers the later of commit and tick."""
    while True:
        due = math.ceil(time.time() + LEAD)
        time.sleep(due - LEAD - time.time())
        once = {"type": "one_off", "at": datetime.fromtimestamp(due, UTC).isoformat()}
        with suppress(Conflict, InvalidInput), sessions.begin() as session:
            _update(session, identifiers[number], once)
            session.commit()
            return max(time.time(), due)


def _update(session: Session, identifier: UUID, schedule: dict[str, Any]) -> None:
    body = ScheduleUpdate.model_validate({"schedule": schedule})
    schedules.update(session, app.catalogue(), identifier, body, "bench")
