"""Counts of messages that started nothing, for the metrics: kept in one hash in the broker.

A message that is refused exists only in Redis, so its count may live there too: all workers add to
the same numbers, and they outlive a worker. Counting never fails: what cannot be added now is added
with the next count.
"""

import logging
import os
import threading
from collections import Counter
from contextlib import suppress
from typing import Any

from celery import current_app

from app.scheduling import tally
from app.scheduling.messages import BrokerUnavailable

logger = logging.getLogger(__name__)

KEY = "upbeat:messages_without_effect"

_pending: Counter[str] = Counter()
_lock = threading.Lock()


def _forget() -> None:
    """In a child: what the parent has counted is the parent's to add."""
    global _lock  # noqa: PLW0603 - another thread of the parent may have held it
    _lock = threading.Lock()
    _pending.clear()


os.register_at_fork(after_in_child=_forget)


def refuse(
    problem: str, *, queue: str | None = None, task: str | None = None, run: str | None = None
) -> None:
    """A message was removed because nothing can be done with it."""
    logger.warning(
        "message refused (%s)%s",
        problem,
        f" from queue {queue}" if queue else "",
        extra={"action": "message_refused", "problem": problem, "queue": queue, "task": task, "run_id": run},
    )
    tally.count("refused", label=problem)
    _add("refused:" + problem)


def nothing_to_start(run: str) -> None:
    """A message found nothing to start: a duplicate, or its run was cancelled, expired, or is forged."""
    logger.info("nothing to start for run %s", run, extra={"action": "start_suppressed", "run_id": run})
    tally.count("suppressed")
    _add("suppressed")


def read() -> dict[str, int]:
    """All counts of all workers, by what was counted.

    Raises:
        BrokerUnavailable: they cannot be read now.
    """
    found = current_app.broker_client.use(lambda client: client.hgetall(KEY))
    return {name.decode(): int(count) for name, count in found.items()}


def _add(name: str) -> None:
    with _lock:
        _pending[name] += 1
    with suppress(BrokerUnavailable):
        current_app.broker_client.use(_send)


def _send(client: Any) -> None:
    """Add what is pending; one thread at a time is here, so nothing is added twice."""
    with _lock:
        counts = dict(_pending)
    with client.pipeline(transaction=True) as pipeline:
        for name, number in counts.items():
            pipeline.hincrby(KEY, name, number)
        pipeline.execute()
    with _lock:
        for name, number in counts.items():
            _pending[name] -= number
            if not _pending[name]:
                del _pending[name]
