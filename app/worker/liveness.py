"""A worker's lease: taken before its first run, renewed by a thread of the main process, given back.

The thread has connections of its own and asks nothing of Celery's event loop, whose timers stand
still while the broker is being reconnected. What the main process could not record because the
database was away is recorded by this thread when it is back.
"""

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from celery import signals
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.db.outages import is_away
from app.scheduling import tally
from app.scheduling.ids import new_id
from app.scheduling.liveness import register_worker, renew_lease, retire_worker
from app.settings import get_settings
from app.worker import bookkeeping

logger = logging.getLogger(__name__)

STARTUP_PAUSE = 1.0
OUTAGE_PAUSE = 1.0
# Of the lease: what is left of it when runs are stopped.
ENDING_SHARE = 0.3

Work = Callable[[Session], Any]


class Lease:
    """The lease of one worker; its id names the worker from its start to its end."""

    def __init__(self, name: str, queues: Sequence[str]) -> None:
        self.id = new_id()
        self.name = name
        self.pid = os.getpid()
        self._queues = list(queues)
        self._settings = get_settings().worker
        self._stopping = threading.Event()
        self._postponed: queue.SimpleQueue[Work] = queue.SimpleQueue()
        self._ending: Callable[[], object] | None = None
        self._renewed: Callable[[], object] | None = None
        self._ended = False
        self._renewed_at = time.monotonic()
        self._thread = threading.Thread(target=self._keep, name="upbeat-lease", daemon=True)

    def take(self) -> None:
        """Register, waiting for the database if it is away, and keep the lease from then on."""
        while True:
            try:
                asked_at = time.monotonic()
                bookkeeping.transact(self._register)
                self._renewed_at = asked_at
            except SQLAlchemyError as error:
                if not is_away(error):
                    raise
                logger.warning("waiting for the database: %s", bookkeeping.first_line(error))
                time.sleep(STARTUP_PAUSE)
            else:
                break
        self._thread.start()
        # A thread of its own: a try to renew may hang for longer than the lease has left.
        threading.Thread(target=self._mind, name="upbeat-lease-end", daemon=True).start()

    def when_ending(self, work: Callable[[], object]) -> None:
        """Do ``work`` once when the lease is about to end because it cannot be renewed."""
        self._ending = work

    def when_renewed(self, work: Callable[[], object]) -> None:
        """Do ``work`` after each renewal, in the lease's thread; what it raises is logged."""
        self._renewed = work

    def postpone(self, work: Work) -> None:
        """Leave ``work`` to the thread, which tries until the database takes it."""
        self._postponed.put(work)

    def give_back(self) -> None:
        """Stop renewing and end the lease; what still runs is lost."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(2 * OUTAGE_PAUSE)
        try:
            self._record_postponed()
            bookkeeping.transact(lambda session: retire_worker(session, self.id))
        except SQLAlchemyError as error:
            logger.warning("the lease ends by itself: %s", bookkeeping.first_line(error))

    def _register(self, session: Session) -> None:
        register_worker(
            session, self.id, name=self.name, pid=self.pid, queues=self._queues, lease=self._settings.lease
        )

    def _keep(self) -> None:
        due = time.monotonic() + self._settings.lease_renewal
        while not self._stopping.wait(min(OUTAGE_PAUSE, max(0.0, due - time.monotonic()))):
            try:
                renews = time.monotonic() >= due
                if renews:
                    self._renew()
                    due = time.monotonic() + self._settings.lease_renewal
                self._record_postponed()
                if renews and self._renewed is not None:
                    self._renewed()
            except Exception as error:  # noqa: BLE001 - the thread must outlive every outage
                tally.count("lease", label="failed")
                logger.warning(
                    "lease not renewed: %s", bookkeeping.first_line(error), extra={"action": "lease"}
                )
                due = time.monotonic() + OUTAGE_PAUSE

    def _mind(self) -> None:
        """When the lease cannot be kept, what another worker may start again must stop before it ends."""
        while not self._stopping.wait(min(OUTAGE_PAUSE, self._settings.lease / 20)):
            self._mind_the_end()

    def _mind_the_end(self) -> None:
        left = self._renewed_at + self._settings.lease - time.monotonic()
        if left > self._settings.lease * ENDING_SHARE:
            self._ended = False
        elif not self._ended and self._ending is not None:
            self._ended = True
            try:
                self._ending()
            except Exception:
                logger.exception("runs were not stopped", extra={"action": "lease"})

    def _renew(self) -> None:
        asked_at = time.monotonic()
        if not bookkeeping.transact(lambda session: renew_lease(session, self.id, self._settings.lease)):
            logger.warning("this worker was forgotten and registers again", extra={"action": "lease"})
            bookkeeping.transact(self._register)
        self._renewed_at = asked_at
        tally.count("lease", label="done")

    def _record_postponed(self) -> None:
        for _ in range(self._postponed.qsize()):
            work = self._postponed.get()
            try:
                bookkeeping.transact(work)
            except SQLAlchemyError:
                self._postponed.put(work)
                raise


_lease: Lease | None = None


def worker_id() -> UUID:
    """The id of the worker that this process belongs to.

    Raises:
        RuntimeError: this is not a worker.
    """
    return lease().id


def lease() -> Lease:
    """This worker's lease; in a pool child, the one of its parent.

    Raises:
        RuntimeError: this is not a worker.
    """
    if _lease is None:
        raise RuntimeError("this process is not a worker")
    return _lease


def in_main_process() -> bool:
    """Whether this is the process that keeps the lease."""
    return _lease is not None and _lease.pid == os.getpid()


def in_pool_child() -> bool:
    """Whether this is a process of the prefork pool, whose parent keeps the hard limits of its runs."""
    return _lease is not None and _lease.pid != os.getpid()


@signals.worker_init.connect(weak=False)
def _take(sender: Any, **_: Any) -> None:
    global _lease  # noqa: PLW0603 - one worker per process
    _lease = Lease(sender.hostname, list(sender.app.amqp.queues.consume_from))
    _lease.take()


@signals.worker_shutdown.connect(weak=False)
def _give_back(**_: Any) -> None:
    if in_main_process():
        lease().give_back()
        bookkeeping.close()
