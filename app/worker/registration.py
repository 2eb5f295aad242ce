"""What a worker says of itself in its row, and the watch over its main loop."""

import threading
from functools import partial
from importlib import metadata
from typing import Any

from celery import signals
from celery.concurrency.prefork import TaskPool as Prefork
from celery.concurrency.solo import TaskPool as Solo
from celery.concurrency.thread import TaskPool as Threads
from celery.worker import state

from app.scheduling.liveness import describe_worker
from app.settings import get_settings
from app.worker import departure, liveness
from app.worker.transport import Transport
from app.worker.watchdog import EXIT_STATUS, Watchdog

_POOLS = {Prefork: "prefork", Threads: "threads", Solo: "solo"}


def version() -> str:
    """The version of this code; a checkout that was not installed has none."""
    try:
        return metadata.version("upbeat")
    except metadata.PackageNotFoundError:
        return "unreleased"


def tell(**columns: Any) -> None:
    """Leave it to the lease's thread to write these columns of the worker's row."""
    lease = liveness.lease()
    lease.postpone(partial(describe_worker, worker_id=lease.id, columns=columns))


class _Watch:
    """The watchdog of this process's main loop; it may be told of turns before it exists."""

    def __init__(self) -> None:
        self.dog: Watchdog | None = None

    def turned(self) -> None:
        if self.dog is not None:
            self.dog.turned()


_watch = _Watch()
turned = _watch.turned


@signals.worker_ready.connect(weak=False)
def _ready(sender: Any, **_: Any) -> None:
    pool, hub = sender.pool, sender.hub
    name = next((name for kind, name in _POOLS.items() if isinstance(pool, kind)), type(pool).__name__)
    tell(state="ready", pool=name, concurrency=sender.controller.concurrency, version=version())
    if hub is None or _watch.dog is not None:
        return
    # In the solo pool the loop itself executes the runs, each for as long as it takes.
    busy = (lambda: bool(state.active_requests)) if isinstance(pool, Solo) else None
    _watch.dog = Watchdog("the worker's main loop", get_settings().worker.watchdog, _bite, busy)
    hub.on_tick.add(turned)
    # A heartbeat that finds no Redis tries in the main loop until there is one.
    Transport.trying = staticmethod(_tried)
    _watch.dog.start()


def _tried() -> None:
    if threading.current_thread() is threading.main_thread():
        turned()


def _bite(why: str) -> None:
    departure.leave(why, EXIT_STATUS)


@signals.worker_shutting_down.connect(weak=False)
def _shutting_down(**_: Any) -> None:
    if _watch.dog is not None:
        _watch.dog.stop()
    if threading.current_thread() is threading.main_thread() and liveness.in_main_process():
        tell(state="draining")
