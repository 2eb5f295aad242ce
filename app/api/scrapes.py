"""Prometheus metrics of the whole: what waits, who is there, what the broker holds.

What has happened is counted where it happens: by workers and beats, at their own ports.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import anyio
import structlog
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.db.outages import is_away
from app.scheduling.backlog import Backlog
from app.scheduling.messages import BrokerUnavailable, Survey
from app.scheduling.observing import Observer
from app.worker import counters
from app.worker.measures import measures
from app.worker.publisher import CeleryPublisher

T = TypeVar("T")

FRESH = 5.0
# What this process itself has done: cancelled runs, the work of a beat inside it.
OWN = (
    "upbeat_runs_total",
    "upbeat_publish_failures_total",
    "upbeat_schedules_fired_total",
    "upbeat_runs_dispatched_total",
    "upbeat_beat_passes_total",
    "upbeat_logins_total",
)
PATIENCE = 2.0

log = structlog.get_logger(__name__)


class Whole(Collector):
    """What one look found; None where nobody answered."""

    def __init__(self, backlog: Backlog | None, survey: Survey | None, counts: dict[str, int] | None) -> None:
        self._backlog = backlog
        self._survey = survey
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        """The metric families."""
        yield _gauge("upbeat_database_up", "Whether the database answers.", self._backlog is not None)
        yield _gauge("upbeat_broker_up", "Whether the broker answers.", self._survey is not None)
        if self._backlog is not None:
            yield from _stored(self._backlog)
        if self._survey is not None:
            lengths = GaugeMetricFamily(
                "upbeat_queue_length", "Messages that no worker has taken.", labels=["queue"]
            )
            for queue, length in self._survey.lengths.items():
                lengths.add_metric([queue], length)
            yield lengths
        if self._counts is not None:
            yield from _counted(self._counts)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=float(value))


def _stored(backlog: Backlog) -> Iterator[Metric]:
    active = GaugeMetricFamily(
        "upbeat_active_runs",
        "Runs that are not over: queued, held by a limit, delayed, blocked or running.",
        labels=["task", "queue", "state"],
    )
    oldest: dict[str, float] = {}
    for each in backlog.runs:
        active.add_metric([each.task, each.queue, each.state], each.number)
        if each.state == "queued":
            oldest[each.queue] = max(each.oldest, oldest.get(each.queue, 0.0))
    yield active
    ages = GaugeMetricFamily(
        "upbeat_queue_oldest_age_seconds", "Since the earliest queued run was due.", labels=["queue"]
    )
    for queue, age in oldest.items():
        ages.add_metric([queue], age)
    yield ages
    workers = GaugeMetricFamily("upbeat_workers", "Workers that hold a lease.", labels=["state"])
    for state, number in backlog.workers.items():
        workers.add_metric([state], number)
    yield workers
    if backlog.beat_age is not None:
        yield _gauge(
            "upbeat_beat_last_pass_age_seconds", "Since the last good pass of any beat.", backlog.beat_age
        )


def _counted(counts: dict[str, int]) -> Iterator[Metric]:
    yield CounterMetricFamily(
        "upbeat_messages_suppressed",
        "Messages that found nothing to start, of all workers.",
        value=counts.get("suppressed", 0),
    )
    refused = CounterMetricFamily(
        "upbeat_messages_refused",
        "Messages removed because nothing can be done with them, of all workers.",
        labels=["problem"],
    )
    for name, number in counts.items():
        kind, _, problem = name.partition(":")
        if kind == "refused":
            refused.add_metric([problem], number)
    yield refused


class Scrapes:
    """Looks once for all who scrape within a few seconds, so that they cost no more than one."""

    def __init__(self, observer: Observer, publisher: CeleryPublisher) -> None:
        measures.count_here()
        self._observer = observer
        self._publisher = publisher
        self._lock = asyncio.Lock()
        self._text = b""
        self._at = 0.0
        self._limiter = anyio.CapacityLimiter(2)

    async def text(self) -> bytes:
        """The metrics in Prometheus's text format, a few seconds old at most."""
        async with self._lock:
            if time.monotonic() - self._at > FRESH or not self._text:
                backlog, survey, counts = await asyncio.gather(
                    self._backlog(), self._broker(self._publisher.survey), self._broker(counters.read)
                )
                registry = CollectorRegistry()
                registry.register(Whole(backlog, survey, counts))
                own = generate_latest(measures.registry.restricted_registry(OWN))
                self._text, self._at = generate_latest(registry) + own, time.monotonic()
            return self._text

    async def _backlog(self) -> Backlog | None:
        try:
            async with asyncio.timeout(2 * PATIENCE):
                return await self._observer.backlog()
        except Exception as error:
            if not is_away(error):
                raise
            log.warning("database does not answer", action="metrics", cause=type(error).__name__)
            return None

    async def _broker(self, ask: Callable[[], T]) -> T | None:
        try:
            with anyio.fail_after(PATIENCE):
                return await anyio.to_thread.run_sync(ask, abandon_on_cancel=True, limiter=self._limiter)
        except (BrokerUnavailable, TimeoutError) as error:
            log.warning("broker does not answer", action="metrics", cause=str(error) or "no answer in time")
            return None
