"""The run's state machine, on the real database."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session, sessionmaker

from app.scheduling import liveness, runs
from app.scheduling.catalogue import TaskSpec
from app.scheduling.config import RunOptions
from app.scheduling.ids import id_at, instant_of, new_id, tick_id
from app.scheduling.models import AttemptRow, RunRow
from app.scheduling.policies import Reason
from app.scheduling.runs import Origin, Outcome, RunState

TASK = TaskSpec(name="module.task", path="module.tasks.task", queue="priority_low")
DONE = Outcome(RunState.SUCCEEDED, result={"answer": 42})


@pytest.fixture
def worker(sync: sessionmaker[Session]) -> UUID:
    return _worker(sync)


def _worker(sync: sessionmaker[Session]) -> UUID:
    identifier = new_id()
    with sync.begin() as session:
        liveness.register_worker(session, identifier, name="w@host", pid=1, queues=["celery"], lease=60)
    return identifier


def _submit(sync: sessionmaker[Session], *, due_in: float = 0, **options: object) -> UUID:
    run_id = new_id()
    with sync.begin() as session:
        runs.submit(
            session,
            task=TASK,
            args=[1, "zwei"],
            kwargs={"drei": None},
            options=RunOptions.model_validate(options),
            origin=Origin.SUBMIT,
            redispatch_delay=30,
            due_in=due_in,
            run_id=run_id,
        )
    return run_id


def _start(
    sync: sessionmaker[Session], run_id: UUID, worker: UUID, *, attempt: int = 1, token: UUID | None = None
) -> runs.Started | None:
    with sync.begin() as session:
        started = runs.start(
            session, run_id, attempt=attempt, worker_id=worker, worker="w@host", token=token or new_id()
        )
        assert not isinstance(started, runs.Held)
        return started


def _finish(
    sync: sessionmaker[Session], run_id: UUID, outcome: Outcome = DONE, *, attempt: int = 1
) -> RunState | None:
    with sync.begin() as session:
        return runs.finish(session, run_id, attempt=attempt, outcome=outcome)


def _sweep(session: Session, grace: float = 60) -> int:
    """As a beat sweeps; answers how many attempts it ended."""
    found = runs.overdue(session, grace)
    return sum(
        runs.finish(session, run_id, attempt=attempt, outcome=outcome) is not None
        for run_id, attempt, outcome in found
    )


def _read(sync: sessionmaker[Session], run_id: UUID) -> RunRow:
    with sync() as session:
        row = runs.read(session, run_id)
    assert row is not None
    return row


def _due_now(sync: sessionmaker[Session], run_id: UUID) -> None:
    with sync.begin() as session:
        session.execute(
            text("UPDATE celery_task_runs SET due_at = clock_timestamp() WHERE id = :id"), {"id": run_id}
        )


def test_from_queued_to_succeeded(sync: sessionmaker[Session], worker: UUID) -> None:
    run_id = _submit(sync)
    started = _start(sync, run_id, worker)
    assert started is not None
    assert (started.args, started.kwargs, started.attempt) == ([1, "zwei"], {"drei": None}, 1)
    assert _read(sync, run_id).state == RunState.RUNNING
    assert _finish(sync, run_id) is RunState.SUCCEEDED
    row = _read(sync, run_id)
    assert (row.state, row.result, row.queue) == (RunState.SUCCEEDED, {"answer": 42}, "priority_low")
    assert row.finished_at is not None
    assert row.started_at is not None
    assert row.started_at <= row.finished_at


def test_an_attempt_starts_once_whoever_tries(sync: sessionmaker[Session], worker: UUID) -> None:
    run_id = _submit(sync)
    assert _start(sync, run_id, worker) is not None
    assert _start(sync, run_id, worker) is None
    assert _start(sync, run_id, _worker(sync)) is None
    assert _start(sync, run_id, worker, attempt=2) is None


def test_a_start_whose_reply_was_lost_is_recognised_by_its_token(
    sync: sessionmaker[Session], worker: UUID
) -> None:
    run_id, token = _submit(sync), new_id()
    assert _start(sync, run_id, worker, token=token) is not None
    assert _start(sync, run_id, worker, token=token) is not None


def test_a_worker_without_a_lease_starts_nothing(sync: sessionmaker[Session], worker: UUID) -> None:
    run_id = _submit(sync)
    assert _start(sync, run_id, uuid4()) is None
    with sync.begin() as session:
        liveness.retire_worker(session, worker)
    assert _start(sync, run_id, worker) is None
    assert _read(sync, run_id).state == RunState.QUEUED


def test_what_is_due_later_or_past_its_deadline_does_not_start(
    sync: sessionmaker[Session], worker: UUID
) -> None:
    assert _start(sync, _submit(sync, due_in=60), worker) is None
    late = _submit(sync)
    with sync.begin() as session:
        session.execute(
            text("UPDATE celery_task_runs SET start_deadline = clock_timestamp() WHERE id = :id"),
            {"id": late},
        )
    assert _start(sync, late, worker) is None


def test_a_terminal_run_never_changes(sync: sessionmaker[Session], worker: UUID) -> None:
    run_id = _submit(sync)
    _start(sync, run_id, worker)
    _finish(sync, run_id)
    for state in (RunState.FAILED, RunState.LOST, RunState.SUCCEEDED):
        assert _finish(sync, run_id, Outcome(state)) is None
    assert _start(sync, run_id, worker) is None
    assert _read(sync, run_id).result == {"answer": 42}


def test_a_failure_is_tried_again_with_delay_and_keeps_its_history(
    sync: sessionmaker[Session], worker: UUID
) -> None:
    run_id = _submit(sync, max_attempts=2, retry_base=5.0, retry_jitter=0.0)
    failure = Outcome(
        RunState.FAILED, error={"type": "ValueError", "message": "no", "traceback": ""}, retryable=True
    )
    _start(sync, run_id, worker)
    assert _finish(sync, run_id, failure) is RunState.QUEUED
    row = _read(sync, run_id)
    assert (row.attempt, row.state, row.worker) == (2, RunState.QUEUED, None)
    assert row.next_dispatch_at == row.due_at
    assert _start(sync, run_id, worker, attempt=2) is None  # not due yet
    _due_now(sync, run_id)
    assert _start(sync, run_id, worker, attempt=1) is None  # fenced
    assert _start(sync, run_id, worker, attempt=2) is not None
    assert _finish(sync, run_id, DONE, attempt=1) is None
    assert _finish(sync, run_id, failure, attempt=2) is RunState.FAILED
    with sync() as session:
        (attempt,) = session.scalars(select(AttemptRow).where(AttemptRow.run_id == run_id))
    assert (attempt.attempt, attempt.outcome, attempt.worker) == (1, "failed", "w@host")


@pytest.mark.parametrize(("policy", "state"), [("fail", RunState.LOST), ("retry", RunState.QUEUED)])
def test_runs_of_a_dead_worker_are_found(
    sync: sessionmaker[Session], worker: UUID, policy: str, state: RunState
) -> None:
    run_id, safe = _submit(sync, on_worker_lost=policy), _submit(sync)
    _start(sync, run_id, worker)
    _start(sync, safe, _worker(sync))
    with sync.begin() as session:
        assert _sweep(session) == 0
        liveness.retire_worker(session, worker)
        assert _sweep(session) == 1
    assert _read(sync, run_id).state == state
    assert _read(sync, safe).state == RunState.RUNNING
    assert _finish(sync, run_id) is None  # the late outcome of the dead worker is fenced


def test_a_lost_run_is_tried_three_times_at_most(sync: sessionmaker[Session]) -> None:
    run_id = _submit(sync, on_worker_lost="retry")
    for attempt in (1, 2, 3):
        worker = _worker(sync)
        assert _start(sync, run_id, worker, attempt=attempt) is not None
        with sync.begin() as session:
            liveness.retire_worker(session, worker)
            assert _sweep(session) == 1
    row = _read(sync, run_id)
    assert (row.state, row.reason, row.attempt) == (RunState.LOST, Reason.WORKER_LOST, 3)


def test_a_run_past_its_hard_limit_is_timed_out(sync: sessionmaker[Session], worker: UUID) -> None:
    run_id = _submit(sync, time_limit=0.001)
    _start(sync, run_id, worker)
    with sync.begin() as session:
        assert _sweep(session, grace=60) == 0
        assert _sweep(session, grace=0) == 1
    row = _read(sync, run_id)
    assert (row.state, row.reason) == (RunState.TIMED_OUT, Reason.HARD_LIMIT)


def test_ids_carry_time_and_ticks_have_one_id() -> None:
    instant = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)
    schedule = new_id()
    identifier = tick_id(schedule, instant)
    assert identifier == tick_id(schedule, instant)
    assert identifier not in (tick_id(new_id(), instant), tick_id(schedule, instant + timedelta(seconds=1)))
    assert instant_of(identifier) == instant
    assert (identifier.version, identifier.variant) == (8, "specified in RFC 4122")
    assert id_at(instant) <= identifier < id_at(instant + timedelta(milliseconds=1))
