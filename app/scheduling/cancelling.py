"""Cancelling runs, one or many, and what a worker asks about its own."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.scheduling import runs
from app.scheduling.ids import process_of
from app.scheduling.policies import Reason
from app.scheduling.states import RunState

_NOTE = text("""
UPDATE celery_task_runs
SET cancel_note = COALESCE(cancel_note, :note), cancel_forced = cancel_forced OR :force
WHERE id = :id AND state = 'running'
""")

_ASKED = text("""
SELECT id, attempt, cancel_reason, cancel_note, cancel_forced, start_token,
       EXTRACT(EPOCH FROM clock_timestamp() - cancel_requested_at)::float AS seconds
FROM celery_task_runs
WHERE worker_id = :worker_id AND state = 'running' AND cancel_requested_at IS NOT NULL
""")

_ASKED_ONE = text("""
SELECT cancel_reason, cancel_note
FROM celery_task_runs
WHERE id = :id AND attempt = :attempt AND state = 'running' AND cancel_requested_at IS NOT NULL
""")


@dataclass(frozen=True, slots=True)
class Asked:
    """A running attempt that somebody wants to end; ``seconds`` ago. ``process``: of its worker's host, which started
    it and executes it."""

    run_id: UUID
    attempt: int
    reason: str
    note: str | None
    forced: bool
    seconds: float
    process: int


def cancel(
    session: Session, run_id: UUID, *, force: bool = False, note: str | None = None, by: str | None = None
) -> RunState | None:
    """Cancel a run: a queued one never starts, a running one is asked to stop; with ``force`` without grace.

    Answers the state that it is in now: CANCELLED, or RUNNING until its worker has stopped it; None if it
    had ended before.
    """
    said = _said(note, by)
    error = {"type": "Cancelled", "message": said, "traceback": None}
    if runs.end_queued(session, run_id, RunState.CANCELLED, Reason.CANCELLED_BY_USER, error=error):
        return RunState.CANCELLED
    session.execute(_NOTE, {"id": run_id, "note": said, "force": force})
    return runs.cancel(session, run_id)


def asked(session: Session, worker_id: UUID) -> list[Asked]:
    """The attempts of a worker that are to be stopped."""
    return [
        Asked(
            row.id,
            row.attempt,
            row.cancel_reason,
            row.cancel_note,
            row.cancel_forced,
            row.seconds,
            process_of(row.start_token),
        )
        for row in session.execute(_ASKED, {"worker_id": worker_id})
    ]


def asked_one(session: Session, run_id: UUID, attempt: int) -> tuple[str, str | None] | None:
    """Reason and note if this attempt is to be stopped."""
    row = session.execute(_ASKED_ONE, {"id": run_id, "attempt": attempt}).one_or_none()
    return None if row is None else (row.cancel_reason, row.cancel_note)


def _said(note: str | None, by: str | None) -> str:
    who = f"Cancelled by {by}" if by else "Cancelled"
    return f"{who}: {note}" if note else f"{who}."
