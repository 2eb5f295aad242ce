"""A run that its own task gives back: queued again, one attempt later, with what the task asked for."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.db import documents
from app.scheduling import limiting, runs, statements, tally
from app.scheduling.messages import RunMessage
from app.scheduling.states import RunState

_GIVE_BACK = text("""
UPDATE celery_task_runs
SET state = 'queued', attempt = attempt + 1, reason = NULL, dispatches = CASE WHEN :at_once THEN 1 ELSE 0 END,
    due_at = COALESCE(CAST(:due_at AS timestamptz), statement_timestamp() + make_interval(secs => :delay)),
    next_dispatch_at = COALESCE(CAST(:due_at AS timestamptz),
        statement_timestamp() + make_interval(secs => CASE WHEN :at_once THEN :redispatch ELSE :delay END)),
    start_deadline = COALESCE(CAST(:due_at AS timestamptz),
        statement_timestamp() + make_interval(secs => :delay)) + (start_deadline - due_at),
    args = COALESCE(CAST(:args AS jsonb), args), kwargs = COALESCE(CAST(:kwargs AS jsonb), kwargs),
    queue = COALESCE(CAST(:queue AS text), queue), options = options || CAST(:options AS jsonb),
    worker = NULL, worker_id = NULL, start_token = NULL, started_at = NULL, error = CAST(:error AS jsonb)
WHERE id = :id AND attempt = :attempt AND state = 'running' AND worker_id = :worker_id
  AND cancel_requested_at IS NULL
RETURNING task, queue, attempt, options, traceparent, limit_key
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveBack:
    """What a task asks for when it retries. ``delay`` is in seconds; ``due_at`` goes before it.

    None leaves arguments and queue as they are; ``options`` replaces single ones (limits).
    """

    delay: float = 0.0
    due_at: datetime | None = None
    args: list[Any] | None = None
    kwargs: dict[str, Any] | None = None
    queue: str | None = None
    options: Mapping[str, Any] | None = None
    error: dict[str, Any] | None = None


def give_back(
    session: Session,
    run_id: UUID,
    *,
    attempt: int,
    worker_id: UUID,
    wish: GiveBack,
    redispatch_delay: float,
    beat_sleep: float,
) -> tuple[bool, RunMessage | None]:
    """End this attempt and queue the next, whatever the run's own retry policy says.

    Answers whether it was done (False: fenced, or asked to stop, and nothing changed), and the wake-up to publish after the
    commit if it is due at once; beats that may sleep for longer (``beat_sleep``, seconds) are woken. The attempt that ended is kept in the history.
    """
    guard = {"id": run_id, "attempt": attempt, "worker_id": worker_id}
    running = session.execute(statements.ATTEMPT, guard).one_or_none()
    if running is None:
        return False, None
    if running.options.get("concurrency_key") is not None:
        limiting.lock(session, running.options["concurrency_key"])
    error = None if wish.error is None else documents.written(wish.error)
    at_once = wish.due_at is None and wish.delay <= 0
    row = session.execute(
        _GIVE_BACK,
        {
            **guard,
            "at_once": at_once,
            "delay": max(0.0, wish.delay),
            "due_at": wish.due_at,
            "redispatch": redispatch_delay,
            "args": None if wish.args is None else documents.written(wish.args),
            "kwargs": None if wish.kwargs is None else documents.written(wish.kwargs),
            "queue": wish.queue,
            "options": documents.written(dict(wish.options or {})),
            "error": error,
        },
    ).one_or_none()
    if row is None:
        return False, None
    tally.note(session, tally.Requeued(row.task, row.queue, RunState.FAILED))
    if row.limit_key is not None:
        limiting.release(session, row.limit_key)
    session.execute(
        statements.KEEP_ATTEMPT,
        {
            "id": run_id,
            "attempt": attempt,
            "outcome": RunState.FAILED,
            "worker": running.worker,
            "started_at": running.started_at,
            "error": error,
        },
    )
    if at_once:
        return True, RunMessage.of(
            run_id, row.task, row.queue, row.attempt, row.options, traceparent=row.traceparent
        )
    runs.wake_beats(session, run_id, within=beat_sleep)
    return True, None
