"""Celery's result backend on the run table: how a run ended, and what `AsyncResult` says of it.

Every write is the guarded `finish` of `app.scheduling.runs`: a worker that lost its run to another
attempt changes nothing. Celery's own words for states are those of the table below.
"""

import builtins
import logging
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from billiard.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded, WorkerLostError
from celery import states
from celery.backends.base import BaseBackend
from celery.exceptions import NotRegistered, TaskRevokedError, Terminated
from sqlalchemy import select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.scheduling import run_logs, runs
from app.scheduling.models import RunRow
from app.scheduling.policies import Reason
from app.scheduling.runs import Outcome, RunState
from app.settings import get_settings
from app.worker import bookkeeping, capture, codec, liveness

logger = logging.getLogger(__name__)

CELERY_STATES: Mapping[str, str] = {
    RunState.QUEUED: states.PENDING,
    RunState.RUNNING: states.STARTED,
    RunState.SUCCEEDED: states.SUCCESS,
    RunState.FAILED: states.FAILURE,
    RunState.TIMED_OUT: states.FAILURE,
    RunState.LOST: states.FAILURE,
    RunState.CANCELLED: states.REVOKED,
    RunState.EXPIRED: states.REVOKED,
    RunState.SKIPPED: states.REVOKED,
}

_CELERY_ERRORS: Mapping[str, str] = {
    RunState.LOST: "WorkerLostError",
    RunState.TIMED_OUT: "TimeLimitExceeded",
}

MESSAGE_LENGTH = 10_000
TRACEBACK_LENGTH = 50_000
# An outcome that was computed is worth waiting for: nothing else can start meanwhile anyway.
PATIENCE = 3600.0


def run_id_of(task_id: object) -> UUID | None:
    """A Celery task id as a run id; None if it cannot be one."""
    try:
        return UUID(str(task_id))
    except ValueError:
        return None


def error_of(error: BaseException, traceback: object = None) -> dict[str, Any]:
    """An exception as the run row keeps it."""
    kind = type(error)
    well_known = kind.__module__.startswith(("builtins", "celery.", "billiard.", "app.worker."))
    name = kind.__qualname__ if well_known else f"{kind.__module__}.{kind.__qualname__}"
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - a user's own __str__
        message = "(its message could not be read)"
    return {
        "type": name,
        "message": _clean(message)[:MESSAGE_LENGTH],
        "traceback": _clean(str(traceback))[-TRACEBACK_LENGTH:] if traceback else None,
    }


def outcome_of(error: BaseException, traceback: object = None) -> Outcome:
    """What an exception means for the run; one with `retryable = False` ends it, attempts left or not."""
    document = error_of(error, traceback)
    if isinstance(error, TimeLimitExceeded):
        seconds = error.args[0] if error.args else None
        document["message"] = (
            f"The hard time limit of {seconds} s passed." if seconds else document["message"]
        )
        return Outcome(RunState.TIMED_OUT, error=document, reason=Reason.HARD_LIMIT)
    if isinstance(error, WorkerLostError):
        document["type"] = "WorkerLost"
        return Outcome(RunState.LOST, error=document, reason=Reason.WORKER_LOST)
    if isinstance(error, SoftTimeLimitExceeded):
        document["message"] = "The soft time limit passed."
    return Outcome(RunState.FAILED, error=document, retryable=getattr(error, "retryable", True) is not False)


def finish(task_id: object, attempt: int, outcome: Outcome) -> RunState | None:
    """Record how an attempt of this worker ended; None if it was fenced, or is recorded later."""
    run_id = run_id_of(task_id)
    if run_id is None:
        return None
    worker_id, lines = liveness.worker_id(), capture.rest(run_id, attempt)

    def work(session: Session) -> RunState | None:
        run_logs.store_lines(session, lines)
        state = runs.finish(session, run_id, attempt=attempt, outcome=outcome, worker_id=worker_id)
        if state is RunState.QUEUED:
            runs.wake_beats(session, run_id, within=get_settings().beat.max_sleep)
        return state

    if _called_by_parent(outcome):
        # The main process must not wait for the database: it has a broker and children to look after.
        try:
            return bookkeeping.transact(work)
        except SQLAlchemyError as error:
            if not bookkeeping.is_away(error):
                raise
            liveness.lease().postpone(work)
            return None
    return bookkeeping.transact(work, patience=PATIENCE)


def _called_by_parent(outcome: Outcome) -> bool:
    return liveness.in_main_process() and outcome.state in (
        RunState.TIMED_OUT,
        RunState.LOST,
        RunState.CANCELLED,
    )


def record_unregistered(task_id: object, task: str, attempt: int) -> bool:
    """A queued run of a task that this worker does not know has failed; True if there was one."""
    run_id = run_id_of(task_id)
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


class RunBackend(BaseBackend):  # type: ignore[misc]
    """Results are read from, and outcomes written to, `celery_task_runs`."""

    persistent = True
    supports_autoexpire = True

    def __init__(self, app: Any, url: str | None = None, **kwargs: Any) -> None:
        super().__init__(app, url="upbeat", **kwargs)

    def mark_as_done(
        self,
        task_id: str,
        result: Any,
        request: Any = None,
        store_result: bool = True,
        state: str = states.SUCCESS,
    ) -> None:
        """The body returned: store its result, or fail if that cannot be stored."""
        attempt = _attempt(request)
        try:
            stored = codec.to_stored(
                self.prepare_value(result) if store_result else None,
                largest=get_settings().worker.max_result_bytes,
            )
        except codec.NotStorable as error:
            outcome = Outcome(
                RunState.FAILED,
                error={
                    "type": "ResultNotStorable",
                    "message": f"The task returned, but its result cannot be stored: {error}."[
                        :MESSAGE_LENGTH
                    ],
                    "traceback": None,
                },
            )
            logger.warning(
                "result cannot be stored: %s", error, extra={"action": "result_refused", "run_id": task_id}
            )
        else:
            outcome = Outcome(RunState.SUCCEEDED, result=stored)
        self._finish(task_id, attempt, outcome)

    def mark_as_failure(
        self,
        task_id: str,
        exc: BaseException,
        traceback: object = None,
        request: Any = None,
        store_result: bool = True,
        call_errbacks: bool = True,
        state: str = states.FAILURE,
    ) -> None:
        """The body raised, a limit passed, or the child is gone."""
        if isinstance(exc, NotRegistered):
            return
        self._finish(task_id, _attempt(request), outcome_of(exc, traceback))

    def mark_as_revoked(
        self,
        task_id: str,
        reason: str = "",
        request: Any = None,
        store_result: bool = True,
        state: str = states.REVOKED,
    ) -> None:
        """Somebody stopped it with `celery control revoke`."""
        outcome = Outcome(
            RunState.CANCELLED, error=error_of(Terminated(reason)), reason=Reason.CANCELLED_BY_USER
        )
        self._finish(task_id, _attempt(request), outcome)

    def mark_as_retry(self, *args: Any, **kwargs: Any) -> None:
        """`Task.retry` has recorded it already; this is not called for every task."""

    def mark_as_started(self, *args: Any, **kwargs: Any) -> None:
        """The start statement has recorded it already."""

    def store_result(self, task_id: str, result: Any, state: str, **kwargs: Any) -> Any:
        """Outcomes are recorded by the methods above, which know the attempt."""
        return result

    def _finish(self, task_id: str, attempt: int, outcome: Outcome) -> None:
        if finish(task_id, attempt, outcome) is None:
            logger.info(
                "outcome %s of attempt %d changed nothing",
                outcome.state,
                attempt,
                extra={"action": "outcome_fenced", "run_id": task_id},
            )

    def _get_task_meta_for(self, task_id: str) -> dict[str, Any]:
        run_id = run_id_of(task_id)
        row = None if run_id is None else bookkeeping.transact(lambda session: _read(session, run_id))
        return {"status": states.PENDING, "result": None} if row is None else self._meta(row)

    def _meta(self, row: RunRow) -> dict[str, Any]:
        status = CELERY_STATES[row.state]
        if row.state == RunState.QUEUED and row.attempt > 1:
            status = states.RETRY
        error = row.error or {}
        result: Any = codec.from_stored(row.result)
        if status in (states.FAILURE, states.RETRY):
            result = self.exception_to_python(_celery_error(row.state, error))
        elif status == states.REVOKED:
            result = TaskRevokedError(row.reason or row.state)
        return {
            "status": status,
            "result": result,
            "traceback": error.get("traceback"),
            "children": [],
            "date_done": row.finished_at,
            "task_id": str(row.id),
            "name": row.task,
            "args": row.args,
            "kwargs": row.kwargs,
            "worker": row.worker,
            "retries": row.attempt - 1,
            "queue": row.queue,
        }

    def wait_for(
        self, task_id: str, timeout: float | None = None, interval: float = 0.1, **kwargs: Any
    ) -> dict[str, Any]:
        """Poll the row; ``timeout`` and ``interval`` in seconds.

        Raises:
            celery.exceptions.TimeoutError: it was not ready in time.
        """
        meta: dict[str, Any] = super().wait_for(
            task_id, timeout=timeout, interval=min(interval, 0.1), **kwargs
        )
        return meta

    def _forget(self, task_id: str) -> None:
        run_id = run_id_of(task_id)
        statement = (
            update(RunRow)
            .where(RunRow.id == run_id, RunRow.finished_at.is_not(None))
            .values(result=None, error=None)
        )
        bookkeeping.transact(lambda session: session.execute(statement) and None)


def _read(session: Session, run_id: UUID) -> RunRow | None:
    return session.scalar(select(RunRow).where(RunRow.id == run_id))


def _celery_error(state: str, error: Mapping[str, Any]) -> dict[str, Any]:
    named = _CELERY_ERRORS.get(state) or str(error.get("type") or "Exception")
    module, _, name = named.rpartition(".")
    if not module:
        module = "builtins" if hasattr(builtins, name) else "celery.exceptions"
    return {"exc_type": name, "exc_module": module, "exc_message": error.get("message") or state}


def _attempt(request: Any) -> int:
    return int(getattr(request, "retries", None) or 0) + 1


def _clean(text: str) -> str:
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()
