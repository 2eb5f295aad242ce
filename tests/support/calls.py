"""Celery's application of this process, set up like that of a program that calls `.delay()`."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from app.settings import Settings, get_settings
from app.worker import bookkeeping, celery_app


@contextmanager
def calling(settings: Settings) -> Iterator[None]:
    """Calls and results go to these servers for the time of the context."""
    assert settings.database.url is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", settings.database.url.get_secret_value())
        patch.setenv("CELERY_DATABASE_NAME", settings.database.name)
        patch.setenv("REDIS_URL", settings.broker.url())
        patch.setattr(celery_app.conf, "broker_url", settings.broker.url())
        _start_anew()
        yield
    _start_anew()


def _start_anew() -> None:
    get_settings.cache_clear()
    bookkeeping.close()
    celery_app.publisher.close()
    celery_app.broker_client.close()
