"""`celery beat`, and the beat inside another process: both only call the dispatcher, and wait where an edit can
wake them."""

import gc
import logging
import os
import signal
import threading
import time
from contextlib import suppress
from functools import cached_property
from typing import Any, Protocol

import psycopg
from celery.apps.beat import Beat as CeleryBeat
from celery.beat import Scheduler
from celery.beat import Service as CeleryService
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from app.db import sync_engine, sync_sessions
from app.db.listen import Listener, readable
from app.db.outages import is_away
from app.scheduling.dispatch import Dispatcher
from app.settings import get_settings
from app.worker import bookkeeping, logs, measures, registration, tracing
from app.worker.watchdog import EXIT_STATUS, Watchdog

logger = logging.getLogger(__name__)

FIRST_BACKOFF = 0.1
LONGEST_BACKOFF = 1.0
STOP_PATIENCE = 10.0


def _bite(_why: str) -> None:
    # Without `logging.shutdown`: the loop may hang in writing to the log, and hold its lock.
    os._exit(EXIT_STATUS)


class DatabaseScheduler(Scheduler):  # type: ignore[misc]
    """Fires the schedules of PostgreSQL. Built without connecting to anything."""

    def __init__(self, app: Any, lazy: bool = False, **kwargs: Any) -> None:
        # Celery's own schedule is not used, so nothing is set up for it.
        super().__init__(app, lazy=True, **kwargs)
        self._stopping = False
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_reader, False)
        os.set_blocking(self._wake_writer, False)
        self._engine: Engine | None = None
        self._away_since: float | None = None
        self._backoff = FIRST_BACKOFF
        self._watchdog = Watchdog("the beat's loop", get_settings().worker.watchdog, _bite)

    def watch(self) -> None:
        """End this process when the loop hangs."""
        self._watchdog.start()

    def wake(self, *, stop: bool = False) -> None:
        """End the current wait; safe in a signal handler."""
        self._stopping = self._stopping or stop
        if stop:
            self._watchdog.stop()
        with suppress(BlockingIOError):
            os.write(self._wake_writer, b".")

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """One pass, and the wait for the next; never raises, and leaves no time for others to wait."""
        self._watchdog.turned()
        try:
            self._listener.connect()
            delay = self._dispatcher.run_pass()
        except (SQLAlchemyError, psycopg.Error) as error:
            if isinstance(error, SQLAlchemyError) and not is_away(error):
                logger.exception("pass failed", extra={"action": "beat_pass_failed"})
            self._database_away(error)
        except Exception:
            logger.exception("pass failed", extra={"action": "beat_pass_failed"})
            self._wait(LONGEST_BACKOFF, None)
        else:
            self._database_back()
            self._wait(min(delay, self.max_interval), self._listener)
        return 0.0

    def close(self) -> None:
        """Complete what was claimed, and give up all connections."""
        super().close()
        self._listener.close()
        if self._engine is not None:
            # A database that is away learns nothing of a broker that is: these runs are woken later then.
            with suppress(SQLAlchemyError):
                self._dispatcher.close()
            self._engine.dispose()

    @property
    def info(self) -> str:
        """A line of the banner."""
        return "    . schedules -> PostgreSQL"

    @cached_property
    def _listener(self) -> Listener:
        return Listener(get_settings().database, name="upbeat-beat-listen")

    @cached_property
    def _dispatcher(self) -> Dispatcher:
        settings = get_settings()
        self._engine = sync_engine(settings.database, name="upbeat-beat")
        return Dispatcher(
            sync_sessions(self._engine),
            self.app.publisher,
            self.app.catalogue(),
            settings,
            name=f"beat@{os.uname().nodename}",
            version=registration.version(),
            sweeps=(self.app.backend.sweep,),
        )

    def _database_away(self, error: Exception) -> None:
        if self._away_since is None:
            self._away_since = time.monotonic()
            logger.warning(
                "the database is away: %s", bookkeeping.first_line(error), extra={"action": "database_away"}
            )
        self._listener.close()
        if self._engine is not None:
            self._engine.dispose()
        self._wait(self._backoff, None)
        self._backoff = min(LONGEST_BACKOFF, self._backoff * 2)

    def _database_back(self) -> None:
        if self._away_since is not None:
            away = time.monotonic() - self._away_since
            logger.info("the database is back after %.1f s", away, extra={"action": "database_back"})
            self._away_since = None
        self._backoff = FIRST_BACKOFF

    def _wait(self, seconds: float, listener: Listener | None) -> None:
        """Until the time is over, a schedule changed, or `wake` was called."""
        if self._stopping or seconds <= 0:
            return
        try:
            watched: list[Any] = [self._wake_reader] if listener is None else [self._wake_reader, listener]
            if listener is not None and listener.drain():
                return
            ready = readable(watched, seconds)
            if listener is not None and listener in ready:
                listener.drain()
        except psycopg.Error:
            # The next pass will find out whether the database is away.
            if listener is not None:
                listener.close()
            return
        if self._wake_reader in ready:
            with suppress(BlockingIOError):
                os.read(self._wake_reader, 4096)


class Service(CeleryService):  # type: ignore[misc]
    """Celery's loop around the scheduler, which can be stopped while that waits."""

    def start(self, embedded_process: bool = False) -> None:
        """Turn until stopped."""
        self.scheduler.watch()
        measures.serve_beat()
        tracing.switch_on("upbeat-beat")
        # What was imported stays: the collector need not go through it, which takes 70 ms, in the middle of a burst.
        gc.collect()
        gc.freeze()
        super().start(embedded_process=embedded_process)

    def stop(self, wait: bool = False) -> None:
        """Stop after the pass that is under way."""
        self.request_stop()
        if wait:
            self._is_stopped.wait()

    def request_stop(self) -> None:
        """As `stop`, safe in a signal handler: it never interrupts a transaction."""
        self._is_shutdown.set()
        self.scheduler.wake(stop=True)


class _StoppableService(Protocol):
    def request_stop(self) -> None: ...


class Beat(CeleryBeat):  # type: ignore[misc]
    """`celery -A app.worker beat`."""

    Service = Service

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if logs.in_json():
            self.quiet = True

    def install_sync_handler(self, service: _StoppableService) -> None:
        """SIGTERM and SIGINT end the wait, not the transaction."""

        def stop(_number: int, _frame: Any) -> None:
            service.request_stop()

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)


class EmbeddedBeat:
    """The same beat in a thread of another process, such as the API's."""

    def __init__(self, app: Any) -> None:
        self._scheduler = DatabaseScheduler(app)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="upbeat-beat", daemon=True)

    def start(self) -> None:
        """Begin; returns at once, whether the database is there or not."""
        self._scheduler.watch()
        self._thread.start()

    def stop(self) -> None:
        """End after the pass that is under way, and wait for that."""
        self._stopping.set()
        self._scheduler.wake(stop=True)
        self._thread.join(STOP_PATIENCE)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._scheduler.tick()
        self._scheduler.close()
