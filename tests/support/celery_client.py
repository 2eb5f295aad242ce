"""Celery's client side in this process, pointed at the tests' servers; and a stack that many tests share."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from app.settings import get_settings
from app.worker import bookkeeping, celery_app
from support.servers import Database


@contextmanager
def client_of(server_url: str, database: Database, redis_url: str) -> Iterator[None]:
    """Let `task.delay()` and `result.get()` in this process use that database and broker."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", server_url)
        patch.setenv("CELERY_DATABASE_NAME", database.name)
        patch.setenv("REDIS_URL", redis_url)
        _afresh()
        patch.setattr(celery_app.conf, "broker_url", redis_url)
        yield
        _afresh()
    get_settings.cache_clear()


def _afresh() -> None:
    from app.worker.waiting import waiters

    get_settings.cache_clear()
    bookkeeping.close()
    celery_app.publisher.close()
    celery_app.broker_client.close()
    celery_app.backend._cache.clear()
    waiters.close()
