"""The run's state machine, on the real database."""

from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID, uuid4

import pytest
from sqlalchemy import event, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from app.db import execute_alone
from app.db.outages import is_away
from app.scheduling import ends, liveness, runs
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


@pytest.mark.parametrize(("asked", "seconds"), [(1.0, 20.0), (120.0, 120.0), (1e6, 3600.0)])
def test_an_error_puts_off_the_next_attempt_for_an_hour_at_most(
    sync: sessionmaker[Session], worker: UUID, *, asked: float, seconds: float
) -> None:
    run_id = _submit(sync, max_attempts=2, retry_base=20.0, retry_jitter=0.0)
    _start(sync, run_id, worker)
    outcome = Outcome(RunState.FAILED, error={"type": "Busy"}, retryable=True, retry_after=asked)
    assert _finish(sync, run_id, outcome) is RunState.QUEUED
    row, began = _read(sync, run_id), datetime.now(UTC)
    assert abs((row.due_at - began).total_seconds() - seconds) < 10


def test_a_cancellation_between_the_look_and_the_requeue_is_obeyed(
    sync: sessionmaker[Session], worker: UUID
) -> None:
    run_id = _submit(sync, max_attempts=5)
    _start(sync, run_id, worker)
    cancelled: list[RunState | None] = []

    def cancel_first(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "attempt = attempt + 1" in statement and not cancelled:
            cancelled.append(None)
            with sync.begin() as other:
                cancelled[0] = runs.cancel(other, run_id)

    with sync.begin() as session:
        event.listen(session.connection(), "before_cursor_execute", cancel_first)
        outcome = Outcome(RunState.FAILED, error={"type": "E"}, retryable=True)
        assert runs.finish(session, run_id, attempt=1, outcome=outcome) is RunState.CANCELLED
    assert cancelled == [RunState.RUNNING]
    row = _read(sync, run_id)
    assert (row.state, row.reason, row.attempt) == (RunState.CANCELLED, Reason.CANCELLED_BY_USER, 1)


def test_the_schedule_is_locked_before_the_key_of_a_limit(sync: sessionmaker[Session], worker: UUID) -> None:
    """Also of a run that would have gone back for another attempt, and ends because somebody has just cancelled it."""
    run_id = _submit(sync, max_attempts=5, concurrency_limit=1)
    _start(sync, run_id, worker)
    locks: list[str] = []

    def watch(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "attempt = attempt + 1" in statement:
            with sync.begin() as other:
                other.execute(
                    text(
                        "UPDATE celery_task_runs SET cancel_requested_at = clock_timestamp(),"
                        " cancel_reason = 'cancelled_by_user'"
                    )
                )
        if "celery_periodic_task_clocks" in statement:
            locks.append("schedule")
        if "pg_advisory_xact_lock" in statement:
            locks.append("key")

    with sync.begin() as session:
        event.listen(session.connection(), "before_cursor_execute", watch)
        outcome = Outcome(RunState.FAILED, error={"type": "E"}, retryable=True)
        assert runs.finish(session, run_id, attempt=1, outcome=outcome) is RunState.CANCELLED
    assert locks[:2] == ["schedule", "key"]


def test_a_cancellation_finds_what_is_requeued_between_its_two_looks(
    sync: sessionmaker[Session], worker: UUID
) -> None:
    run_id = _submit(sync, max_attempts=5)
    _start(sync, run_id, worker)
    requeued: list[RunState | None] = []

    def requeue_first(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "cancel_requested_at = COALESCE" in statement and not requeued:
            requeued.append(
                _finish(sync, run_id, Outcome(RunState.FAILED, error={"type": "E"}, retryable=True))
            )

    with sync.begin() as session:
        event.listen(session.connection(), "before_cursor_execute", requeue_first)
        assert runs.cancel(session, run_id) is RunState.CANCELLED
    assert requeued == [RunState.QUEUED]
    row = _read(sync, run_id)
    assert (row.state, row.reason, row.attempt) == (RunState.CANCELLED, Reason.CANCELLED_BY_USER, 2)


def _alone(sync: sessionmaker[Session]) -> runs.Single:
    return partial(execute_alone, sync.kw["bind"])


def test_start_and_end_in_one_round_trip_each(sync: sessionmaker[Session], worker: UUID) -> None:
    run_id, claim = _submit(sync), runs.Claim(attempt=1, worker_id=worker, worker="w@host", token=new_id())
    started = runs.start_alone(_alone(sync), run_id, **claim)
    assert started is not None
    assert (started.args, started.kwargs, started.attempt) == ([1, "zwei"], {"drei": None}, 1)
    again = runs.start_alone(_alone(sync), run_id, **claim)
    assert again is not None, "a repeat, whose first reply was lost"
    assert (again.args, again.attempt) == (started.args, started.attempt)
    other = runs.Claim(attempt=1, worker_id=worker, worker="w@host", token=new_id())
    assert runs.start_alone(_alone(sync), run_id, **other) is None
    ended = partial(runs.finish_alone, _alone(sync), run_id, attempt=1)
    assert not ended(outcome=DONE, worker_id=_worker(sync)), "another worker is fenced"
    assert ended(outcome=DONE, worker_id=worker)
    assert not ended(outcome=DONE, worker_id=worker), "a terminal run never changes"
    row = _read(sync, run_id)
    assert (row.state, row.result) == (RunState.SUCCEEDED, {"answer": 42})


def test_an_end_that_was_undone_is_asserted_again_and_what_was_decided_otherwise_stays(
    sync: sessionmaker[Session], worker: UUID
) -> None:
    shown, undone, given_up, again = [_submit(sync) for _ in range(4)]
    for run_id in (shown, undone, given_up, again):
        assert _start(sync, run_id, worker) is not None
    ended = partial(runs.finish_alone, _alone(sync), attempt=1, outcome=DONE, worker_id=worker, awaited=False)
    assert ended(shown)
    before = _read(sync, shown)
    assert _finish(sync, given_up, Outcome(RunState.CANCELLED)) is RunState.CANCELLED
    assert _finish(sync, again, Outcome(RunState.FAILED, retryable=True)) is not None
    reports = [ends.End(run_id, 1, DONE, worker) for run_id in (shown, undone, given_up, again)]
    for number in (3, 2):
        with sync.begin() as session:
            written = session.scalar(text("SELECT pg_current_wal_insert_lsn()"))
            left = ends.undone(_alone(sync), reports)
            assert len(left) == number
            ends.assert_again(session, left)
        with sync() as session:
            assert session.scalar(
                text("SELECT pg_current_wal_flush_lsn() >= CAST(:lsn AS pg_lsn)"), {"lsn": written}
            )
            late = session.execute(text("SELECT run_id, outcome FROM celery_task_late_outcomes")).all()
        assert sorted(late) == [(given_up, "succeeded"), (again, "succeeded")]
        assert _read(sync, shown).finished_at == before.finished_at
        assert (_read(sync, undone).state, _read(sync, undone).result) == (RunState.SUCCEEDED, DONE.result)
        assert _read(sync, given_up).state == RunState.CANCELLED


def test_a_failure_that_is_reported_twice_is_not_late(sync: sessionmaker[Session], worker: UUID) -> None:
    """The reply to the first report was lost, and its run has gone back for another attempt."""
    run_id, failed = _submit(sync, max_attempts=2), Outcome(RunState.FAILED, error={}, retryable=True)
    _start(sync, run_id, worker)
    assert _finish(sync, run_id, failed) is RunState.QUEUED
    with sync.begin() as session:
        ends.assert_again(session, [ends.End(run_id, 1, failed, worker)])
        assert (
            session.scalar(
                text("SELECT count(*) FROM celery_task_late_outcomes WHERE run_id = :id"), {"id": run_id}
            )
            == 0
        )


@pytest.mark.parametrize(
    "concern",
    ["settles = true", "streamed_until = clock_timestamp()", 'options = \'{"concurrency_key": "k"}\''],
)
def test_an_end_that_concerns_others_is_not_decided_alone(
    sync: sessionmaker[Session], worker: UUID, concern: str
) -> None:
    run_id = _submit(sync)
    _start(sync, run_id, worker)
    with sync.begin() as session:
        session.execute(text(f"UPDATE celery_task_runs SET {concern} WHERE id = :id"), {"id": run_id})
    assert not runs.finish_alone(_alone(sync), run_id, attempt=1, outcome=DONE, worker_id=worker)
    failed = Outcome(RunState.FAILED, retryable=True)
    assert not runs.finish_alone(_alone(sync), run_id, attempt=1, outcome=failed, worker_id=worker)
    assert _read(sync, run_id).state == RunState.RUNNING
    assert _finish(sync, run_id) is RunState.SUCCEEDED


def test_what_the_database_refuses_is_told_as_from_a_session(sync: sessionmaker[Session]) -> None:
    with pytest.raises(DBAPIError) as refused:
        _alone(sync)(text("SELECT 1 / CAST(:n AS int)"), {"n": 0})
    assert not is_away(refused.value)
    with pytest.raises(DBAPIError) as gone:
        _alone(sync)(text("SELECT pg_terminate_backend(pg_backend_pid())"), {})
    assert is_away(gone.value)
    assert _alone(sync)(text("SELECT 1"), {}) == (1,)


def test_numbers_come_back_as_they_were_given(sync: sessionmaker[Session], worker: UUID) -> None:
    """Floats that `jsonb` would turn into integers are among the arguments and the result."""
    numbers = [1e16, -1e23, 1.7976931348623157e308, 5e-324, 0.1, 10**30]
    run_id = new_id()
    with sync.begin() as session:
        runs.submit(
            session,
            task=TASK,
            args=numbers,
            kwargs={"numbers": numbers},
            options=RunOptions(),
            origin=Origin.SUBMIT,
            redispatch_delay=30,
            run_id=run_id,
        )
    started = _start(sync, run_id, worker)
    assert started is not None
    assert repr((started.args, started.kwargs)) == repr((numbers, {"numbers": numbers}))
    assert _finish(sync, run_id, Outcome(RunState.SUCCEEDED, result=numbers)) is RunState.SUCCEEDED
    with sync() as session:
        assert repr(session.get_one(RunRow, run_id).result) == repr(numbers)
