"""Where a canary that did not come back has stopped. Pure.

The hops: beat (fires the tick), database (stores the run), broker (takes the wake-up), worker (takes it from the
queue and starts the run), task (runs), database again (stores the outcome).
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from app.cli.doctor.findings import Finding, fail, ok


@dataclass(frozen=True, slots=True)
class Journey:
    """What is known of a canary. ``fired_for`` is the tick that made it, None if it was sent directly."""

    queue: str
    state: str
    reason: str | None
    error: str | None
    created_at: datetime
    published_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    worker: str | None
    fired_for: datetime | None = None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What else is known when a canary has not come back within ``patience`` seconds.

    ``refused`` is why the broker did not take a wake-up. ``length`` is how many messages lie in the queue, None if the
    broker does not say. ``listening`` are the workers that take from the queue by their leases, ``answering`` those
    that answer over the broker, ``busy`` how many runs they execute. ``paused`` is why the queue is paused, None when it is not.
    """

    patience: float
    refused: str | None
    length: int | None
    listening: Collection[str]
    answering: Collection[str]
    busy: int
    paused: str | None = None


def arrived(check: str, journey: Journey) -> Finding:
    """A canary that succeeded, with the time that each hop took."""
    made = journey.created_at
    parts = []
    if journey.fired_for is not None:
        parts.append(f"beat fired it {_ms(journey.fired_for, made)} after its time")
    parts.append(f"sent after {_ms(made, journey.published_at or made)}")
    parts.append(f"started by {journey.worker} after {_ms(journey.published_at or made, journey.started_at)}")
    parts.append(f"ran and was recorded in {_ms(journey.started_at, journey.finished_at)}")
    return ok(check, f"{_ms(journey.fired_for or made, journey.finished_at)} in all: {', '.join(parts)}")


def stopped(check: str, journey: Journey, around: Surroundings) -> Finding:
    """A canary that did not succeed: the hop, and the remedy."""
    if journey.state == "queued":
        return _not_started(check, journey, around)
    if journey.state == "running":
        return fail(
            check,
            f"hop task: {journey.worker} started it, and has not ended it within {around.patience:g} s",
            "The worker's children are stuck or starved: look at its host's load, and restart it: `upbeat restart worker`.",
        )
    if journey.reason == "task_not_registered":
        return fail(
            check,
            "hop worker: a worker took it that does not know the task: it runs other code",
            "Start all workers from the same release: `upbeat restart worker` on each host.",
        )
    return fail(
        check,
        f"hop task: it is {journey.state}: {journey.error or journey.reason or 'without a reason'}",
        "Look at `upbeat logs worker 100`.",
    )


def not_fired(check: str, patience: float, *, beats: int) -> Finding:
    """The canary's tick has passed, and nobody has made its run."""
    if not beats:
        return fail(
            check, "hop beat: no beat is alive, so the tick was not fired", "Start one: `upbeat start beat`."
        )
    return fail(
        check,
        f"hop beat: {beats} beats are alive by their last pass, and none fired the tick within {patience:g} s",
        "It hangs or is starved: `upbeat logs beat 50`, then `upbeat restart beat`.",
    )


def _not_started(check: str, journey: Journey, around: Surroundings) -> Finding:
    queue = journey.queue
    if around.paused is not None:
        return fail(
            check,
            f"hop worker: the queue {queue} is paused: {around.paused}",
            f"When its reason is gone: `upbeat queues resume {queue}`.",
        )
    if around.refused is not None or around.length is None:
        return fail(
            check,
            f"hop broker: Redis did not take the wake-up: {around.refused or 'it does not answer'}",
            "Mend what it names; the run waits in PostgreSQL, and a beat sends it again.",
        )
    if not around.listening:
        return fail(
            check, f"hop worker: no living worker takes from {queue}", "Start one: `upbeat start worker`."
        )
    names = ", ".join(sorted(around.listening))
    silent = sorted(set(around.listening) - set(around.answering))
    if silent:
        return fail(
            check,
            f"hop worker: {', '.join(silent)} holds a lease and does not answer over this broker: it is frozen, or"
            " connected to another Redis",
            "Compare REDIS_URL and CELERY_BROKER_URL of the worker with those here; then `upbeat restart worker`.",
        )
    if around.length == 0:
        return fail(
            check,
            "hop worker: the wake-up was taken from the queue, and the run was not started",
            "A worker that uses another database took it, or one that could not reach this one: compare DATABASE_URL"
            f" and CELERY_DATABASE_NAME of {names} with those here, and look at `upbeat logs worker 50`.",
        )
    return fail(
        check,
        f"hop worker: {names} answers, and did not take the run within {around.patience:g} s: {around.busy} runs"
        f" keep it busy, {around.length} messages lie in {queue}",
        "Wait, or start more workers; `upbeat inspect active` says what runs, `upbeat inspect queues` what waits.",
    )


def _ms(since: datetime | None, until: datetime | None) -> str:
    if since is None or until is None:
        return "an unknown time"
    return f"{max(0.0, (until - since).total_seconds() * 1000):.0f} ms"
