"""Celery's application of this process, set up like that of a program that calls `.delay()`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from uuid import UUID

import pytest

from app.scheduling import runs
from app.scheduling.config import RunOptions
from app.scheduling.ids import new_id
from app.scheduling.messages import RunMessage
from app.settings import Settings, get_settings
from app.worker import bookkeeping, celery_app
from app.worker.waiting import waiters


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


def unsent(*args: object, task: str = "support.instant", due_in: float = 0.0, **options: object) -> UUID:
    """A queued run, also of a task that nobody knows, whose wake-up is left to the caller to send."""
    return _store(args, task, due_in, options)[0]


def sent(*args: object, task: str = "support.instant", **options: object) -> UUID:
    """A queued run with the options that callers over HTTP may give, and its wake-up."""
    run_id, message = _store(args, task, 0.0, options)
    assert message is not None
    celery_app.publisher.publish([message])
    return run_id


def _store(
    args: tuple[object, ...], task: str, due_in: float, options: dict[str, object]
) -> tuple[UUID, RunMessage | None]:
    run_id = new_id()
    spec = replace(celery_app.catalogue().named("support.instant"), name=task)
    message = bookkeeping.transact(
        lambda session: runs.submit(
            session,
            task=spec,
            args=args,
            kwargs={},
            options=RunOptions.model_validate(options),
            origin=runs.Origin.CODE,
            redispatch_delay=600,
            due_in=due_in,
            run_id=run_id,
        )
    )
    return run_id, message


def _start_anew() -> None:
    get_settings.cache_clear()
    bookkeeping.close()
    celery_app.publisher.close()
    celery_app.broker_client.close()
    # Celery keeps the connections to the broker that it was first used with.
    celery_app._pool = celery_app.amqp._producer_pool = None
    celery_app.backend._cache.clear()
    waiters.close()
