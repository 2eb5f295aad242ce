"""Celery's result backend on the run table: how a run ended, and what `AsyncResult` says of it.

Every write is the guarded `finish` of `app.worker.outcomes`: a worker that lost its run to another
attempt changes nothing. Celery's own words for states are those of the table below.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, TypeVar
from uuid import UUID

from celery import states
from celery.backends.base import BaseBackend
from celery.exceptions import Terminated
from celery.exceptions import TimeoutError as CeleryTimeout
from celery.result import result_from_tuple
from sqlalchemy import update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.db.outages import is_away
from app.scheduling import canvas
from app.scheduling.messages import RunMessage
from app.scheduling.models import RunRow
from app.scheduling.policies import Reason
from app.scheduling.runs import Outcome, RunState
from app.settings import get_settings
from app.worker import bookkeeping, codec, execution, liveness, outcomes
from app.worker.canvas import Consequences, call_inline
from app.worker.errors import MESSAGE_LENGTH, error_of, exception_of
from app.worker.waiting import waiters

logger = logging.getLogger(__name__)

T = TypeVar("T")

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


class RunBackend(BaseBackend):  # type: ignore[misc]
    """Results are read from, and outcomes written to, `celery_task_runs`."""

    persistent = True
    supports_autoexpire = True
    supports_native_join = True

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
        keep = store_result and not getattr(request, "ignore_result", False)
        try:
            stored = codec.to_stored(
                self.prepare_value(result) if keep else None,
                largest=get_settings().worker.max_result_bytes,
            )
        except codec.NotStorable as error:
            message = f"The task returned, but its result cannot be stored: {error}."
            outcome = Outcome(
                RunState.FAILED,
                error={
                    "type": "ResultNotStorable",
                    "message": message[:MESSAGE_LENGTH],
                    "traceback": None,
                },
            )
            logger.warning(
                "result cannot be stored: %s", error, extra={"action": "result_refused", "run_id": task_id}
            )
        else:
            outcome = Outcome(RunState.SUCCEEDED, result=stored)
        self._finish(task_id, request, outcome)

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
        self._finish(task_id, request, outcomes.outcome_of(exc, traceback))

    def mark_as_revoked(
        self,
        task_id: str,
        reason: str = "",
        request: Any = None,
        store_result: bool = True,
        state: str = states.REVOKED,
    ) -> None:
        """Somebody stopped its process."""
        outcome = Outcome(
            RunState.CANCELLED, error=error_of(Terminated(reason)), reason=Reason.CANCELLED_BY_USER
        )
        self._finish(task_id, request, outcome)

    def mark_as_retry(self, *args: Any, **kwargs: Any) -> None:
        """`Task.retry` has recorded it already; this is not called for every task."""

    def mark_as_started(self, *args: Any, **kwargs: Any) -> None:
        """The start statement has recorded it already."""

    def store_result(self, task_id: str, result: Any, state: str, request: Any = None, **kwargs: Any) -> Any:
        """`Task.update_state`: a state of the task's own, shown while this attempt runs.

        Outcomes are recorded by the methods above, which know the attempt.
        """
        running = None if request is None else execution.of_request(request)
        if running is not None and not running.settled and state not in states.ALL_STATES:
            own = {"state": state, "meta": codec.to_stored(result), "attempt": running.attempt}
            bookkeeping.transact(lambda session: canvas.set_own_state(session, running.run_id, own))
        return result

    def _finish(self, task_id: str, request: Any, outcome: Outcome) -> None:
        if getattr(request, "is_eager", False):
            return
        running = None if request is None else execution.of_request(request)
        # In a canvas a task id need not be its run's; what a message says of itself is text.
        started = getattr(request, "upbeat_run", None)
        run_id = started if isinstance(started, UUID) else canvas.as_run_id(task_id)
        if run_id is None or (running is not None and running.settled):
            return
        attempt = int(getattr(request, "retries", None) or 0) + 1
        try:
            ended = outcomes.finish(self.app, run_id, attempt, outcome, running)
        except SQLAlchemyError as error:
            if not (liveness.in_main_process() and is_away(error)):
                raise
            outcomes.postpone(run_id, attempt, outcome)
        else:
            if ended is None:
                self._tell_fenced(task_id, attempt, outcome)

    @staticmethod
    def _tell_fenced(task_id: str, attempt: int, outcome: Outcome) -> None:
        logger.info(
            "outcome %s of attempt %d changed nothing",
            outcome.state,
            attempt,
            extra={"action": "outcome_fenced", "run_id": task_id},
        )

    # -- canvas

    def apply_chord(self, header_result_args: Any, body: Any, **kwargs: Any) -> None:
        """Let the body wait for the header, which is about to be called."""
        group_id, results = header_result_args
        chord = canvas.Chord(
            str(group_id),
            codec.to_stored(dict(body)),
            codec.to_stored([result.as_tuple() for result in results]),
        )
        self._write(lambda session: canvas.add_chord(session, chord))

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        """Told before the last part is called, so that it cannot come too late."""
        self._write(lambda session: canvas.set_chord_size(session, group_id, chord_size))

    def add_to_chord(self, chord_id: str, result: Any) -> None:
        """A part of a chord adds another one, while it runs."""
        member = codec.to_stored(result.as_tuple())
        self._write(lambda session: canvas.grow_chord(session, chord_id, member))

    def sweep(self, session: Session) -> list[RunMessage]:
        """Draw the consequences that others left open; answers what to publish after the commit."""
        consequences = Consequences(self.app, session)
        consequences.sweep()
        if consequences.inline:
            waiters.in_background(lambda: call_inline(consequences.inline))
        return consequences.messages

    @staticmethod
    def _write(work: Callable[[Session], None]) -> None:
        def write(session: Session) -> None:
            work(session)

        if not execution.kept(write):
            bookkeeping.transact(write)

    # -- groups

    def _save_group(self, group_id: str, result: Any) -> Any:
        members = codec.to_stored([member.as_tuple() for member in result.results])
        bookkeeping.transact(lambda session: canvas.save_group(session, group_id, members))
        return result

    def _restore_group(self, group_id: str) -> dict[str, Any] | None:
        members = bookkeeping.transact(lambda session: canvas.restore_group(session, group_id))
        if members is None:
            return None
        return {"result": result_from_tuple([[group_id, None], members], self.app)}

    def _delete_group(self, group_id: str) -> None:
        bookkeeping.transact(lambda session: canvas.delete_group(session, group_id))

    # -- reading

    def _get_task_meta_for(self, task_id: str) -> dict[str, Any]:
        return self._metas([task_id])[task_id]

    def _metas(self, task_ids: Iterable[str], *, watch: bool = False) -> dict[str, dict[str, Any]]:
        """What is known of each; with ``watch``, the end of those that are not ready is notified."""
        wanted = list(task_ids)

        def work(session: Session) -> dict[str, RunRow]:
            rows = canvas.read_many(session, wanted)
            unwatched = [row.id for row in rows.values() if row.finished_at is None and not row.watched]
            if watch and unwatched:
                canvas.watch(session, unwatched)
                # Only what ends from now on is notified.
                rows = canvas.read_many(session, wanted)
            return rows

        rows = bookkeeping.transact(work)
        pending = {"status": states.PENDING, "result": None}
        return {task_id: self._meta(rows[task_id]) if task_id in rows else pending for task_id in wanted}

    def _meta(self, row: RunRow) -> dict[str, Any]:
        document = row.canvas or {}
        status = CELERY_STATES[row.state]
        if row.state == RunState.QUEUED and row.attempt > 1:
            status = states.RETRY
        elif row.reason == Reason.TASK_REPLACED:
            # What took its place has not begun; from then on the task id means that.
            status = states.PENDING
        error = row.error or {}
        result: Any = codec.from_stored(row.result)
        own = document.get("own_state")
        if own and status == states.STARTED and own["attempt"] == row.attempt:
            status, result = own["state"], codec.from_stored(own["meta"])
        if status in (states.FAILURE, states.RETRY, states.REVOKED):
            result = exception_of(row.state, error, row.reason)
        return {
            "status": status,
            "result": result,
            "traceback": error.get("traceback"),
            "children": document.get("children") or [],
            "date_done": row.finished_at,
            "task_id": str(document.get("id", row.id)),
            "group_id": document.get("group"),
            "parent_id": document.get("parent_id"),
            "name": row.task,
            "args": row.args,
            "kwargs": row.kwargs,
            "worker": row.worker,
            "retries": row.attempt - 1,
            "queue": row.queue,
        }

    # -- waiting

    def wait_for(
        self,
        task_id: str,
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,
        on_interval: Callable[[], object] | None = None,
    ) -> dict[str, Any]:
        """Wait for a notification of its end; ``timeout`` in seconds, ``interval`` is not used.

        Raises:
            celery.exceptions.TimeoutError: it was not ready in time.
        """
        return next(self._ready([task_id], timeout, on_interval))[1]

    def get_many(
        self,
        task_ids: Iterable[str],
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,
        on_message: Callable[[dict[str, Any]], object] | None = None,
        on_interval: Callable[[], object] | None = None,
        max_iterations: int | None = None,
        **kwargs: Any,
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each of them as soon as it is ready; as `wait_for`."""
        if max_iterations is not None:
            yield from self._metas(task_ids).items()
            return
        for task_id, meta in self._ready(task_ids, timeout, on_interval):
            if on_message is not None:
                on_message(meta)
            yield task_id, meta

    def _ready(
        self, task_ids: Iterable[str], timeout: float | None, on_interval: Callable[[], object] | None
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        self._ensure_not_eager()
        left = set(task_ids)
        with waiters.waiting(left, timeout) as wait:
            look: Collection[str] = left
            while left:
                for task_id, meta in self._metas(left.intersection(look), watch=True).items():
                    if meta["status"] in states.READY_STATES:
                        left.discard(task_id)
                        yield task_id, meta
                if left:
                    if on_interval is not None:
                        on_interval()
                    heard = wait()
                    if heard is None:
                        raise CeleryTimeout("The operation timed out.")
                    look = heard

    def _forget(self, task_id: str) -> None:
        def work(session: Session) -> None:
            run_id = canvas.resolve(session, task_id)
            session.execute(
                update(RunRow)
                .where(RunRow.id == run_id, RunRow.finished_at.is_not(None))
                .values(result=None, error=None)
            )

        bookkeeping.transact(work)
