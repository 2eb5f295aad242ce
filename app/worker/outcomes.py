"""How an attempt ended, written once: the guarded finish and all that follows from it."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID

from billiard.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded, WorkerLostError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app import failpoints
from app.db.outages import is_away
from app.scheduling import run_logs, runs
from app.scheduling.canvas import as_run_id
from app.scheduling.ends import End, keep_late
from app.scheduling.messages import RunMessage
from app.scheduling.policies import Reason
from app.scheduling.runs import Outcome, RunState
from app.settings import get_settings
from app.worker import bookkeeping, capture, codec, liveness
from app.worker.bridge import RunCancelled
from app.worker.canvas import Errback, call_inline, draw
from app.worker.errors import MESSAGE_LENGTH, error_of
from app.worker.execution import Execution
from app.worker.flushing import flusher
from app.worker.unflushed import unflushed

__all__ = ["PATIENCE", "error_of", "finish", "outcome_of", "postpone", "record_unregistered"]

logger = logging.getLogger(__name__)

# An outcome that was computed is worth waiting for: nothing else can start meanwhile anyway.
PATIENCE = 3600.0


@dataclass(slots=True)
class _Ended:
    state: RunState | None = None
    messages: list[RunMessage] = field(default_factory=list)
    inline: list[Errback] = field(default_factory=list)


def outcome_of(error: BaseException, traceback: object = None) -> Outcome:
    """What an exception means for the run.

    One with `retryable = False` ends it, attempts left or not; `retry_after`, a number of seconds, puts off the next.
    """
    document = error_of(error, traceback)
    if isinstance(error, TimeLimitExceeded):
        seconds = error.args[0] if error.args else None
        document["message"] = (
            f"The hard time limit of {seconds} s passed." if seconds else document["message"]
        )
        return Outcome(RunState.TIMED_OUT, error=document, reason=Reason.HARD_LIMIT)
    if isinstance(error, RunCancelled):
        document = {"type": "Cancelled", "message": str(error), "traceback": None}
        return Outcome(RunState.CANCELLED, error=document, reason=Reason(error.reason))
    if isinstance(error, WorkerLostError):
        document["type"] = "WorkerLost"
        return Outcome(RunState.LOST, error=document, reason=Reason.WORKER_LOST)
    if isinstance(error, SoftTimeLimitExceeded):
        document["message"] = "The soft time limit passed."
    return Outcome(
        RunState.FAILED,
        error=document,
        retryable=getattr(error, "retryable", True) is not False,
        retry_after=_seconds(getattr(error, "retry_after", None)),
    )


def _seconds(value: object) -> float | None:
    """What an error of anybody's asks for, if it is a number of seconds."""
    sane = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf
    return float(min(value, 1e6)) if sane else None  # type: ignore[call-overload]


def finish(
    app: Any, run_id: UUID, attempt: int, outcome: Outcome, running: Execution | None = None
) -> RunState | None:
    """Record how an attempt of this worker ended, with all that follows; None if it was fenced and nothing changed.

    ``running`` is given by whoever executed it, and waits for a database that is away. Others in the main process must
    not wait, they have a broker and children to look after.

    Raises:
        SQLAlchemyError: the database is away.
    """
    worker_id, lines = liveness.worker_id(), capture.rest(run_id, attempt)
    end = End(run_id, attempt, outcome, worker_id)
    if running is not None and not lines and _ends_alone(running, end):
        failpoints.reach("finish.committed")
        running.settled = True
        return outcome.state

    def work(session: Session) -> _Ended:
        run_logs.store_lines(session, lines)
        state = runs.finish(session, run_id, attempt=attempt, outcome=outcome, worker_id=worker_id)
        if state is None:
            if running is not None:
                keep_late(session, end)
            return _Ended()
        failpoints.reach("finish.written")
        if not state.terminal:
            runs.wake_beats(session, run_id, within=get_settings().beat.max_sleep)
            return _Ended(state)
        document = running.canvas if running is not None else _canvas_of(session, run_id)
        request = None if running is None else running.request
        if not document and (running is None or not (running.successors or running.request.children)):
            return _Ended(state)
        successors = [] if running is None else running.successors
        drawn = draw(app, session, run_id, outcome, document=document, successors=successors, request=request)
        return _Ended(state, drawn.messages, drawn.inline)

    patience = 0.0 if running is None and liveness.in_main_process() else PATIENCE
    try:
        ended = _record(work, end, patience)
    except SQLAlchemyError:
        flusher.restore(lines)
        raise
    if patience:
        failpoints.reach("finish.committed")
    if running is not None:
        running.settled = True
    app.publisher.try_publish(ended.messages)
    call_inline(ended.inline)
    return ended.state


def _record(work: Callable[[Session], _Ended], end: End, patience: float) -> _Ended:
    try:
        return bookkeeping.transact(work, patience=patience)
    except SQLAlchemyError as error:
        if not patience and is_away(error):
            raise
        return _Ended(_not_recorded(end, error, patience))


def postpone(run_id: UUID, attempt: int, outcome: Outcome) -> None:
    """As `finish`, by the lease's thread, when the database is back. What the run owes to others is left to the sweep."""
    lease = liveness.lease()
    lease.postpone(
        lambda session: runs.finish(session, run_id, attempt=attempt, outcome=outcome, worker_id=lease.id)
    )


def _ends_alone(running: Execution, end: End) -> bool:
    """End a run from which nothing follows; False when there may be more to do.

    The commit is not waited for: see `app.worker.unflushed`.
    """
    if not running.alone or running.successors or running.request.children:
        return False
    awaited = unflushed.full
    try:
        return runs.finish_alone(
            partial(
                bookkeeping.single,
                patience=PATIENCE,
                committed=None if awaited else partial(unflushed.keep, end),
            ),
            end.run_id,
            attempt=end.attempt,
            outcome=end.outcome,
            worker_id=end.worker_id,
            awaited=awaited,
        )
    except SQLAlchemyError:
        # Refused for what is in it: `finish` meets the same, and records that.
        return False


def _not_recorded(end: End, error: SQLAlchemyError, patience: float) -> RunState | None:
    """The database refuses an outcome for what is in it: the run fails with that, it must not stay open.

    What it owes to others is left to the sweep.
    """
    logger.error(
        "outcome refused", exc_info=error, extra={"action": "outcome_refused", "run_id": str(end.run_id)}
    )
    told = f"The outcome could not be recorded: {bookkeeping.first_line(error)}"[:MESSAGE_LENGTH]
    document = {"type": "OutcomeNotRecorded", "message": told, "traceback": None}
    outcome = Outcome(RunState.FAILED, error=document)
    return bookkeeping.transact(
        lambda session: runs.finish(
            session, end.run_id, attempt=end.attempt, outcome=outcome, worker_id=end.worker_id
        ),
        patience=patience,
    )


def _canvas_of(session: Session, run_id: UUID) -> dict[str, Any]:
    row = runs.read(session, run_id)
    document: dict[str, Any] = codec.from_stored({} if row is None else row.canvas or {})
    return document


def record_unregistered(task_id: object, task: str, attempt: int) -> bool:
    """A queued run of a task that this worker does not know has failed; True if there was one."""
    run_id = as_run_id(task_id)
    if run_id is None:
        return False
    error = {"type": "NotRegistered", "message": f"No worker knows the task {task}.", "traceback": None}
    return bookkeeping.transact(
        lambda session: runs.end_queued(
            session,
            run_id,
            RunState.FAILED,
            Reason.TASK_NOT_REGISTERED,
            attempt=attempt,
            task=task,
            error=error,
        )
    )
