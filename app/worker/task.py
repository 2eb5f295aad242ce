"""The class of every `@app.task`: calls become run rows first, runs start by a guarded update."""

import logging
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, ClassVar
from uuid import UUID

from celery import Task as CeleryTask
from celery.exceptions import Ignore, Retry
from celery.result import AsyncResult
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.scheduling import runs
from app.scheduling.catalogue import TaskSpec
from app.scheduling.config import RunOptions
from app.scheduling.declarations import TaskSchedule
from app.scheduling.ids import new_id
from app.scheduling.messages import DEFAULT_QUEUE, BrokerUnavailable, RunMessage
from app.settings import get_settings
from app.worker import bookkeeping, codec, counters, liveness, logs, results

logger = logging.getLogger(__name__)

START_PATIENCE = 10.0

# Celery keeps the request per thread; a body on the bridge's loop thread finds it here.
current_request: ContextVar[Any] = ContextVar("current_request", default=None)

# What a message could add to the run that it wakes.
_SUCCESSORS = ("callbacks", "errbacks", "chain", "chord", "group")
_LATER = ("expires", "link", "link_error", "chain", "chord")


class OutcomeWithheld(Exception):
    """A body raised Ignore or Reject, which would leave its run without an outcome."""


class Task(CeleryTask):  # type: ignore[misc]
    """``aliases`` are names under which callers may also know the task (a path it had before);
    ``default_queue`` is what the decorator's ``queue`` says;
    ``max_attempts`` and ``on_worker_lost`` ("fail" or "retry") are the defaults of its runs;
    ``concurrency_limit`` (runs at once) and ``rate_limit`` ("10/m": starts) hold across all workers, for
    the runs of the task, or of all that name the same ``concurrency_key``."""

    abstract = True
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
        """Start the attempt and fill in the arguments that the run row keeps.

        Raises:
            Ignore: there is nothing to start.
        """
        request = self.request
        if request.is_eager or request.called_directly:
            return
        started = self._start(task_id, (request.retries or 0) + 1, request)
        if started is None:
            counters.nothing_to_start(task_id)
            raise Ignore("nothing to start")
        if isinstance(started, runs.Held):
            logger.info("run %s waits: %s", task_id, started.reason, extra={"action": "start_held"})
            raise Ignore("over its limit")
        logs.current_run.set(task_id)
        args[:] = codec.from_stored(started.args)
        kwargs.clear()
        kwargs.update(codec.from_stored(started.kwargs))
        request.update(
            dict.fromkeys(_SUCCESSORS),
            args=args,
            kwargs=kwargs,
            attempt=started.attempt,
            schedule_id=None if started.schedule_id is None else str(started.schedule_id),
            scheduled_for=None if started.scheduled_for is None else started.scheduled_for.isoformat(),
        )

    @staticmethod
    def _start(task_id: str, attempt: int, request: Any) -> runs.Started | runs.Held | None:
        run_id = results.run_id_of(task_id)
        if run_id is None:
            return None
        worker_id, token = liveness.worker_id(), new_id()
        published = getattr(request, "upbeat_published_at", None)

        def work(session: Session) -> runs.Started | runs.Held | None:
            return runs.start(
                session,
                run_id,
                attempt=attempt,
                worker_id=worker_id,
                worker=request.hostname,
                token=token,
                published_at=None if published is None else datetime.fromtimestamp(published, UTC),
                task=request.task,
            )

        try:
            return bookkeeping.transact(work, patience=START_PATIENCE)
        except SQLAlchemyError as error:
            # The run is still queued in PostgreSQL, and is woken again when that is back.
            logger.warning("not started: %s", bookkeeping.first_line(error), extra={"action": "start_failed"})
            raise Ignore("the database is away") from error

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        **options: Any,
    ) -> Any:
        """Insert a queued run, commit, then wake a worker; ``countdown`` is kept in PostgreSQL.

        A broker that is away is logged: the run stays queued and is sent later.

        Raises:
            TypeError: the arguments do not fit the task.
            NotStorable: they cannot be written as JSON.
            NotImplementedError: an option that runs do not have yet.
        """
        if self.app.conf.task_always_eager:
            return super().apply_async(args, kwargs, task_id=task_id, **options)
        if self.typing:
            self.__header__(*(args or ()), **(kwargs or {}))
        for name in _LATER:
            if options.get(name):
                raise NotImplementedError(f"{name} is not supported for runs yet")
        run_id = new_id() if task_id is None else results.run_id_of(task_id)
        if run_id is None:
            raise ValueError("task_id must be a UUID")
        self._publish(self._insert(run_id, args, kwargs, options), run_id)
        return AsyncResult(str(run_id), app=self.app)

    def _insert(
        self,
        run_id: UUID,
        args: Sequence[Any] | None,
        kwargs: Mapping[str, Any] | None,
        options: Mapping[str, Any],
    ) -> RunMessage | None:
        stored_args, stored_kwargs = codec.to_stored(list(args or ())), codec.to_stored(dict(kwargs or {}))
        chosen = RunOptions(
            queue=_queue_name(options.get("queue")),
            soft_time_limit=options.get("soft_time_limit"),
            time_limit=options.get("time_limit"),
        )
        due_at = options.get("eta")
        if due_at is not None and due_at.tzinfo is None:
            raise ValueError("eta needs a time zone")
        due_in = float(options.get("countdown") or 0.0)

        task, settings, repeated = self.spec(), get_settings().beat, False

        def work(session: Session) -> RunMessage | None:
            nonlocal repeated
            if repeated and (row := runs.read(session, run_id)) is not None:
                # The commit was done after all; only its reply was lost.
                return RunMessage.of(row.id, row.task, row.queue, row.attempt, row.options)
            repeated = True
            message = runs.submit(
                session,
                task=task,
                args=stored_args,
                kwargs=stored_kwargs,
                options=chosen,
                origin=runs.Origin.CODE,
                redispatch_delay=settings.redispatch_delay,
                due_at=due_at,
                due_in=due_in,
                run_id=run_id,
            )
            if message is None:
                runs.wake_beats(session, run_id, within=settings.max_sleep)
            return message

        return bookkeeping.transact(work)

    def _publish(self, message: RunMessage | None, run_id: UUID) -> None:
        if message is None:
            return
        try:
            self.app.publisher.publish([message])
        except BrokerUnavailable as error:
            logger.warning(
                "broker is away, run %s waits: %s",
                run_id,
                error,
                extra={"action": "publish_failed", "run_id": str(run_id)},
            )

    def retry(self, *args: Any, exc: BaseException | None = None, throw: bool = True, **options: Any) -> Any:
        """Give the run back for another attempt, if its own retry policy has one left.

        When, and how often, is decided by the run's `max_attempts` and back-off alone.
        """
        request = self.request
        if request.is_eager or request.called_directly:
            return super().retry(*args, exc=exc, throw=throw, **options)
        error = exc or RuntimeError("the task asked for a retry")
        state = results.finish(request.id, (request.retries or 0) + 1, results.outcome_of(error))
        if state is not runs.RunState.QUEUED:
            raise error
        again = Retry(f"later, as its policy says, after {error!r}", exc=error)
        if throw:
            raise again
        return again

    def spec(self) -> TaskSpec:
        """What the catalogue says of this task."""
        return self.app.catalogue().named(self.name)  # type: ignore[no-any-return]


def _queue_name(queue: Any) -> Any:
    return getattr(queue, "name", queue)
