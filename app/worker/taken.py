"""The messages that a worker's main process has taken, as Celery keeps them."""

from contextlib import suppress
from typing import Any

from celery.worker import state


def taken() -> list[Any]:
    """The requests that have not ended; safe in any thread.

    Celery's book by ids has one entry for all messages of a run, and loses it when the first of them has ended.
    """
    while True:
        # The main thread adds and takes away meanwhile.
        with suppress(RuntimeError):
            return list({*state.requests.values(), *state.reserved_requests, *state.active_requests})
