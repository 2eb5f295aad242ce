"""Counts of messages that started nothing, for the metrics: kept in one hash in the broker.

A message that is refused exists only in Redis, so its count may live there too: all workers add to
the same numbers, and they outlive a worker. Counting never fails: what cannot be added now is added
with the next count.
"""

import logging
import os
import threading
from collections import Counter
from typing import Any

from celery import current_app

logger = logging.getLogger(__name__)

KEY = "upbeat:messages_without_effect"


class _Counters:
    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.lock = threading.Lock()
        self.pending: Counter[str] = Counter()
        self.client: Any = None


_counters = _Counters()
os.register_at_fork(after_in_child=_counters.reset)


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
    _add("refused:" + problem)


def suppress(run: str) -> None:
    """A message found nothing to start: a duplicate, or its run was cancelled, expired, or is forged."""
    logger.info("nothing to start for run %s", run, extra={"action": "start_suppressed", "run_id": run})
    _add("suppressed")


def read(client: Any) -> dict[str, int]:
    """All counts, by what was counted; ``client`` is a redis client."""
    return {_text(name): int(count) for name, count in client.hgetall(KEY).items()}


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _add(name: str) -> None:
    with _counters.lock:
        _counters.pending[name] += 1
        try:
            if _counters.client is None:
                _counters.client = current_app.connection_for_write().channel()
            with _counters.client.conn_or_acquire() as redis:
                pipeline = redis.pipeline(transaction=True)
                for counted, number in _counters.pending.items():
                    pipeline.hincrby(KEY, counted, number)
                pipeline.execute()
        except Exception:  # noqa: BLE001 - a count is not worth a worker
            _counters.client = None
        else:
            _counters.pending.clear()
