"""How a worker ends whose runs cannot all be waited for: each is accounted for, then the process is gone."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from billiard import process
from celery import current_app, signals
from celery.worker import state
from sqlalchemy.exc import SQLAlchemyError

from app.scheduling.canvas import as_run_id
from app.scheduling.policies import Reason
from app.scheduling.runs import Outcome, RunState
from app.settings import get_settings
from app.worker import bookkeeping, liveness, outcomes, unflushed

logger = logging.getLogger(__name__)

DRAINED_STATUS = 0
ACCOUNTING = 10.0
# Seconds of these for what is still running while it is handed over.
HANDING_OVER = 1.0
LOOK_EVERY = 0.1
LAST_LINES = 1.0


_superseded = threading.Event()


def supersede() -> None:
    """Somebody else sees to the end of this worker, and calls `leave` himself."""
    _superseded.set()


def held() -> list[Any]:
    """The requests that this worker has taken and that have not ended.

    Celery's dictionary has one for all messages of a run, and loses it with the first of them that ends.
    """
    # Copied at once, the main loop changes them meanwhile.
    taken = [*list(state.reserved_requests.data), *list(state.active_requests.data)]
    return [request for each in dict.fromkeys(taken) if (request := each()) is not None]


def leave(why: str, status: int) -> None:
    """Kill the pool, end what still runs as lost or for another attempt, give the lease back, and exit."""
    left = held()
    # First: whoever may be started again elsewhere must have stopped here.
    children = _kill_children()
    outcome = Outcome(
        RunState.LOST,
        error={"type": "WorkerLost", "message": f"Its worker ended: {why}.", "traceback": None},
        reason=Reason.WORKER_LOST,
    )

    # Without children the runs stop with this process: those go back last.
    stopping = [] if children else [each for each in left if each.request_dict.get("upbeat_restartable")]

    def account() -> None:
        for request in left:
            if request not in stopping:
                _account(request.id, (request.request_dict.get("retries") or 0) + 1, outcome)
        unflushed.unflushed.close()
        liveness.lease().give_back()

    def hand_over() -> None:
        for request in stopping:
            _account(request.id, (request.request_dict.get("retries") or 0) + 1, outcome)

    # The database may be away; then the lease ends by itself, and a beat accounts for them.
    _within(ACCOUNTING - HANDING_OVER, account)
    _within(HANDING_OVER, hand_over)
    _within(LAST_LINES, logging.shutdown)
    # The pool may have made others for those that were killed.
    _kill_children()
    os._exit(status)


def _kill_children() -> bool:
    """False if there are none."""
    children = process.active_children()
    for child in children:
        with suppress(ProcessLookupError, TypeError):
            os.kill(child.pid, signal.SIGKILL)
    return bool(children)


def _within(seconds: float, work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work, name="upbeat-departure", daemon=True)
    thread.start()
    thread.join(seconds)


def _account(task_id: str, attempt: int, outcome: Outcome) -> None:
    run_id = as_run_id(task_id)
    if run_id is None:
        return
    try:
        ended = outcomes.finish(current_app, run_id, attempt, outcome)
    except SQLAlchemyError as error:
        logger.warning("run %s is left to a beat: %s", run_id, bookkeeping.first_line(error))
    else:
        logger.warning("run %s is %s", run_id, ended, extra={"action": "run_given_up", "run_id": str(run_id)})


@signals.worker_shutting_down.connect(weak=False)
def _drain(sig: str | None = None, how: str | None = None, **_: object) -> None:
    """Called in a signal handler, when a worker is asked to stop."""
    threading.Thread(target=_bound, name="upbeat-drain", daemon=True).start()


def _bound() -> None:
    """Let what runs end, for a bounded time."""
    timeout = get_settings().worker.drain_timeout
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        time.sleep(LOOK_EVERY)
    if not held():
        # All have ended; what is left is to close, which may hang as well.
        time.sleep(ACCOUNTING)
    if not _superseded.is_set():
        leave(f"it was asked to stop, and gave its runs {timeout:g} s", DRAINED_STATUS)
