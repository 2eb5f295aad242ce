"""Ends as a worker reports them: once more, when the first report may have been lost; and those that come too late."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.db import documents
from app.db.arrays import int_array, uuid_array
from app.scheduling import canvas, runs
from app.scheduling.ids import new_id
from app.scheduling.runs import Outcome, Single


@dataclass(eq=False, slots=True)
class End:
    """How an attempt ended, as its worker knows it.

    ``late_id`` is the report's own, however often it is made; it gets one when it turns out to be late.
    """

    run_id: UUID
    attempt: int
    outcome: Outcome
    worker_id: UUID
    late_id: UUID | None = None


# The runs that do not show what is said of them: it was undone, or they were decided otherwise meanwhile. The message
# is something to write, so that the commit waits until all that was committed before is on the disk.
_UNLIKE = text("""
SELECT ARRAY(
    SELECT r.id
    FROM unnest(CAST(CAST(:ids AS text) AS uuid[]), CAST(CAST(:attempts AS text) AS int[]),
                CAST(:states AS text[])) AS u (id, attempt, state)
    JOIN celery_task_runs r ON r.id = u.id
    WHERE r.attempt <> u.attempt OR r.state <> u.state
), pg_logical_emit_message(true, 'upbeat', '')
""")


def undone(single: Single, ends: Sequence[End]) -> list[End]:
    """Make durable the ends that their runs show; answers the others, for `assert_again`."""
    row = single(
        _UNLIKE,
        {
            "ids": uuid_array(end.run_id for end in ends),
            "attempts": int_array(end.attempt for end in ends),
            "states": [end.outcome.state.value for end in ends],
        },
    )
    unlike = set() if row is None else set(row[0])
    return [end for end in ends if end.run_id in unlike]


def assert_again(session: Session, ends: Sequence[End]) -> None:
    """Record these ends; a run that was decided otherwise keeps its end as a late one."""
    for end in ends:
        ended = runs.finish(
            session, end.run_id, attempt=end.attempt, outcome=end.outcome, worker_id=end.worker_id
        )
        if ended is None:
            keep_late(session, end)


def keep_late(session: Session, end: End) -> None:
    """Keep the end of an attempt that was given up meanwhile beside its run."""
    end.late_id = end.late_id or new_id()
    canvas.keep_late(
        session,
        {
            "id": end.late_id,
            "run_id": end.run_id,
            "attempt": end.attempt,
            "outcome": end.outcome.state,
            "worker_id": end.worker_id,
            "result": None if end.outcome.result is None else documents.written(end.outcome.result),
            "error": None if end.outcome.error is None else documents.written(end.outcome.error),
        },
    )
