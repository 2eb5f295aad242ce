"""sqlalchemy-celery-beat on the same PostgreSQL."""

import time
from datetime import UTC, datetime

import sqlalchemy as sa
from celery import Celery
from celery.beat import Service
from sqlalchemy.orm import Session
from sqlalchemy_celery_beat.models import IntervalSchedule, Period, PeriodicTask
from sqlalchemy_celery_beat.schedulers import DatabaseScheduler
from sqlalchemy_celery_beat.session import SessionManager

from bench.beats import places

URL = places.database().replace("postgresql://", "postgresql+psycopg://")
app = Celery("bench", broker=places.broker(), set_as_current=True)
app.conf.update(result_expires=None, beat_dburi=URL)


def fill(count: int) -> None:
    """Insert in bulk."""
    manager = SessionManager()
    engine, sessions = manager.create_session(URL)
    manager.prepare_models(engine)
    now = datetime.now(UTC)
    with sessions() as session:
        daily = IntervalSchedule(every=1, period=Period.DAYS)
        session.add(daily)
        session.flush()
        for first in range(0, count, 2000):
            rows = [
                {
                    "name": f"schedule {n}",
                    "task": places.TASK,
                    "schedule_id": daily.id,
                    "discriminator": daily.discriminator,
                    "kwargs": f'{{"n": {n}}}',
                    "last_run_at": now,
                }
                for n in range(first, min(first + 2000, count))
            ]
            session.execute(sa.insert(PeriodicTask.__table__), rows)
        session.commit()


def arm(due: int, at: float) -> None:
    """One update of those that rest, one of those that are due."""
    with _session() as session:
        names = [f"schedule {n}" for n in range(places.MOST)]
        rows = sa.update(PeriodicTask).execution_options(synchronize_session=False)
        session.execute(rows.where(PeriodicTask.name.in_(names)).values(last_run_at=datetime.now(UTC)))
        armed = rows.where(PeriodicTask.name.in_(names[:due]))
        session.execute(armed.values(last_run_at=places.last_run_for(at)))
        session.commit()


def service() -> Service:
    """As `celery beat --scheduler sqlalchemy_celery_beat.schedulers:DatabaseScheduler` makes it."""
    return Service(app, scheduler_cls=DatabaseScheduler)


def prepare_edits() -> None:
    """Connect."""
    with _session() as session:
        session.scalar(sa.select(PeriodicTask).limit(1))


def edit(number: int) -> float:
    """Save one row through the ORM, whose listener tells the beat."""
    with _session() as session:
        task = session.scalars(sa.select(PeriodicTask).filter_by(name=f"schedule {number}")).one()
        task.last_run_at = places.last_run_for(time.time() - 1)
        task.no_changes = False
        session.commit()
    return time.time()


def _session() -> Session:
    return SessionManager().create_session(URL)[1]()
