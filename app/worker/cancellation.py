"""Stopping runs that somebody cancelled: first by asking, then by force.

The worker's main process listens, and looks now and then, for cancellations of its own runs. A coroutine
is cancelled in its loop and cleans up, in the threads and solo pools here, in a prefork child by a signal
to that. What still runs after `UPBEAT_WORKER_CANCEL_GRACE` seconds is recorded as cancelled, and then its
child is killed; in the other pools, where a plain function cannot be stopped, the worker is replaced.
"""

import logging
import os
import signal
import threading
import time
from contextlib import suppress
from typing import Any

import psycopg
from billiard.process import active_children
from celery import signals
from celery.worker import state
from sqlalchemy.exc import SQLAlchemyError

from app.db.listen import Listener, readable
from app.scheduling import cancelling
from app.scheduling.cancelling import Asked
from app.scheduling.canvas import as_run_id
from app.scheduling.wishes import PAYLOAD
from app.settings import get_settings
from app.worker import bookkeeping, bridge, departure, liveness, outcomes, replacement
from app.worker.obedience import Obedience

logger = logging.getLogger(__name__)

CHANNEL = "upbeat_cancels"
SIGNAL = signal.SIGUSR2
ASK_AGAIN = 1.0
LONGEST_PAUSE = 5.0


class Cancellations(threading.Thread):
    """Watches for cancellations of the runs of this worker, and for what else is asked of it."""

    def __init__(self, consumer: Any) -> None:
        super().__init__(name="upbeat-cancels", daemon=True)
        self._app = consumer.app
        self._obedience = Obedience(consumer)
        self._settings = get_settings()
        self._listener = Listener(self._settings.database, channel=CHANNEL, name="upbeat-worker-listen")

    def run(self) -> None:
        pause, look_at, obey_at = 0.0, 0.0, 0.0
        while True:
            try:
                look = self._listener.connect()
                pause = 0.0
                wait = max(0.0, min(look_at, obey_at) - time.monotonic())
                ready = readable([self._listener], 0.0 if look else wait)
                heard = self._listener.payloads() if ready else []
                if look or PAYLOAD in heard or time.monotonic() >= obey_at:
                    obey_at = time.monotonic() + self._obedience.look()
                if look or time.monotonic() >= look_at or any(each in state.requests for each in heard):
                    look_at = time.monotonic() + self._look()
            except (psycopg.Error, SQLAlchemyError) as error:
                logger.debug("cancellations are not heard: %s", bookkeeping.first_line(error))
                self._listener.close()
                pause = min(LONGEST_PAUSE, max(0.2, pause * 2))
                time.sleep(pause)
            except Exception:
                logger.exception("a cancellation failed", extra={"action": "cancel_failed"})
                look_at = obey_at = time.monotonic() + ASK_AGAIN

    def _look(self) -> float:
        """Do what is asked for; answers in how many seconds to look again."""
        worker_id = liveness.worker_id()
        asked = bookkeeping.transact(lambda session: cancelling.asked(session, worker_id))
        grace = self._settings.worker.cancel_grace
        for each in asked:
            if each.forced or each.seconds >= grace:
                self._force(each)
            else:
                self._ask(each)
        if not asked:
            return self._settings.worker.lease_renewal
        return min(ASK_AGAIN, *(max(0.05, grace - each.seconds) for each in asked))

    def _ask(self, asked: Asked) -> None:
        if asked.process == os.getpid():
            bridge.cancel((asked.run_id, asked.attempt), _error(asked))
        else:
            _signal(asked.process, SIGNAL)

    def _force(self, asked: Asked) -> None:
        outcome = outcomes.outcome_of(_error(asked))
        if outcomes.finish(self._app, asked.run_id, asked.attempt, outcome) is None:
            return
        logger.warning(
            "run %s is stopped by force",
            asked.run_id,
            extra={"action": "run_killed", "run_id": str(asked.run_id)},
        )
        if asked.process == os.getpid():
            bridge.cancel((asked.run_id, asked.attempt), _error(asked), again=True)
            replacement.begin(f"run {asked.run_id} cannot be stopped", {str(asked.run_id)})
        else:
            _signal(asked.process, signal.SIGKILL)


def stop_restartable() -> None:
    """Stop, without asking the database, the runs that another worker is about to start again."""
    stopped: set[bridge.Key] = set()
    for request in departure.held():
        run_id = as_run_id(request.id)
        if run_id is None or not request.request_dict.get("upbeat_restartable"):
            continue
        logger.warning(
            "run %s is stopped: this worker's lease ends, and another one may start it",
            request.id,
            extra={"action": "run_given_up", "run_id": request.id},
        )
        if request.worker_pid not in (None, os.getpid()):
            with suppress(ProcessLookupError):
                os.kill(request.worker_pid, signal.SIGKILL)
        elif (key := (run_id, (request.request_dict.get("retries") or 0) + 1)) not in stopped:
            stopped.add(key)
            ended = bridge.CoroutineCancelled("the lease of its worker ended")
            if not bridge.cancel(key, ended, again=True):
                replacement.begin(f"run {request.id} cannot be stopped", {request.id})


def _error(asked: Asked) -> bridge.RunCancelled:
    return bridge.RunCancelled(asked.reason, asked.note)


def _signal(process: int, number: int) -> None:
    """Signal a child of the pool. Who executes a run is in its start, not in Celery's books: those have one entry for
    all messages of a run, and lose it when the first of them has ended."""
    if any(child.pid == process for child in active_children()):
        with suppress(ProcessLookupError):
            os.kill(process, number)


def _asked_in_child(_number: int, _frame: Any) -> None:
    """A run of this child is to be stopped; the signal cannot say which, so the database is asked."""
    for key, loop in bridge.running():
        loop.call_soon_threadsafe(loop.run_in_executor, None, _cancel_if_asked, key)


def _cancel_if_asked(key: bridge.Key) -> None:
    found = bookkeeping.transact(lambda session: cancelling.asked_one(session, *key))
    if found is not None:
        bridge.cancel(key, bridge.RunCancelled(*found))


@signals.worker_process_init.connect(weak=False)
def _in_child(**_: Any) -> None:
    signal.signal(SIGNAL, _asked_in_child)


@signals.worker_ready.connect(weak=False)
def _begin(sender: Any, **_: Any) -> None:
    liveness.lease().when_ending(stop_restartable)
    Cancellations(sender).start()
