"""What people ask of this worker, done: leave paused queues alone, have other slots, drain.

Looked for by the thread that listens for cancellations. The pool belongs to the main loop, so it is changed there.
"""

import logging
import os
import signal
from functools import partial
from typing import Any

from app.scheduling import wishes
from app.settings import get_settings
from app.worker import bookkeeping, liveness
from app.worker.transport import OpenQueues

logger = logging.getLogger(__name__)

LOOK_AGAIN = 1.0


class Obedience:
    """Compares what is asked for with what is, for one worker."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self._draining = False

    def look(self) -> float:
        """Do what is asked for; answers in how many seconds to look again. Raises as the driver does."""
        worker_id = liveness.worker_id()
        asked = bookkeeping.transact(lambda session: wishes.of_worker(session, worker_id))
        if asked.paused != OpenQueues.paused:
            logger.info(
                "paused queues: %s",
                ", ".join(sorted(asked.paused)) or "none",
                extra={"action": "queues_paused"},
            )
            OpenQueues.paused = asked.paused
        if asked.drain and not self._draining:
            self._draining = True
            logger.info("somebody asked this worker to drain", extra={"action": "drain_requested"})
            # Celery's warm shutdown: nothing is taken any more.
            os.kill(os.getpid(), signal.SIGTERM)
        if asked.concurrency is None or self._draining:
            return get_settings().worker.lease_renewal
        if self._consumer.hub is None:
            self._tell(None, "its pool has no event loop")
        else:
            self._consumer.hub.call_soon(self._resize, asked.concurrency)
        return LOOK_AGAIN

    def _resize(self, wanted: int) -> None:
        """In the main loop, as Celery's own `pool_grow`. A prefork pool shrinks as its children become idle."""
        pool = self._consumer.pool
        change = wanted - pool.num_processes
        try:
            if change > 0:
                pool.grow(change)
            if change < 0:
                pool.shrink(-change)
        except ValueError:
            logger.info("the pool is busy, and is made smaller later", extra={"action": "pool_busy"})
            return
        except (NotImplementedError, AttributeError) as error:
            self._tell(None, f"its pool cannot be resized: {error}")
            return
        if change:
            self._consumer._update_prefetch_count(change)
            self._consumer.controller.concurrency = wanted
            logger.info("this worker has %d slots now", wanted, extra={"action": "pool_resized"})
        self._tell(wanted, None)

    def _tell(self, concurrency: int | None, refused: str | None) -> None:
        lease = liveness.lease()
        lease.postpone(partial(wishes.answer, worker_id=lease.id, concurrency=concurrency, refused=refused))
