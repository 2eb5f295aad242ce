"""Purging queues: what waits in them is cancelled, with the reason `purged`, and its wake-ups are dropped.

Runs are cancelled a batch at a time, the one that is due first before the others, so locks do not grow with the
backlog; what is queued while the purge is under way stays. Each run ends as it would by a cancellation of its own:
who waited for it is let go, and ends in its turn if it waits in the same queue.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from app.scheduling import runs
from app.scheduling.messages import QUEUES
from app.scheduling.policies import Reason

BATCH = 200

_QUEUED = """
FROM celery_task_runs
WHERE state = 'queued' AND (next_dispatch_at IS NOT NULL OR blocked_by IS NOT NULL)
  AND queue = ANY(CAST(:queues AS text[])) AND created_at <= :begun
"""

_COUNT = text(f"SELECT count(*) {_QUEUED}")

_PAGE = text(f"""
SELECT id, settles OR limit_key IS NOT NULL AS apart {_QUEUED}
ORDER BY next_dispatch_at NULLS LAST
LIMIT {BATCH}
""")


def queued(sessions: sessionmaker[Session], queues: Sequence[str] = QUEUES) -> int:
    """How many runs a purge of these queues would cancel now."""
    with sessions() as session:
        return count(session, queues)


def count(session: Session, queues: Sequence[str]) -> int:
    """How many runs a purge of these queues would cancel now."""
    return int(session.execute(_COUNT, those_of(session, queues)).scalar_one())


def purge(
    sessions: sessionmaker[Session],
    queues: Sequence[str] = QUEUES,
    *,
    discard: Callable[[Sequence[str]], object] | None = None,
) -> Iterator[int]:
    """Cancel what is queued in these queues now; yields after each batch how many runs it ended.

    ``discard`` drops the wake-ups of the queues at the end; one that is dropped too many is sent again by a beat.
    """
    with sessions() as session:
        which = those_of(session, queues)
    while True:
        with sessions() as session:
            found = page(session, which)
        ended = 0
        for part in parts(found):
            with sessions.begin() as session:
                ended += end(session, part)
        if ended:
            yield ended
        if len(found) < BATCH or not ended:
            break
    if discard is not None:
        discard(queues)


def those_of(session: Session, queues: Sequence[str]) -> dict[str, Any]:
    """What is queued in these queues now, for `page`."""
    return {"queues": list(queues), "begun": session.scalar(text("SELECT clock_timestamp()"))}


def page(session: Session, which: dict[str, Any]) -> list[tuple[UUID, bool]]:
    """The ids of up to `BATCH` runs to end, and of each whether its end concerns a schedule or a limit."""
    return [(row.id, row.apart) for row in session.execute(_PAGE, which)]


def parts(found: Sequence[tuple[UUID, bool]]) -> list[list[UUID]]:
    """What is ended in one transaction each: those that concern nobody else together; each other one alone, because
    it locks its schedule and its key first, and two who lock several would wait for each other. Rows are locked
    in the order of their ids, as a statement for many does."""
    together = sorted(run_id for run_id, apart in found if not apart)
    alone = [[run_id] for run_id, apart in found if apart]
    return [together, *alone] if together else alone


def end(session: Session, part: Sequence[UUID]) -> int:
    """Cancel these runs; answers how many were still queued."""
    return sum(runs.end_queued(session, each, runs.RunState.CANCELLED, Reason.PURGED) for each in part)
