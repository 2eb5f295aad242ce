"""The run's state machine: every transition is one update guarded by state and attempt.

    queued ──> running ──> succeeded | failed | timed_out | lost | cancelled
       │           └─ retry ──> queued (attempt + 1, due later)
       └──> cancelled | expired | skipped

The attempt number is the fencing token: who comes with an old one changes nothing. Functions take a
sync session and leave the commit to their caller.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from app.scheduling import statements
from app.scheduling.canvas import columns_of
from app.scheduling.catalogue import TaskSpec
from app.scheduling.config import RunOptions
from app.scheduling.ids import new_id
from app.scheduling.messages import RunMessage
from app.scheduling.models import RunRow
from app.scheduling.policies import Reason

LOST_ATTEMPTS = 3


class RunState(StrEnum):
    """Where a run stands; all but the first two are terminal."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    LOST = "lost"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    SKIPPED = "skipped"

    @property
    def terminal(self) -> bool:
        return self not in (RunState.QUEUED, RunState.RUNNING)


class Origin(StrEnum):
    """Where a run comes from."""

    SCHEDULE = "schedule"
    MANUAL = "manual"
    SUBMIT = "submit"
    CODE = "code"
    REPLAY = "replay"


@dataclass(frozen=True, slots=True)
class Started:
    """What a worker needs to execute the attempt that it has just started."""

    args: list[Any]
    kwargs: dict[str, Any]
    attempt: int
    options: dict[str, Any]
    schedule_id: UUID | None
    scheduled_for: datetime | None
    canvas: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended. ``error`` has the keys type, message and traceback."""

    state: RunState
    result: Any = None
    error: dict[str, Any] | None = None
    reason: Reason | None = None
    retryable: bool = False


def resolve_options(task: TaskSpec, options: RunOptions) -> dict[str, Any]:
    """The stored options of a run: the caller's, then the task's; only what is not a default."""
    given = options.model_dump(
        mode="json", include=set(RunOptions.model_fields) - {"queue"}, exclude_defaults=True
    )
    own = {
        "soft_time_limit": task.soft_time_limit,
        "time_limit": task.time_limit,
        "max_attempts": task.max_attempts if task.max_attempts > 1 else None,
        "on_worker_lost": task.on_worker_lost if task.on_worker_lost != "fail" else None,
    }
    return {key: value for key, value in own.items() if value is not None} | given


def message(run_id: UUID, task: str, queue: str, attempt: int, options: Mapping[str, Any]) -> RunMessage:
    """The wake-up of a stored run."""
    return RunMessage(
        run_id=run_id,
        task=task,
        queue=queue,
        attempt=attempt,
        soft_time_limit=options.get("soft_time_limit"),
        time_limit=options.get("time_limit"),
    )


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
    expires: datetime | float | None = None,
    canvas: Mapping[str, Any] | None = None,
    replay_of: UUID | None = None,
) -> RunMessage | None:
    """Insert a queued run; answers the wake-up to publish after the commit, None if it is due later.

    ``due_at`` is an instant, ``due_in`` seconds from the database's now; ``expires`` is the start
    deadline, either way. ``canvas`` is what `app.scheduling.canvas` says of it.
    """
    now = func.statement_timestamp()  # one reading: a wake-up must not come before the run is due
    later = due_at is not None or due_in > 0
    eligible: Any = due_at if due_at is not None else now + timedelta(seconds=due_in)
    stored = resolve_options(task, options)
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
            start_deadline=deadline,
            next_dispatch_at=dispatch if deadline is None else func.least(dispatch, deadline),
            dispatches=0 if later else 1,
            args=list(args),
            kwargs=dict(kwargs),
            options=stored,
            requested_by=requested_by,
            replay_of=replay_of,
            **columns_of(canvas),
        )
    )
    return None if later else message(identifier, task.name, chosen, 1, stored)


def start(
    session: Session,
    run_id: UUID,
    *,
    attempt: int,
    worker_id: UUID,
    worker: str,
    token: UUID,
    published_at: datetime | None = None,
) -> Started | None:
    """Start this attempt, at most once.

    ``token`` is made for this call by the caller and repeated when the call itself must be repeated
    because its reply was lost. None means that there is nothing to start: a duplicate or forged
    message, a run that is not due, expired or cancelled, or a worker without a lease.
    """
    row = session.execute(
        statements.START,
        {
            "id": run_id,
            "attempt": attempt,
            "worker_id": worker_id,
            "worker": worker,
            "token": token,
            "published_at": published_at,
        },
    ).one_or_none()
    return None if row is None else Started(*row)


def finish(
    session: Session, run_id: UUID, *, attempt: int, outcome: Outcome, worker_id: UUID | None = None
) -> RunState | None:
    """End this attempt; None if it was fenced and nothing changed.

    Answers `RunState.QUEUED` when the run goes back for another attempt. ``worker_id`` narrows the
    guard to the runs of one worker, for those who know no more than a message.
    """
    guard = {"id": run_id, "attempt": attempt, "worker_id": worker_id}
    error = None if outcome.error is None else json.dumps(outcome.error)
    if outcome.retryable or outcome.state is RunState.LOST:
        row = session.execute(statements.LOCK_RUNNING, guard).one_or_none()
        if row is None:
            return None
        delay = _next_delay(run_id, attempt, outcome, row.options)
        if delay is not None:
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
            session.execute(
                statements.REQUEUE,
                {"id": run_id, "attempt": attempt, "delay": delay.total_seconds(), "error": error},
            )
            return RunState.QUEUED
    values = {
        "state": outcome.state,
        "reason": outcome.reason,
        "result": None if outcome.result is None else json.dumps(outcome.result),
        "error": error,
    }
    changed = session.execute(statements.FINISH, guard | values).one_or_none()
    return None if changed is None else outcome.state


def _next_delay(run_id: UUID, attempt: int, outcome: Outcome, stored: Mapping[str, Any]) -> timedelta | None:
    options = RunOptions.model_validate(stored)
    if outcome.state is RunState.LOST:
        wanted = (options.max_attempts or LOST_ATTEMPTS) if options.on_worker_lost == "retry" else 1
        return timedelta(0) if attempt < wanted else None
    retry = options.retry()
    return retry.delay(attempt, run_id) if attempt < retry.max_attempts else None


def sweep_lost(session: Session) -> int:
    """End the runs of workers that have no lease any more; answers how many."""
    lost = session.execute(statements.LOST).all()
    for run_id, attempt in lost:
        error = {"type": "WorkerLost", "message": "The worker died or lost contact.", "traceback": None}
        finish(
            session,
            run_id,
            attempt=attempt,
            outcome=Outcome(RunState.LOST, error=error, reason=Reason.WORKER_LOST),
        )
    return len(lost)


def sweep_overdue(session: Session, grace: float) -> int:
    """End the runs that are ``grace`` seconds past their hard limit; answers how many."""
    overdue = session.execute(statements.OVERDUE, {"grace": grace}).all()
    for run_id, attempt in overdue:
        error = {"type": "TimeLimitExceeded", "message": "Ran past its hard time limit.", "traceback": None}
        outcome = Outcome(RunState.TIMED_OUT, error=error, reason=Reason.HARD_LIMIT)
        finish(session, run_id, attempt=attempt, outcome=outcome)
    return len(overdue)


def read(session: Session, run_id: UUID) -> RunRow | None:
    """The run, or None."""
    return session.scalar(select(RunRow).where(RunRow.id == run_id))
