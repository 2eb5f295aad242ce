"""Ending a worker that holds a run which it cannot stop: it drains and leaves; its supervisor starts another."""

import logging
import os
import signal
import threading
import time

from app.settings import get_settings
from app.worker import departure

logger = logging.getLogger(__name__)

EXIT_STATUS = 70
LOOK_EVERY = 0.2

_lock = threading.Lock()
_stuck: set[str] = set()


def begin(why: str, stuck: set[str]) -> None:
    """Take no more work, let the others finish for `UPBEAT_WORKER_DRAIN_TIMEOUT` seconds, and end this process.

    ``stuck`` are the ids of the runs that are not waited for. Returns at once.
    """
    with _lock:
        first = not _stuck
        _stuck.update(stuck)
    if first:
        logger.error("this worker is replaced: %s", why, extra={"action": "worker_replaced"})
        departure.supersede()
        # Celery's warm shutdown: nothing is taken any more.
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Thread(target=_leave, name="upbeat-replacement", daemon=True).start()


def _leave() -> None:
    end = time.monotonic() + get_settings().worker.drain_timeout
    while time.monotonic() < end:
        if {request.id for request in departure.held()} <= _stuck:
            break
        time.sleep(LOOK_EVERY)
    departure.leave("it is replaced", EXIT_STATUS)
