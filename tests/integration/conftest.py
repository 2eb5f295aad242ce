"""Fixtures of the integration tests: the domain on the module's own database."""

from collections.abc import Iterator

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from app.db import sync_engine, sync_sessions
from app.settings import Settings

TABLES = (
    "celery_task_runs, celery_task_run_attempts, celery_task_missed_ranges, celery_workers, celery_beats,"
    " celery_periodic_task_configs, celery_periodic_task_config_versions, celery_periodic_task_clocks"
)


@pytest.fixture
def sync(settings: Settings) -> Iterator[sessionmaker[Session]]:
    """Sync sessions on a database whose tables of the domain are empty."""
    engine = sync_engine(settings.database, name="test", pool_size=8)
    sessions = sync_sessions(engine)
    with sessions.begin() as session:
        session.execute(text(f"TRUNCATE {TABLES} CASCADE"))
    yield sessions
    engine.dispose()
