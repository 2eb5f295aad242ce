"""What people ask of workers: leave a queue alone, end, or have another number of slots.

A wish stands in PostgreSQL until it is done, so a worker that was away, or starts again, finds it. Workers are notified
and look now and then; a paused queue is besides guarded by the start itself (`app.scheduling.statements`).
"""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select, text, update
from sqlalchemy.orm import Session

from app.errors import Conflict, NotFound
from app.scheduling.models import NOW, QueuePauseRow, WorkerRow

MOST_SLOTS = 1000
RESIZABLE = ("prefork", "threads")
# Not an id of a run: workers listen to one channel for both.
PAYLOAD = "wishes"
NOTIFY = text(f"SELECT pg_notify('upbeat_cancels', '{PAYLOAD}')")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is asked of one worker: which queues it leaves alone, whether to end, how many slots to have."""

    paused: frozenset[str]
    drain: bool
    concurrency: int | None


def paused_queues(session: Session) -> frozenset[str]:
    """The queues of which no run may start."""
    return frozenset(session.scalars(select(QueuePauseRow.queue)))


def of_worker(session: Session, worker_id: UUID) -> Wishes:
    """All that is asked of this worker."""
    row = session.execute(
        select(WorkerRow.drain_requested_at, WorkerRow.concurrency_wanted).where(WorkerRow.id == worker_id)
    ).one_or_none()
    drain, wanted = (None, None) if row is None else row
    return Wishes(paused_queues(session), drain is not None, wanted)


def answer(session: Session, worker_id: UUID, *, concurrency: int | None, refused: str | None) -> None:
    """A worker has done what it was asked for (it has so many slots now), or says why not."""
    session.execute(
        update(WorkerRow)
        .where(WorkerRow.id == worker_id)
        .values(
            concurrency=WorkerRow.concurrency if concurrency is None else concurrency,
            concurrency_wanted=None,
            wish_refused=refused,
        )
    )


def drain(session: Session, worker_id: UUID) -> WorkerRow:
    """Ask a worker to take nothing any more, and to end when its runs have ended; a repeat changes nothing.

    Raises:
        NotFound: there is none with this id.
        Conflict: it has no lease, so nobody listens.
    """
    row = _listening(session, worker_id)
    if row.drain_requested_at is None:
        row.drain_requested_at = session.execute(select(NOW)).scalar_one()
        session.flush()
        session.execute(NOTIFY)
    return row


def resize(session: Session, worker_id: UUID, change: int) -> WorkerRow:
    """Ask a worker to have ``change`` more slots, or fewer.

    Raises:
        NotFound: there is none with this id.
        Conflict: it has no lease, drains, or has a pool of another kind; or fewer than one or more than `MOST_SLOTS`
            slots would be left.
    """
    row = _listening(session, worker_id)
    if row.pool not in RESIZABLE or row.concurrency is None:
        pool = "has not told its pool yet" if row.pool is None else f"has the pool {row.pool}"
        raise Conflict(f"The worker {pool}; the pools {' and '.join(RESIZABLE)} can be resized.")
    if row.drain_requested_at is not None or row.state == "draining":
        raise Conflict("The worker drains; start another one with the slots that you want.")
    wanted = (row.concurrency if row.concurrency_wanted is None else row.concurrency_wanted) + change
    if not 1 <= wanted <= MOST_SLOTS:
        raise Conflict(f"It would have {wanted} slots; a worker has 1 to {MOST_SLOTS}. Drain it to stop it.")
    row.concurrency_wanted, row.wish_refused = wanted, None
    session.flush()
    session.execute(NOTIFY)
    return row


def _listening(session: Session, worker_id: UUID) -> WorkerRow:
    row = session.scalar(select(WorkerRow).where(WorkerRow.id == worker_id).with_for_update(key_share=True))
    if row is None:
        raise NotFound("There is no worker with this id. GET /api/v1/workers lists them.")
    now = session.execute(select(NOW)).scalar_one()
    if row.lease_expires_at <= now:
        silent = (now - row.lease_expires_at).total_seconds()
        how = "has stopped" if row.stopped_at else "does not answer: its lease ended"
        raise Conflict(
            f"The worker {how} {silent:.0f} s ago. GET /api/v1/workers?alive=true lists the others."
        )
    return row
