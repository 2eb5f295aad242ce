"""Prometheus metrics of this process, and of the pool's children in their parent.

prometheus-client's own way with many processes is a folder of files, one for each process that ever
was, which are all read at each scrape; children that are replaced would make it grow. Here children
send what happened to their parent, through one socket pair, and only the parent has metrics.
"""

import json
import logging
import os
import socket
import threading
import time
from dataclasses import asdict
from typing import Any

from celery import signals
from celery.worker import state
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from app.scheduling import tally
from app.scheduling.tally import Began, Counted, Ended, Happening, Requeued
from app.settings import get_settings

logger = logging.getLogger(__name__)

LATENESS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
DURATION = (0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600)
LONGEST_NOTE = 4096

_KINDS = {kind.__name__: kind for kind in (Began, Ended, Requeued, Counted)}
_COUNTED = {
    "lease": ("upbeat_lease_renewals", "Tries to renew the worker's lease.", "outcome"),
    "held": ("upbeat_starts_held", "Starts put off because a limit was reached.", "reason"),
    "suppressed": ("upbeat_messages_suppressed", "Messages that found nothing to start.", None),
    "refused": (
        "upbeat_messages_refused",
        "Messages removed because nothing can be done with them.",
        "problem",
    ),
    "publish_failed": ("upbeat_publish_failures", "Wake-ups that the broker did not take.", None),
    "beat_pass": ("upbeat_beat_passes", "Passes of the beat.", "outcome"),
    "fired": ("upbeat_schedules_fired", "Schedules whose due ticks were decided.", None),
    "login": ("upbeat_logins", "Logins, those that were refused too.", "outcome"),
    "dispatched": ("upbeat_runs_dispatched", "Runs woken (again) by the beat.", None),
}


class Measures:
    """The metrics, and the way of what happened to them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._pid = os.getpid()
        self._take = self.take  # one object, that is recognised when given again
        self._to_parent: socket.socket | None = None
        both, task, own = ("task", "queue"), ("task",), self.registry
        self._ended = Counter("upbeat_runs", "Runs that are over.", (*both, "state"), registry=own)
        self._requeued = Counter(
            "upbeat_attempts_requeued", "Attempts followed by another.", (*both, "outcome"), registry=own
        )
        self._duration = Histogram(
            "upbeat_run_duration_seconds",
            "From start to end of a run's last attempt.",
            task,
            buckets=DURATION,
            registry=own,
        )
        self._start = Histogram(
            "upbeat_start_lateness_seconds",
            "From when a run was due to its start.",
            ("queue",),
            buckets=LATENESS,
            registry=own,
        )
        self._dispatch = Histogram(
            "upbeat_dispatch_lateness_seconds",
            "From when a run was due to the message that started it.",
            ("queue",),
            buckets=LATENESS,
            registry=own,
        )
        self._counted = {
            what: Counter(name, text, (label,) if label else (), registry=own)
            for what, (name, text, label) in _COUNTED.items()
        }
        self._last = {what: time.monotonic() for what in ("lease", "beat_pass")}

    def take(self, happening: Happening) -> None:
        """Count it here, or in the parent; never blocks and never fails."""
        if os.getpid() == self._pid:
            self._apply(happening)
        elif self._to_parent is not None:
            note = json.dumps([type(happening).__name__, asdict(happening)]).encode()
            try:
                self._to_parent.send(note[:LONGEST_NOTE], socket.MSG_DONTWAIT)
            except OSError:
                logger.debug("a measure was lost", extra={"action": "measure_lost"})

    def age(self, what: str) -> float:
        """Seconds since the last success."""
        return time.monotonic() - self._last[what]

    def serve(self) -> None:
        """Answer scrapes at the port that is set, if one is."""
        settings = get_settings().metrics
        if settings.port is None:
            return
        self._pid = os.getpid()
        self.count_here()
        try:
            server, _ = start_http_server(settings.port, settings.host, self.registry)
        except OSError as error:
            logger.error(  # noqa: TRY400 - the cause is all there is to say
                "no metrics at %s:%d: %s",
                settings.host,
                settings.port,
                error,
                extra={"action": "metrics_port"},
            )
            return
        os.register_at_fork(after_in_child=server.socket.close)

    def count_here(self) -> None:
        """Count what this process does; somebody else shows it."""
        tally.listen(self._take)

    def hear_children(self) -> None:
        """Before the pool forks: a way from its children to here."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._to_parent = theirs
        threading.Thread(target=self._hear, args=(ours,), name="upbeat-measures", daemon=True).start()

    def _hear(self, ours: socket.socket) -> None:
        while True:
            try:
                name, values = json.loads(ours.recv(LONGEST_NOTE))
                self._apply(_KINDS[name](**values))
            except (ValueError, KeyError, TypeError):
                logger.debug("a measure was not understood", extra={"action": "measure_lost"})

    def _apply(self, happening: Happening) -> None:
        if isinstance(happening, Began):
            self._start.labels(happening.queue).observe(max(0.0, happening.start_lateness))
            if happening.dispatch_lateness is not None:
                self._dispatch.labels(happening.queue).observe(max(0.0, happening.dispatch_lateness))
        elif isinstance(happening, Ended):
            self._ended.labels(happening.task, happening.queue, happening.state).inc(happening.number)
            if happening.seconds is not None:
                self._duration.labels(happening.task).observe(max(0.0, happening.seconds))
        elif isinstance(happening, Requeued):
            self._requeued.labels(happening.task, happening.queue, happening.outcome).inc()
        else:
            counter = self._counted[happening.what]
            (counter.labels(happening.label) if happening.label else counter).inc(happening.number)
            if happening.label == "done":
                self._last[happening.what] = time.monotonic()


measures = Measures()


def _gauge(name: str, text: str, read: Any) -> None:
    Gauge(name, text, registry=measures.registry).set_function(read)


def serve_beat() -> None:
    """The metrics of a beat process."""
    _gauge(
        "upbeat_beat_last_pass_age_seconds",
        "Since the last good pass of this beat.",
        lambda: measures.age("beat_pass"),
    )
    measures.serve()


@signals.worker_init.connect(weak=False)
def _serve_worker(**_: Any) -> None:
    if get_settings().metrics.port is None:
        return
    _gauge("upbeat_active_runs", "Runs that this worker executes.", lambda: len(state.active_requests))
    _gauge("upbeat_lease_age_seconds", "Since the last renewal of the lease.", lambda: measures.age("lease"))
    measures.hear_children()
    measures.serve()
