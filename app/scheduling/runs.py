"""The run's state machine: every transition is one update guarded by state and attempt.

    queued ──> running ──> succeeded | failed | timed_out | lost | cancelled
       │           └─ retry ──> queued (attempt + 1, due later)
       └──> cancelled | expired | skipped

The attempt number is the fencing token: who comes with an old one changes nothing. Functions take a
sync session and leave the commit to their caller. A run whose end concerns its schedule (`settles`) is
ended with that schedule's clock locked first; all others are ended by the guarded update alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NotRequired, TypedDict, Unpack
from uuid import UUID

from sqlalchemy import TextClause, func, insert, select
from sqlalchemy.orm import Session

from app.db import documents
from app.errors import NotFound
from app.scheduling import limiting, run_logs, settlement, statements, tally, tracing
from app.scheduling.canvas import columns_of
from app.scheduling.catalogue import TaskSpec
from app.scheduling.config import RunOptions
from app.scheduling.ids import new_id
from app.scheduling.messages import RunMessage
from app.scheduling.models import RunRow
from app.scheduling.policies import Reason
from app.scheduling.states import Origin, RunState

__all__ = [
    "Claim",
    "Held",
    "Origin",
    "Outcome",
    "RunState",
    "Started",
    "cancel",
    "end_queued",
    "finish",
    "finish_alone",
    "no_run",
    "overdue",
    "read",
    "require",
    "start",
    "start_alone",
    "submit",
    "wake_beats",
]

LOST_ATTEMPTS = 3
LONGEST_RETRY_AFTER = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Started:
    """What a worker needs to execute the attempt that it has just started. Lateness is in seconds: of the
    start, and of the message that led to it."""

    args: list[Any]
    kwargs: dict[str, Any]
    attempt: int
    options: dict[str, Any]
    schedule_id: UUID | None
    scheduled_for: datetime | None
    canvas: dict[str, Any] | None
    task: str
    queue: str
    start_lateness: float
    dispatch_lateness: float | None
    traceparent: str | None
    settles: bool = False
    request_id: str | None = None


# Executes one statement as a transaction of its own, and answers its first row.
Single = Callable[[TextClause, Mapping[str, Any]], tuple[Any, ...] | None]


class Claim(TypedDict):
    """Who wants to start which attempt.

    ``token`` is made for this call by the caller and repeated when the call itself must be repeated
    because its reply was lost. ``task`` narrows the guard to runs of that task, for those who know
    no more than a message.
    """

    attempt: int
    worker_id: UUID
    worker: str
    token: UUID
    published_at: NotRequired[datetime | None]
    task: NotRequired[str | None]


@dataclass(frozen=True, slots=True)
class Held:
    """The run is over a limit and stays queued; it is woken when its turn comes."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended. ``error`` has the keys type, message and traceback.

    ``retry_after``: seconds before which another attempt would be in vain; an hour is the most that is waited.
    """

    state: RunState
    result: Any = None
    error: dict[str, Any] | None = None
    reason: Reason | None = None
    retryable: bool = False
    retry_after: float | None = None


def submit(
    session: Session,
    *,
    task: TaskSpec,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    options: RunOptions,
    origin: Origin,
    redispatch_delay: float,
    due_at: datetime | None = None,
    due_in: float = 0.0,
    requested_by: str | None = None,
    run_id: UUID | None = None,
    schedule: tuple[UUID, int] | None = None,
    queue: str | None = None,
    blocked_by: UUID | None = None,
    expires: datetime | float | None = None,
    canvas: Mapping[str, Any] | None = None,
    replay_of: UUID | None = None,
    scheduled_for: datetime | None = None,
) -> RunMessage | None:
    """Insert a queued run; answers the wake-up to publish after the commit, None if it is due later.

    ``due_at`` is an instant, ``due_in`` seconds from the database's now; with ``blocked_by`` it is due when that
    run has ended. ``expires`` is the start deadline, an instant or seconds from now; ``canvas`` is what
    `app.scheduling.canvas` says of it.
    """
    now = func.statement_timestamp()  # one reading: a wake-up must not come before the run is due
    later = due_at is not None or due_in > 0
    waits = blocked_by is not None
    eligible: Any = due_at if due_at is not None else now + timedelta(seconds=due_in)
    stored, traceparent = options.stored(task), tracing.current()
    identifier = run_id or new_id()
    chosen = queue or options.queue or task.queue
    deadline: Any = now + timedelta(seconds=expires) if isinstance(expires, float | int) else expires
    dispatch: Any = eligible if later else now + timedelta(seconds=redispatch_delay)
    session.execute(
        insert(RunRow).values(
            id=identifier,
            state=RunState.QUEUED,
            origin=origin,
            task=task.name,
            queue=chosen,
            schedule_id=schedule[0] if schedule else None,
            schedule_version=schedule[1] if schedule else None,
            due_at=eligible if later else now,
            scheduled_for=scheduled_for,
            start_deadline=deadline,
            next_dispatch_at=None
            if waits
            else dispatch
            if deadline is None
            else func.least(dispatch, deadline),
            dispatches=0 if later or waits else 1,
            blocked_by=blocked_by,
            settles=waits,
            args=list(args),
            kwargs=dict(kwargs),
            options=stored,
            requested_by=requested_by,
            traceparent=traceparent,
            request_id=tracing.request_id(),
            replay_of=replay_of,
            **columns_of(canvas),
        )
    )
    return (
        None
        if later or waits
        else RunMessage.of(identifier, task.name, chosen, 1, stored, traceparent=traceparent)
    )


def wake_beats(session: Session, run_id: UUID, *, within: float) -> None:
    """Tell sleeping beats of a run that is due ``within`` seconds, sooner than they look again."""
    session.execute(statements.NOTIFY_BEATS_OF_RUN, {"id": run_id, "within": within})


def start(session: Session, run_id: UUID, **claim: Unpack[Claim]) -> Started | Held | None:
    """Start this attempt, at most once.

    None means that there is nothing to start: a duplicate or forged message, a run that is not due,
    expired or cancelled, or a worker without a lease.
    """
    values = _claiming(run_id, claim)
    row = session.execute(statements.START, values).one_or_none()
    if row is None:
        limited = limiting.start(session, values)
        if isinstance(limited, Reason):
            tally.note(session, tally.Counted("held", label=limited))
            return Held(limited)
        row = limited
    if row is None:
        return None
    started = Started(*row)
    tally.note(session, _began(started))
    return started


def start_alone(single: Single, run_id: UUID, **claim: Unpack[Claim]) -> Started | None:
    """As `start`, in one round trip, of a run without limits. None says nothing: `start` decides."""
    row = single(statements.START, _claiming(run_id, claim))
    if row is None:
        return None
    started = Started(*row)
    tally.tell(_began(started))
    return started


def _claiming(run_id: UUID, claim: Claim) -> dict[str, Any]:
    return {"published_at": None, "task": None, **claim, "id": run_id}


def _began(started: Started) -> tally.Began:
    return tally.Began(started.task, started.queue, started.start_lateness, started.dispatch_lateness)


def finish_alone(
    single: Single, run_id: UUID, *, attempt: int, outcome: Outcome, worker_id: UUID, awaited: bool = True
) -> bool:
    """As `finish`, in one round trip, when nothing follows from this end. False says nothing: `finish` decides.

    Unless ``awaited`` it is not yet durable: whoever asks for that asserts it again (`app.scheduling.ends`) until
    it is.
    """
    if outcome.retryable or outcome.state is RunState.LOST:
        return False
    ended = single(
        statements.FINISH_ALONE,
        {"id": run_id, "attempt": attempt, "worker_id": worker_id, "awaited": awaited, **_columns(outcome)},
    )
    if ended is None:
        return False
    tally.tell(tally.Ended(*ended[:4]))
    return True


def _columns(outcome: Outcome) -> dict[str, Any]:
    return {
        "state": outcome.state.value,
        "reason": outcome.reason and outcome.reason.value,
        "result": None if outcome.result is None else documents.written(outcome.result),
        "error": None if outcome.error is None else documents.written(outcome.error),
    }


def finish(
    session: Session, run_id: UUID, *, attempt: int, outcome: Outcome, worker_id: UUID | None = None
) -> RunState | None:
    """End this attempt; None if it was fenced and nothing changed.

    Answers `RunState.QUEUED` when the run goes back for another attempt. ``worker_id`` narrows the
    guard to the runs of one worker, for those who know no more than a message.
    """
    guard = {"id": run_id, "attempt": attempt, "worker_id": worker_id}
    error = None if outcome.error is None else documents.written(outcome.error)
    if outcome.retryable or outcome.state is RunState.LOST:
        row = session.execute(statements.ATTEMPT, guard).one_or_none()
        if row is None:
            return None
        if row.cancel_reason is not None:
            outcome = Outcome(RunState.CANCELLED, error=outcome.error, reason=Reason(row.cancel_reason))
        delay = _next_delay(run_id, attempt, outcome, row.options)
        if delay is not None:
            key = row.options.get("concurrency_key")
            if key is not None:
                # The schedule before the key: it may end here after all.
                settlement.lock_schedule_of(session, run_id)
                limiting.lock(session, key)
            again = guard | {"delay": delay.total_seconds(), "error": error}
            requeued = session.execute(statements.REQUEUE, again).one_or_none()
            if requeued is None:
                # Fenced; or somebody has just asked it to stop, and then it ends instead.
                late = session.execute(statements.ATTEMPT, guard).one_or_none()
                if late is None or late.cancel_reason is None:
                    return None
                stopped = Outcome(RunState.CANCELLED, error=outcome.error, reason=Reason(late.cancel_reason))
                return finish(session, run_id, attempt=attempt, outcome=stopped, worker_id=worker_id)
            tally.note(session, tally.Requeued(requeued.task, requeued.queue, outcome.state))
            if key is not None:
                limiting.release(session, key)
            session.execute(
                statements.KEEP_ATTEMPT,
                {
                    "id": run_id,
                    "attempt": attempt,
                    "outcome": outcome.state,
                    "worker": row.worker,
                    "started_at": row.started_at,
                    "error": error,
                },
            )
            return RunState.QUEUED
    return outcome.state if _end(session, statements.FINISH, guard | _columns(outcome)) else None


def end_queued(
    session: Session,
    run_id: UUID,
    state: RunState,
    reason: Reason,
    *,
    attempt: int | None = None,
    task: str | None = None,
    error: dict[str, Any] | None = None,
    late: bool = False,
) -> bool:
    """End a run that is queued; False if it is not, or not (any more) in this attempt or of this task.

    With ``late`` only if its start deadline has passed.
    """
    values = {
        "id": run_id,
        "state": state,
        "reason": reason,
        "attempt": attempt,
        "task": task,
        "error": None if error is None else documents.written(error),
        "late": late,
    }
    return _end(session, statements.END_QUEUED, values)


def cancel(session: Session, run_id: UUID, reason: Reason = Reason.CANCELLED_BY_USER) -> RunState | None:
    """Cancel a run: a queued one is over, a running one is asked to stop by its worker.

    Answers the state that the run is in now, None if it had ended before (or never was).
    """
    if end_queued(session, run_id, RunState.CANCELLED, reason):
        return RunState.CANCELLED
    requested = {"id": run_id, "reason": reason, "settles": False}
    if session.scalar(statements.REQUEST_CANCEL, requested) is not None:
        session.execute(statements.NOTIFY_CANCEL, {"id": run_id})
        return RunState.RUNNING
    # It may have gone back for another attempt between the two.
    return RunState.CANCELLED if end_queued(session, run_id, RunState.CANCELLED, reason) else None


def _end(session: Session, statement: TextClause, values: Mapping[str, Any]) -> bool:
    """One guarded ending: at once, or, for a run that settles or is limited, with schedule and key locked before."""
    ended = session.execute(statement, {**values, "settling": False}).one_or_none()
    if ended is None:
        settlement.lock_schedule_of(session, values["id"])
        limiting.lock_key_of(session, values["id"])
        ended = session.execute(statement, {**values, "settling": True}).one_or_none()
        if ended is None:
            return False
        if ended.settles:
            settlement.settle(session, ended)
    run_logs.tell_end(session, ended)
    if ended.limit_key is not None:
        limiting.release(session, ended.limit_key)
    return True


def _next_delay(run_id: UUID, attempt: int, outcome: Outcome, stored: Mapping[str, Any]) -> timedelta | None:
    options = RunOptions.model_validate(stored)
    if outcome.state is RunState.CANCELLED:
        return None
    if outcome.state is RunState.LOST:
        wanted = (options.max_attempts or LOST_ATTEMPTS) if options.on_worker_lost == "retry" else 1
        return timedelta(0) if attempt < wanted else None
    retry = options.retry()
    if attempt >= retry.max_attempts:
        return None
    asked = min(timedelta(seconds=outcome.retry_after or 0.0), LONGEST_RETRY_AFTER)
    return max(asked, retry.delay(attempt, run_id))


WORKER_LOST = Outcome(
    RunState.LOST,
    error={"type": "WorkerLost", "message": "The worker died or lost contact.", "traceback": None},
    reason=Reason.WORKER_LOST,
)
OVERDUE = Outcome(
    RunState.TIMED_OUT,
    error={"type": "TimeLimitExceeded", "message": "Ran past its hard time limit.", "traceback": None},
    reason=Reason.HARD_LIMIT,
)


def overdue(session: Session, grace: float) -> list[tuple[UUID, int, Outcome]]:
    """Attempts that have to be ended: their worker has no lease any more, or they are ``grace`` seconds past
    their hard limit. Each is for `finish`, in a transaction of its own."""
    lost = session.execute(statements.LOST).all()
    late = session.execute(statements.OVERDUE, {"grace": grace}).all()
    return [
        *((run_id, attempt, WORKER_LOST) for run_id, attempt in lost),
        *((run_id, attempt, OVERDUE) for run_id, attempt in late),
    ]


def read(session: Session, run_id: UUID) -> RunRow | None:
    """The run, or None."""
    return session.scalar(select(RunRow).where(RunRow.id == run_id))


def require(session: Session, run_id: UUID) -> RunRow:
    """The run; raises NotFound."""
    row = read(session, run_id)
    if row is None:
        raise no_run()
    return row


def no_run() -> NotFound:
    """What is said of an id that no run has."""
    return NotFound("There is no run with this id. GET /api/v1/runs lists them.")
