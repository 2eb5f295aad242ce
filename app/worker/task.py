"""The class of every `@app.task`: calls become run rows first, runs start by a guarded update."""

import functools
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, ClassVar, NoReturn
from uuid import UUID

from celery import Task as CeleryTask
from celery.exceptions import Ignore, Reject, Retry, WorkerShutdown, WorkerTerminate
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app import failpoints, logs
from app.scheduling import requeue, run_logs, runs
from app.scheduling.canvas import as_run_id
from app.scheduling.catalogue import TaskSpec
from app.scheduling.declarations import TaskSchedule
from app.scheduling.ids import start_token
from app.scheduling.liveness import renew_expired_lease
from app.scheduling.messages import DEFAULT_QUEUE, RunMessage
from app.scheduling.policies import Reason
from app.settings import get_settings
from app.worker import bookkeeping, calls, capture, codec, counters, execution, liveness, outcomes
from app.worker.execution import Execution, collecting
from app.worker.interruption import heed
from app.worker.specs import spec_of
from app.worker.unflushed import unflushed

logger = logging.getLogger(__name__)

START_PATIENCE = 3600.0

# A start is waited for, and with it the end before it.
_START = functools.partial(bookkeeping.single, patience=START_PATIENCE, committed=unflushed.flushed)

# Celery keeps the request per thread; a body on the bridge's loop thread finds it here.
current_request: ContextVar[Any] = ContextVar("current_request", default=None)

# Parts of a canvas that Celery's own code reads from the request; what a message says of them is nothing.
_REQUEST = (
    *("callbacks", "errbacks", "chain", "chord", "group", "group_index", "root_id", "parent_id"),
    *("shadow", "headers", "stamped_headers", "stamps"),
)


class OutcomeWithheld(Exception):
    """A body raised what would leave its run without an outcome: Ignore, Reject, or something that is no error."""


class Task(CeleryTask):  # type: ignore[misc]
    """``aliases`` are names under which callers may also know the task (a path it had before);
    ``default_queue`` is what the decorator's ``queue`` says;
    ``max_attempts`` and ``on_worker_lost`` ("fail" or "retry") are the defaults of its runs;
    ``concurrency_limit`` (runs at once) and ``rate_limit`` ("10/m": starts) hold across all workers, for
    the runs of the task, or of all that name the same ``concurrency_key``.

    Two rules can start a further attempt, and count the same attempts. Celery's own: `self.retry` and
    `autoretry_for`, up to Celery's ``max_retries``, after Celery's countdown. The run's: an error that
    leaves the body while ``attempt < max_attempts``, after the run's back-off. Celery's comes first,
    because it is the body that asks; when it gives up, its error leaves the body, and the run's rule is
    asked; an error with `retry_after` (seconds, an hour at most) puts that off. So a run has at most ``max(max_retries + 1, max_attempts)`` attempts. Every attempt that
    ended is kept in the history, and all delay lives in PostgreSQL.
    """

    abstract = True
    Request = "app.worker.request:Request"
    aliases: ClassVar[tuple[str, ...]] = ()
    schedulable: ClassVar[bool] = True
    default_queue: ClassVar[str] = DEFAULT_QUEUE
    max_attempts: ClassVar[int] = 1
    on_worker_lost: ClassVar[str] = "fail"
    concurrency_key: ClassVar[str | None] = None
    concurrency_limit: ClassVar[int | None] = None
    schedules: ClassVar[Sequence[TaskSchedule | Mapping[str, Any]]] = ()

    def _get_request(self) -> Any:
        request = current_request.get()
        if request is not None and request.task == self.name:
            return request
        return super()._get_request()

    request = property(_get_request)

    def before_start(self, task_id: str, args: list[Any], kwargs: dict[str, Any]) -> None:
        """Start the attempt and fill in what the run row keeps: arguments, and the canvas.

        Raises:
            Ignore: there is nothing to start.
        """
        request = self.request
        if request.is_eager or request.called_directly:
            return
        execution.current.set(None)
        run_id = as_run_id(task_id)
        started = None if run_id is None else self._start(run_id, (request.retries or 0) + 1, request)
        if run_id is None or started is None:
            counters.nothing_to_start(task_id)
            raise Ignore("nothing to start")
        if isinstance(started, runs.Held):
            logger.info("run %s waits: %s", task_id, started.reason, extra={"action": "start_held"})
            raise Ignore("over its limit")
        logs.enter(
            run_id=task_id,
            attempt=started.attempt,
            schedule_id=_text(started.schedule_id),
            request_id=started.request_id,
        )
        canvas: dict[str, Any] = codec.from_stored(started.canvas or {})
        args[:] = codec.from_stored(started.args)
        kwargs.clear()
        kwargs.update(codec.from_stored(started.kwargs))
        celery_id = canvas.get("id", task_id)
        request.update(
            {name: canvas.get(name) for name in _REQUEST},
            id=celery_id,
            root_id=canvas.get("root_id", celery_id),
            replaced_task_nesting=canvas.get("replaced_task_nesting", 0),
            args=args,
            kwargs=kwargs,
            attempt=started.attempt,
            run_id=task_id,
            upbeat_run=run_id,
            ignore_result=canvas.get("ignore_result", self.ignore_result),
            schedule_id=_text(started.schedule_id),
            scheduled_for=None if started.scheduled_for is None else started.scheduled_for.isoformat(),
        )
        alone = not canvas and not started.settles
        execution.current.set(Execution(run_id, started.attempt, request, canvas, alone))

    @staticmethod
    def _start(run_id: Any, attempt: int, request: Any) -> runs.Started | runs.Held | None:
        worker_id, lease = liveness.worker_id(), get_settings().worker.lease
        published = getattr(request, "upbeat_published_at", None)
        claim: runs.Claim = {
            "attempt": attempt,
            "worker_id": worker_id,
            "worker": request.hostname,
            "token": start_token(os.getpid()),
            "published_at": None if published is None else datetime.fromtimestamp(published, UTC),
            "task": request.task,
        }

        def work(session: Session) -> runs.Started | runs.Held | None:
            started = runs.start(session, run_id, **claim)
            # After an outage the first message may come before the lease is renewed; it must not wait for its repeat.
            if started is None and renew_expired_lease(session, worker_id, lease):
                return runs.start(session, run_id, **claim)
            return started

        try:
            # What is not started alone is limited; or there is nothing to start.
            started = runs.start_alone(_START, run_id, **claim) or bookkeeping.transact(
                work, patience=START_PATIENCE
            )
        except SQLAlchemyError as error:
            # The run is still queued in PostgreSQL, and is woken again when that is back.
            logger.warning("not started: %s", bookkeeping.first_line(error), extra={"action": "start_failed"})
            raise Ignore("the database is away") from error
        failpoints.reach("start.committed")
        return started

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        **options: Any,
    ) -> Any:
        """Insert a queued run, commit, then wake a worker; `countdown`, `eta` and `expires` are kept there.

        Called inside a run under its own id by `self.retry`, it gives the run back instead. A broker
        that is away is logged: the run stays queued and is sent later.

        Raises:
            TypeError: the arguments do not fit the task.
            NotStorable: they cannot be written as JSON.
            ValueError: an option has a value that cannot be used.
        """
        if self.app.conf.task_always_eager:
            return super().apply_async(args, kwargs, task_id=task_id, **options)
        if self.typing and hasattr(self, "__header__"):
            self.__header__(*(args or ()), **(kwargs or {}))
        if self._dump_pydantic_arguments is not None:
            args, kwargs = self._dump_pydantic_arguments(args, kwargs)
        running = execution.current.get()
        if running is not None and task_id == running.request.id and "retries" in options:
            self._give_back(running, args, kwargs, options)
            return self.AsyncResult(task_id)
        own = {key: value for key, value in self._get_exec_options().items() if value is not None}
        own.pop("queue", None)
        options = {**own, "ignore_result": self.ignore_result, **options}
        return send(self.app, calls.call(self.spec(), args, kwargs, task_id, options), options, self.trail)

    def _give_back(
        self,
        running: Execution,
        args: Sequence[Any] | None,
        kwargs: Mapping[str, Any] | None,
        options: Mapping[str, Any],
    ) -> None:
        """The run's next attempt, as `self.retry` wants it; a worker that lost the run changes nothing."""
        delay, due_at = calls.due(options)
        limits = {name: options.get(name) for name in ("soft_time_limit", "time_limit")}
        error = running.retry_error
        wish = requeue.GiveBack(
            delay=delay,
            due_at=due_at,
            args=codec.to_stored(list(args or ())),
            kwargs=codec.to_stored(dict(kwargs or {})),
            queue=calls.queue_name(options.get("queue")),
            options={name: value for name, value in limits.items() if value is not None},
            error=None if error is None else outcomes.error_of(error),
        )
        worker_id, beat = liveness.worker_id(), get_settings().beat
        lines = capture.rest(running.run_id, running.attempt)

        def work(session: Session) -> tuple[bool, RunMessage | None]:
            run_logs.store_lines(session, lines)
            return requeue.give_back(
                session,
                running.run_id,
                attempt=running.attempt,
                worker_id=worker_id,
                wish=wish,
                redispatch_delay=beat.redispatch_delay,
                beat_sleep=beat.max_sleep,
            )

        done, message = bookkeeping.transact(work, patience=outcomes.PATIENCE)
        if not done:
            # Fenced, or asked to stop: the failure of this attempt is the end, if it is anything.
            failed = runs.Outcome(runs.RunState.FAILED, error=wish.error, retryable=True)
            outcomes.finish(self.app, running.run_id, running.attempt, failed, running)
        running.settled = True
        publish(self.app, [message])

    def give_back(self, running: Execution, error: Retry) -> None:
        """The body raised Retry by itself, without `self.retry`: do what it asks for."""
        running.retry_error = error.exc
        when = error.when
        options = {"countdown": when} if isinstance(when, int | float) else {"eta": when}
        request = running.request
        self._give_back(running, request.args, request.kwargs, options)

    def retry(self, *args: Any, exc: BaseException | None = None, **options: Any) -> Any:
        """Celery's own, with the error kept for the attempt's history."""
        running = execution.of_request(self.request)
        if running is not None:
            running.retry_error = exc or sys.exc_info()[1]
        return super().retry(*args, exc=exc, **options)

    def on_replace(self, sig: Any) -> Any:
        """End this run and let ``sig`` go on under its Celery id, in one transaction."""
        running = execution.of_request(self.request)
        if running is None:
            return super().on_replace(sig)
        with collecting() as writes:
            sig.delay()
        running.successors = writes
        outcome = runs.Outcome(runs.RunState.SUCCEEDED, reason=Reason.TASK_REPLACED)
        outcomes.finish(self.app, running.run_id, running.attempt, outcome, running)
        raise Ignore("replaced by another task")

    def spec(self) -> TaskSpec:
        """What the catalogue says of this task."""
        return _spec(self)


@functools.lru_cache(maxsize=4096)
def _spec(task: Task) -> TaskSpec:
    return spec_of(task)


def refuse_withheld(error: Ignore | Reject) -> NoReturn:
    """A body's own Ignore or Reject becomes an error of its run.

    Raises:
        OutcomeWithheld: always.
    """
    raise OutcomeWithheld(
        f"The task raised {type(error).__name__}, which would leave its run without an outcome;"
        " return, or raise an error, instead."
    ) from error


def refuse_exit(error: BaseException) -> NoReturn:
    """What a body raises that is no error (`sys.exit`, KeyboardInterrupt, CancelledError) becomes an error of its run.

    A `sys.exit` in a pool's child goes on its way: it ends that, which is reported. So does what a signal raises.

    Raises:
        OutcomeWithheld: for all others.
    """
    signalled = isinstance(error, WorkerShutdown | WorkerTerminate)
    if signalled or (isinstance(error, SystemExit) and not liveness.in_main_process()):
        raise error
    did = f"exited with {error.code}" if isinstance(error, SystemExit) else f"raised {type(error).__name__}"
    raise OutcomeWithheld(f"The task {did}; return, or raise an error, instead.") from error


def send(app: Any, made: calls.Call, options: Mapping[str, Any], trail: bool = True) -> Any:
    """Write the call, or leave it to the transaction that ends the run; answers its AsyncResult."""
    if not execution.kept(made.write):
        publish(app, [bookkeeping.transact(made.write)])
    heed()
    result = app.AsyncResult(made.task_id)
    result.ignored = made.ignored
    running = execution.current.get()
    if running is not None and trail and options.get("add_to_parent", True):
        running.request.children.append(result)
    return result


def publish(app: Any, messages: Sequence[RunMessage | None]) -> None:
    """Wake workers; a broker that is away is logged, and the runs are sent later."""
    app.publisher.try_publish([message for message in messages if message is not None])


def _text(value: UUID | None) -> str | None:
    return None if value is None else str(value)
