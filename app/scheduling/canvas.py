"""What connects runs: task ids that others made, chords, saved groups, and what follows a run.

`canvas` of a run row holds what Celery keeps in a message beside the arguments, under Celery's own
names: ``id`` (the task id, when it is not the run's), ``root_id``, ``parent_id``, ``group``,
``group_index``, ``chord``, ``chain``, ``callbacks``, ``errbacks``, ``children``, ``ignore_result``, and
``own_state`` (what `Task.update_state` said).
`canvas_open` says that somebody is owed a consequence when the run ends without success: whoever ends
the run pays it in the same transaction and clears the mark, or leaves the mark for a sweep. The domain
keeps these documents; only `app.worker.canvas` can read the signatures in them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import delete, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.db import documents
from app.scheduling.ids import new_id
from app.scheduling.messages import DEFAULT_QUEUE
from app.scheduling.models import NOW, ChordRow, GroupRow, RunRow, TaskIdRow

OWING = ("chain", "chord", "errbacks")

_RESOLVE = text("SELECT run_id FROM celery_task_ids WHERE task_id = :task_id")

_MAP = text("""
INSERT INTO celery_task_ids (task_id, run_id) VALUES (:task_id, :run_id)
ON CONFLICT (task_id) DO UPDATE SET run_id = EXCLUDED.run_id
""")

_COUNT = text("""
UPDATE celery_task_chords SET counted = counted + 1
WHERE group_id = :group_id AND fired_at IS NULL
RETURNING counted >= size AS complete
""")

# One less has ended, instead of one more to come: the size may be told after this.
_GROW = text("""
UPDATE celery_task_chords SET counted = counted - 1, header = header || CAST(:result AS jsonb)
WHERE group_id = :group_id AND fired_at IS NULL
""")

_FIRE = text("""
UPDATE celery_task_chords SET fired_at = clock_timestamp()
WHERE group_id = :group_id AND fired_at IS NULL
RETURNING body, header
""")

_COMPLETE = text("""
SELECT group_id FROM celery_task_chords
WHERE fired_at IS NULL AND counted >= size
LIMIT 100
FOR UPDATE SKIP LOCKED
""")

_OPEN = text("""
SELECT id FROM celery_task_runs
WHERE canvas_open AND finished_at IS NOT NULL
ORDER BY id
LIMIT 100
FOR NO KEY UPDATE SKIP LOCKED
""")

_CHILDREN = text("""
UPDATE celery_task_runs
SET canvas = COALESCE(canvas, '{}') || jsonb_build_object('children', CAST(:children AS jsonb))
WHERE id = :id
""")

_OWN_STATE = text("""
UPDATE celery_task_runs
SET canvas = COALESCE(canvas, '{}') || jsonb_build_object('own_state', CAST(:own AS jsonb))
WHERE id = :id AND attempt = :attempt AND state = 'running'
""")


@dataclass(frozen=True, slots=True)
class Chord:
    """A chord whose turn has come: its body's signature, and the results of its header as tuples."""

    group_id: str
    body: dict[str, Any]
    header: list[Any]


def columns_of(canvas: Mapping[str, Any] | None) -> dict[str, Any]:
    """The columns of a run row that a canvas fills."""
    if not canvas:
        return {}
    return {
        "canvas": dict(canvas),
        "canvas_open": any(canvas.get(name) for name in OWING),
        # Whoever waits may have begun before the row existed.
        "watched": "id" in canvas,
    }


def resolve(session: Session, task_id: str) -> UUID | None:
    """The run that a task id means; None if it is not known and cannot be a run id."""
    found = session.scalar(_RESOLVE, {"task_id": task_id})
    return found if found is not None else as_run_id(task_id)


def as_run_id(task_id: object) -> UUID | None:
    """A task id as a run id; None if it cannot be one."""
    try:
        return UUID(str(task_id))
    except ValueError:
        return None


def name_run(session: Session, task_id: str, run_id: UUID) -> None:
    """From now on ``task_id`` means this run."""
    session.execute(_MAP, {"task_id": task_id, "run_id": run_id})


def read_many(session: Session, task_ids: Iterable[str]) -> dict[str, RunRow]:
    """The runs that are known of those task ids."""
    wanted = list(task_ids)
    rows = session.execute(select(TaskIdRow.task_id, TaskIdRow.run_id).where(TaskIdRow.task_id.in_(wanted)))
    known: dict[str, UUID] = {row.task_id: row.run_id for row in rows}
    for task_id in wanted:
        identifier = as_run_id(task_id)
        if task_id not in known and identifier is not None:
            known[task_id] = identifier
    query = select(RunRow).where(RunRow.id.in_(known.values())).execution_options(populate_existing=True)
    found = {row.id: row for row in session.scalars(query)}
    return {task_id: found[run_id] for task_id, run_id in known.items() if run_id in found}


def watch(session: Session, run_ids: Sequence[UUID]) -> None:
    """Let the end of those runs be notified."""
    session.execute(
        update(RunRow)
        .where(RunRow.id.in_(run_ids), RunRow.finished_at.is_(None), RunRow.watched.is_(False))
        .values(watched=True)
    )


def add_chord(session: Session, chord: Chord) -> None:
    """A chord waits for its header, whose size is told later."""
    session.execute(
        insert(ChordRow)
        .values(group_id=chord.group_id, body=chord.body, header=chord.header)
        .on_conflict_do_nothing()
    )


def set_chord_size(session: Session, group_id: str, size: int) -> None:
    """So many parts must end before the body may start."""
    session.execute(update(ChordRow).where(ChordRow.group_id == group_id).values(size=size))


def grow_chord(session: Session, group_id: str, result: Any) -> None:
    """One more part, whose result is ``result`` (a tuple, as in the header), before the others have ended."""
    session.execute(_GROW, {"group_id": group_id, "result": documents.written([result])})


def count_part(session: Session, group_id: str) -> Chord | None:
    """One part of a chord has ended; answers the chord if it was the last, for the caller to fire."""
    complete = session.scalar(_COUNT, {"group_id": group_id})
    return fire(session, group_id) if complete else None


def fire(session: Session, group_id: str) -> Chord | None:
    """Take a chord to fire it; None if somebody did."""
    row = session.execute(_FIRE, {"group_id": group_id}).one_or_none()
    return None if row is None else Chord(group_id, row.body, row.header)


def complete_chords(session: Session) -> list[str]:
    """Group ids of chords that are complete and were not fired; locked."""
    return list(session.scalars(_COMPLETE))


def unpaid(session: Session) -> list[UUID]:
    """Runs that ended, whose consequences nobody has drawn yet; locked."""
    return list(session.scalars(_OPEN))


def paid(session: Session, run_id: UUID) -> None:
    """The consequences of the run's end have been drawn."""
    session.execute(update(RunRow).where(RunRow.id == run_id).values(canvas_open=False))


def add_children(session: Session, run_id: UUID, children: Sequence[Any]) -> None:
    """Keep which results a run set going."""
    session.execute(_CHILDREN, {"id": run_id, "children": documents.written(list(children))})


def set_own_state(session: Session, run_id: UUID, own: Mapping[str, Any]) -> None:
    """Keep a state that a task gave itself: state, meta, and the attempt that it belongs to."""
    session.execute(
        _OWN_STATE, {"id": run_id, "own": documents.written(dict(own)), "attempt": own["attempt"]}
    )


def save_group(session: Session, group_id: str, members: Sequence[Any]) -> None:
    """Keep the members of a group, to restore it elsewhere."""
    statement = insert(GroupRow).values(group_id=group_id, members=list(members))
    session.execute(
        statement.on_conflict_do_update(
            index_elements=[GroupRow.group_id], set_={"members": statement.excluded.members}
        )
    )


def restore_group(session: Session, group_id: str) -> list[Any] | None:
    """The members of a saved group."""
    return session.scalar(select(GroupRow.members).where(GroupRow.group_id == group_id))


def delete_group(session: Session, group_id: str) -> None:
    """Forget a saved group."""
    session.execute(delete(GroupRow).where(GroupRow.group_id == group_id))


def abandon(session: Session, task_id: str, task: str, error: Mapping[str, Any], reason: str) -> None:
    """Record as failed what was to run under ``task_id`` and never will; nothing if it has a run already."""
    run_id = new_id()
    named = session.scalar(
        insert(TaskIdRow)
        .values(task_id=task_id, run_id=run_id)
        .on_conflict_do_nothing()
        .returning(TaskIdRow.run_id)
    )
    if named is None:
        return
    session.execute(
        insert(RunRow).values(
            id=run_id,
            state="failed",
            reason=reason,
            origin="code",
            task=task,
            queue=DEFAULT_QUEUE,
            due_at=NOW,
            finished_at=NOW,
            args=[],
            kwargs={},
            options={},
            error=dict(error),
            canvas={"id": task_id},
            watched=True,
        )
    )


_LATE = text("""
INSERT INTO celery_task_late_outcomes (id, run_id, attempt, outcome, worker_id, result, error)
SELECT :id, r.id, :attempt, :outcome, :worker_id, CAST(:result AS jsonb), CAST(:error AS jsonb)
FROM celery_task_runs r
WHERE r.id = :run_id
  AND NOT (r.attempt = :attempt AND r.worker_id = :worker_id AND r.state = :outcome)
  AND NOT EXISTS (SELECT FROM celery_task_run_attempts a
                  WHERE a.run_id = r.id AND a.attempt = :attempt AND a.outcome = :outcome)
ON CONFLICT DO NOTHING
""")


def keep_late(session: Session, late: Mapping[str, Any]) -> None:
    """Keep what a fenced worker reports beside the run that was decided without it.

    ``late`` has id, run_id, attempt, outcome, worker_id, result and error (JSON text). A report that the run or
    the history of its attempts shows already (its first commit was done, only the reply was lost) is not late.
    """
    session.execute(_LATE, late)
