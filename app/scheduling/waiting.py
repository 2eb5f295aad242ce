"""Runs that wait for others: who is next, and making room for the newest.

Runs of one schedule that wait form a line: each is `blocked_by` the one before it, the first by a run that is
active. Whoever changes the line holds the schedule's clock locked. Backfilled runs have lines of their own.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from app.scheduling import limiting, run_logs, statements
from app.scheduling.policies import Reason

_LINE = "schedule_id = :schedule_id AND origin IN ('schedule', 'manual') AND state = 'queued' AND blocked_by IS NOT NULL"
_AHEAD = "schedule_id = :schedule_id AND origin = 'schedule' AND state IN ('queued', 'running') AND blocked_by IS NULL"

_LAST_IN_LINE = text(f"""
SELECT w.id
FROM celery_task_runs w
WHERE {_LINE} AND NOT EXISTS (SELECT 1 FROM celery_task_runs d WHERE d.blocked_by = w.id AND d.state = 'queued')
ORDER BY w.id DESC
LIMIT 1
""")

_ACTIVE = text(f"SELECT id, state FROM celery_task_runs WHERE {_AHEAD} AND id <> :but ORDER BY id DESC")

# Finds nothing if the run has ended meanwhile.
_MARK = text("""
UPDATE celery_task_runs SET settles = true WHERE id = :id AND state IN ('queued', 'running') RETURNING id
""")

_REPLACE = text(f"""
UPDATE celery_task_runs
SET state = 'skipped', reason = 'replaced', finished_at = clock_timestamp()
WHERE {_LINE} AND origin = 'schedule'
RETURNING {statements.ENDED}
""")

_FOLLOW = text("UPDATE celery_task_runs SET blocked_by = :after WHERE blocked_by = :id AND state = 'queued'")

# A waiting run's deadline counts from its turn.
_PROMOTE = text("""
UPDATE celery_task_runs
SET blocked_by = NULL, due_at = GREATEST(due_at, statement_timestamp()),
    next_dispatch_at = GREATEST(due_at, statement_timestamp()),
    start_deadline = GREATEST(due_at, statement_timestamp()) + (start_deadline - due_at)
WHERE blocked_by = :id AND state = 'queued'
RETURNING id
""")

# Who is waited for, and will never end: has ended, or is gone.
_STUCK = text("""
SELECT w.blocked_by
FROM celery_task_runs w
WHERE w.blocked_by IS NOT NULL AND w.state = 'queued'
  AND NOT EXISTS (SELECT 1 FROM celery_task_runs b WHERE b.id = w.blocked_by AND b.state IN ('queued', 'running'))
LIMIT 500
""")

_NOBODY = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Room:
    """Whom the next waiting run has to wait for (None: nobody), and how many that counted never started: of those
    that waited, and of those that were active."""

    blocked_by: UUID | None
    replaced: int
    cancelled: int

    @property
    def freed(self) -> int:
        return self.replaced + self.cancelled


def make_room(session: Session, schedule_id: UUID, *, replace: bool, cancel: bool) -> Room:
    """Skip what waits if it is to be replaced, cancel what is active if it is to be cancelled."""
    line = {"schedule_id": schedule_id}
    replaced: dict[UUID, UUID] = {}
    cancelled = 0
    if replace:
        rows = session.execute(_REPLACE, line).all()
        for row in rows:
            run_logs.tell_end(session, row)
        replaced = {row.id: row.blocked_by for row in rows}
        for run_id in replaced:
            session.execute(_FOLLOW, {"id": run_id, "after": _first_not_in(replaced, run_id)})
    if cancel:
        rows = session.execute(_ACTIVE, line | {"but": _NOBODY}).all()
        cancelled = sum(_cancel(session, row.id) for row in rows)
    last = session.scalar(_LAST_IN_LINE, line)
    return Room(last or active(session, schedule_id), len(replaced), cancelled)


def active(session: Session, schedule_id: UUID, *, but: UUID | None = None) -> UUID | None:
    """The newest scheduled run that is active, ``but`` that one; its end will let the next one go."""
    for row in session.execute(_ACTIVE, {"schedule_id": schedule_id, "but": but or _NOBODY}).all():
        if session.scalar(_MARK, {"id": row.id}) is not None:
            return UUID(str(row.id))
    return None


def pass_on(session: Session, run_id: UUID, *, after: UUID) -> None:
    """Who waited for this run waits for another one."""
    session.execute(_FOLLOW, {"id": run_id, "after": after})


def promote(session: Session, run_id: UUID) -> int:
    """Who waited for this run has its turn; answers how many."""
    promoted = session.execute(_PROMOTE, {"id": run_id}).all()
    if promoted:
        session.execute(statements.NOTIFY_BEATS)
    return len(promoted)


def counts(session: Session, schedule_id: UUID) -> tuple[int, int]:
    """How many scheduled runs of a schedule are active, and how many wait."""
    row = session.execute(statements.ACTIVE, {"ids": [schedule_id]}).one_or_none()
    return (0, 0) if row is None else (row.active, row.waiting)


def unstick(session: Session) -> int:
    """Let runs go that wait for one that is over or gone; answers how many there were."""
    return sum(promote(session, run_id) for run_id in session.scalars(_STUCK).all())


def _cancel(session: Session, run_id: UUID) -> bool:
    """True if it had not started, and so is over."""
    ended = _end_queued(session, run_id)
    if ended is None:
        requested = {"id": run_id, "reason": Reason.REPLACED, "settles": True}
        if session.scalar(statements.REQUEST_CANCEL, requested) is not None:
            session.execute(statements.NOTIFY_CANCEL, {"id": run_id})
            return False
        # It may have gone back for another attempt between the two.
        ended = _end_queued(session, run_id)
    if ended is None:
        return False
    run_logs.tell_end(session, ended)
    promote(session, run_id)
    if ended.limit_key is not None:
        limiting.hand_on(session, ended.limit_key)
    return bool(ended.attempt == 1)


def _end_queued(session: Session, run_id: UUID) -> Row[Any] | None:
    return session.execute(
        statements.END_QUEUED,
        {
            "id": run_id,
            "state": "cancelled",
            "reason": Reason.REPLACED,
            "error": None,
            "attempt": None,
            "task": None,
            "late": False,
            "settling": True,
        },
    ).one_or_none()


def _first_not_in(replaced: dict[UUID, UUID], run_id: UUID) -> UUID:
    while run_id in replaced:
        run_id = replaced[run_id]
    return run_id
