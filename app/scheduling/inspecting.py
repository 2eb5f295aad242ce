"""What goes on now, as the tables know it: for `upbeat inspect`, `upbeat queues` and the doctor.

Functions take a sync session and change nothing. All that grows with the history is bounded by a limit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from app.scheduling.messages import QUEUES

BEAT_AGE = 15.0  # seconds after its last pass for which a beat counts as alive


@dataclass(frozen=True, slots=True)
class ActiveRun:
    """A run that a worker executes; ``seconds`` since its start."""

    id: UUID
    task: str
    args: list[Any]
    kwargs: dict[str, Any]
    queue: str
    worker: str | None
    attempt: int
    started_at: datetime
    seconds: float
    cancelling: bool


@dataclass(frozen=True, slots=True)
class Upcoming:
    """What is to come: the next tick of a schedule, or a run that is due later. ``id`` is its."""

    at: datetime
    kind: str
    task: str
    queue: str | None
    name: str | None
    id: UUID


@dataclass(frozen=True, slots=True)
class WaitingRun:
    """A run that is due and not started; ``blocked`` until another one has ended."""

    id: UUID
    task: str
    args: list[Any]
    kwargs: dict[str, Any]
    queue: str
    attempt: int
    due_at: datetime
    blocked: bool


@dataclass(frozen=True, slots=True)
class RevokedRun:
    """A run that was cancelled, or is asked to stop (``state`` is still running)."""

    id: UUID
    task: str
    queue: str
    state: str
    reason: str | None
    at: datetime


@dataclass(frozen=True, slots=True)
class QueueState:
    """Runs of one queue: due now, due later (or blocked), running; how many living workers take from it, and why it
    is paused, if it is."""

    queue: str
    waiting: int
    later: int
    running: int
    workers: int
    paused: str | None = None


@dataclass(frozen=True, slots=True)
class LivingWorker:
    """A worker with a lease, which lasts ``lease`` seconds more."""

    name: str
    pid: int
    queues: list[str]
    started_at: datetime
    lease: float
    running: int


@dataclass(frozen=True, slots=True)
class KnownBeat:
    """A beat; ``age`` is the seconds since its last pass."""

    name: str
    pid: int
    started_at: datetime
    age: float


_ACTIVE = text("""
SELECT id, task, args, kwargs, queue, worker, attempt, started_at,
       CAST(extract(epoch FROM clock_timestamp() - started_at) AS double precision) AS seconds,
       cancel_requested_at IS NOT NULL AS cancelling
FROM celery_task_runs
WHERE state = 'running'
ORDER BY started_at
LIMIT :limit
""")

_LATER = text("""
SELECT due_at AS at, 'run' AS kind, task, queue, NULL AS name, id
FROM celery_task_runs
WHERE next_dispatch_at IS NOT NULL AND state = 'queued' AND due_at > (SELECT clock_timestamp())
ORDER BY due_at
LIMIT :limit
""")

_TICKS = text("""
SELECT k.next_run_at AS at, 'tick' AS kind, c.task, c.task_extra_config ->> 'queue' AS queue,
       c.task_name AS name, c.id
FROM celery_periodic_task_clocks k
JOIN celery_periodic_task_configs c ON c.id = k.schedule_id
WHERE k.next_run_at IS NOT NULL
ORDER BY k.next_run_at
LIMIT :limit
""")

_WAITING = text("""
SELECT id, task, args, kwargs, queue, attempt, due_at, blocked_by IS NOT NULL AS blocked
FROM celery_task_runs
WHERE state = 'queued' AND (next_dispatch_at IS NOT NULL OR blocked_by IS NOT NULL)
  AND due_at <= (SELECT clock_timestamp())
ORDER BY due_at
LIMIT :limit
""")

_REVOKED = text("""
SELECT id, task, queue, state, COALESCE(reason, cancel_reason) AS reason,
       COALESCE(cancel_requested_at, finished_at) AS at
FROM celery_task_runs
WHERE state = 'running' AND cancel_requested_at IS NOT NULL
   OR state = 'cancelled' AND finished_at > (SELECT clock_timestamp()) - interval '1 day'
ORDER BY at DESC
LIMIT :limit
""")

_QUEUES = text("""
SELECT queue,
       count(*) FILTER (WHERE due_at <= now AND blocked_by IS NULL) AS waiting,
       count(*) FILTER (WHERE due_at > now OR blocked_by IS NOT NULL) AS later
FROM celery_task_runs, (SELECT clock_timestamp() AS now) AS clock
WHERE state = 'queued' AND (next_dispatch_at IS NOT NULL OR blocked_by IS NOT NULL)
GROUP BY queue
""")

_PAUSES = text("SELECT queue, note FROM celery_queue_pauses")

_RUNNING = text(
    "SELECT queue, count(*) AS number FROM celery_task_runs WHERE state = 'running' GROUP BY queue"
)

_WORKERS = text("""
SELECT w.name, w.pid, w.queues, w.started_at,
       CAST(extract(epoch FROM w.lease_expires_at - clock_timestamp()) AS double precision) AS lease,
       (SELECT count(*) FROM celery_task_runs r WHERE r.state = 'running' AND r.worker_id = w.id) AS running
FROM celery_workers w
WHERE w.lease_expires_at > (SELECT clock_timestamp())
ORDER BY w.name, w.started_at
""")

_BEATS = text("""
SELECT name, pid, started_at,
       CAST(extract(epoch FROM clock_timestamp() - last_pass_at) AS double precision) AS age
FROM celery_beats
ORDER BY last_pass_at DESC
""")


def active(session: Session, limit: int) -> list[ActiveRun]:
    """Runs that are executed now, the longest first."""
    return [ActiveRun(**_fields(row)) for row in session.execute(_ACTIVE, {"limit": limit})]


def upcoming(session: Session, limit: int) -> list[Upcoming]:
    """Runs that are due later and next ticks, the soonest first."""
    found = [
        Upcoming(**_fields(row))
        for statement in (_LATER, _TICKS)
        for row in session.execute(statement, {"limit": limit})
    ]
    return sorted(found, key=lambda each: each.at)[:limit]


def waiting(session: Session, limit: int) -> list[WaitingRun]:
    """Runs that could start now, the longest waiting first."""
    return [WaitingRun(**_fields(row)) for row in session.execute(_WAITING, {"limit": limit})]


def revoked(session: Session, limit: int) -> list[RevokedRun]:
    """Runs that were cancelled within a day, or are asked to stop; the newest first."""
    return [RevokedRun(**_fields(row)) for row in session.execute(_REVOKED, {"limit": limit})]


def queues(session: Session) -> list[QueueState]:
    """All queues, in their order of priority."""
    queued: dict[str, Row[Any]] = {row.queue: row for row in session.execute(_QUEUES)}
    running: dict[str, int] = {row.queue: row.number for row in session.execute(_RUNNING)}
    living = workers(session)
    notes = {row.queue: row.note for row in session.execute(_PAUSES)}
    names = [*QUEUES, *sorted({*queued, *running} - set(QUEUES))]
    return [
        QueueState(
            name,
            queued[name].waiting if name in queued else 0,
            queued[name].later if name in queued else 0,
            running.get(name, 0),
            0 if name in notes else sum(1 for worker in living if name in worker.queues),
            notes.get(name),
        )
        for name in names
    ]


def workers(session: Session) -> Sequence[LivingWorker]:
    """Workers that hold a lease now."""
    return [LivingWorker(**_fields(row)) for row in session.execute(_WORKERS)]


def beats(session: Session) -> Sequence[KnownBeat]:
    """Beats that are remembered, the one that passed last first."""
    return [KnownBeat(**_fields(row)) for row in session.execute(_BEATS)]


def living_processes(session: Session) -> set[int]:
    """Process ids of the workers and beats that are alive, on whatever host."""
    return {each.pid for each in workers(session)} | {
        each.pid for each in beats(session) if each.age < BEAT_AGE
    }


def _fields(row: Row[Any]) -> dict[str, Any]:
    return dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name has an underscore
