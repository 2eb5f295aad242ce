"""Who is alive: workers hold a lease, beats leave the time of their last good pass."""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import CursorResult, select, update
from sqlalchemy.orm import Session

from app.scheduling import statements
from app.scheduling.ids import process_of
from app.scheduling.models import RunRow, WorkerRow
from app.scheduling.states import RunState


def register_worker(
    session: Session, worker_id: UUID, *, name: str, pid: int, queues: Sequence[str], lease: float
) -> None:
    """Give a worker its lease of ``lease`` seconds; without one it can start nothing."""
    session.execute(
        statements.REGISTER_WORKER,
        {"id": worker_id, "name": name, "pid": pid, "queues": json.dumps(list(queues)), "lease": lease},
    )


def describe_worker(session: Session, worker_id: UUID, columns: Mapping[str, Any]) -> None:
    """Write what a worker says of itself: state, pool, concurrency, version."""
    session.execute(
        update(WorkerRow).where(WorkerRow.id == worker_id, WorkerRow.stopped_at.is_(None)).values(**columns)
    )


def renew_lease(session: Session, worker_id: UUID, lease: float) -> bool:
    """Prolong the lease from now; False if the worker is not registered or has stopped."""
    result = session.execute(statements.RENEW_LEASE, {"id": worker_id, "lease": lease})
    return isinstance(result, CursorResult) and result.rowcount == 1


def renew_expired_lease(session: Session, worker_id: UUID, lease: float) -> bool:
    """As `renew_lease`, but only if it has run out; then what the worker ran before may have been given up."""
    result = session.execute(statements.RENEW_EXPIRED_LEASE, {"id": worker_id, "lease": lease})
    return isinstance(result, CursorResult) and result.rowcount == 1


def executed_by(session: Session, worker_id: UUID) -> dict[tuple[UUID, int], int]:
    """The runs that a worker executes, with their attempt, and which process of its host has started each."""
    rows = session.execute(
        select(RunRow.id, RunRow.attempt, RunRow.start_token).where(
            RunRow.state == RunState.RUNNING, RunRow.worker_id == worker_id, RunRow.start_token.is_not(None)
        )
    )
    return {(run_id, attempt): process_of(token) for run_id, attempt, token in rows if token is not None}


def retire_worker(session: Session, worker_id: UUID) -> None:
    """End the lease at once: whatever the worker still ran is lost."""
    session.execute(statements.RETIRE_WORKER, {"id": worker_id})


def heartbeat(session: Session, beat_id: UUID, *, name: str, pid: int, version: str | None = None) -> None:
    """Record a good pass of a beat."""
    session.execute(statements.BEAT_HEARTBEAT, {"id": beat_id, "name": name, "pid": pid, "version": version})
