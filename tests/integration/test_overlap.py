"""Overlap policies, limits and fixed delays from tick to tick, with the ends of runs between them."""

from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from app.scheduling import backfill, on_demand, runs, tally
from app.scheduling.config import BackfillRequest
from app.scheduling.ids import new_id
from app.scheduling.policies import Overlap, Reason
from app.scheduling.runs import RunState
from support.engine import CATALOGUE, MINUTE, Engine


def _minutes(engine: Engine, number: int) -> None:
    for _ in range(number):
        engine.passes(60)


@pytest.mark.parametrize(
    ("overlap", "after_four_ticks", "after_the_first_ended"),
    [
        ("skip", ["running", *["skipped overlap"] * 3], ["succeeded", *["skipped overlap"] * 3]),
        (
            "buffer_one",
            ["running", "waiting", *["skipped buffer_full"] * 2],
            ["succeeded", "queued", *["skipped buffer_full"] * 2],
        ),
        (
            "buffer_latest",
            ["running", *["skipped replaced"] * 2, "waiting"],
            ["succeeded", *["skipped replaced"] * 2, "queued"],
        ),
        ("buffer_all", ["running", *["waiting"] * 3], ["succeeded", "queued", *["waiting"] * 2]),
        ("allow_all", ["running", *["queued"] * 3], ["succeeded", *["queued"] * 3]),
    ],
)
def test_policies(
    engine: Engine, overlap: str, after_four_ticks: list[str], after_the_first_ended: list[str]
) -> None:
    schedule = engine.create(overlap=overlap, start_deadline=None)
    _minutes(engine, 1)
    first = engine.rows(schedule)[0].id
    assert engine.start(first) is not None
    _minutes(engine, 3)
    assert engine.states(schedule) == after_four_ticks
    engine.finish(first)
    engine.passes()
    assert engine.states(schedule) == after_the_first_ended
    sent = [message.run_id for message in engine.wakeups.sent]
    assert {
        row.id for row in engine.rows(schedule) if row.state == "queued" and row.blocked_by is None
    } <= set(sent)


def test_cancel_other_asks_the_running_one_to_stop_and_waits_for_its_end(engine: Engine) -> None:
    schedule = engine.create(overlap="cancel_other")
    _minutes(engine, 1)
    first = engine.rows(schedule)[0].id
    engine.start(first)
    _minutes(engine, 2)
    assert engine.states(schedule) == ["running", "skipped replaced", "waiting"]
    row = engine.rows(schedule)[0]
    assert row.cancel_requested_at == engine.clock.now - MINUTE
    assert row.cancel_reason == "replaced"
    engine.finish(first, RunState.CANCELLED)
    assert engine.states(schedule)[2] == "queued"
    engine.execute(engine.rows(schedule)[2].id)


def test_cancel_other_cancels_a_queued_one_at_once(engine: Engine) -> None:
    schedule = engine.create(overlap="cancel_other")
    _minutes(engine, 3)
    assert engine.states(schedule) == ["cancelled replaced", "cancelled replaced", "queued"]


def test_runs_that_make_room_for_another_are_counted_as_ended(engine: Engine) -> None:
    told: list[tally.Happening] = []
    tally.listen(told.append)
    try:
        latest, other = engine.create(overlap="buffer_latest"), engine.create(overlap="cancel_other")
        _minutes(engine, 3)
    finally:
        tally._listeners.remove(told.append)
    assert engine.states(latest) == ["queued", "skipped replaced", "waiting"]
    assert engine.states(other) == ["cancelled replaced", "cancelled replaced", "queued"]
    ends = [each.state for each in told if isinstance(each, tally.Ended) for _ in range(each.number)]
    assert sorted(ends) == ["cancelled", "cancelled", "skipped"]


def _ended(task: str) -> tally.Ended:
    return tally.Ended(task, "celery", "succeeded")


def test_what_a_savepoint_takes_back_is_not_counted(engine: Engine) -> None:
    told: list[tally.Happening] = []
    tally.listen(told.append)
    try:
        with engine.sync.begin() as session:
            tally.note(session, _ended("first"))
            with suppress(ValueError), session.begin_nested():
                tally.note(session, _ended("taken back"))
                raise ValueError
            with session.begin_nested():
                tally.note(session, _ended("second"))
            assert told == []
        with engine.sync() as session:
            with session.begin_nested():
                tally.note(session, _ended("all of it taken back"))
            session.rollback()
    finally:
        tally._listeners.remove(told.append)
    assert told == [_ended("first"), _ended("second")]


def test_a_slot_for_which_a_run_had_been_woken_goes_on_when_that_is_replaced(engine: Engine) -> None:
    limited: dict[str, Any] = {"concurrency_limit": 1, "concurrency_key": "k"}
    running, other = engine.create(**limited), engine.create(overlap="cancel_other", **limited)
    third = engine.create(start_deadline=None, **limited)

    def start(schedule: UUID) -> object:
        run_id = engine.rows(schedule)[-1].id
        with engine.sync.begin() as session:
            return runs.start(
                session, run_id, attempt=1, worker_id=engine.worker, worker="w@host", token=new_id()
            )

    _minutes(engine, 1)
    assert isinstance(start(running), runs.Started)
    assert start(other) == start(third) == runs.Held(Reason.CONCURRENCY_LIMIT)
    for schedule in (running, third):
        engine.update(schedule, task_enabled=False)
    engine.execute_sql(
        "UPDATE celery_task_runs SET due_at = due_at + interval '1 s' WHERE id = :id",
        id=engine.rows(third)[0].id,
    )
    engine.finish(engine.rows(running)[0].id)
    assert [engine.rows(each)[0].reason for each in (other, third)] == [None, "concurrency_limit"]
    _minutes(engine, 1)
    assert engine.states(other) == ["cancelled replaced", "queued"]
    assert engine.states(third) == ["queued"], "it is woken"


def test_a_line_closes_up_when_one_in_it_is_cancelled(engine: Engine) -> None:
    schedule = engine.create(overlap="buffer_all")
    _minutes(engine, 4)
    ids = [row.id for row in engine.rows(schedule)]
    assert [row.blocked_by for row in engine.rows(schedule)] == [None, *ids[:3]]
    assert engine.cancel(ids[1]) is RunState.CANCELLED
    assert engine.rows(schedule)[2].blocked_by == ids[0]
    engine.execute(ids[0])
    assert engine.states(schedule) == ["succeeded", "cancelled cancelled_by_user", "queued", "waiting"]


def test_at_most_a_hundred_wait(engine: Engine) -> None:
    schedule = engine.create({"type": "interval", "every": 1, "unit": "seconds"}, overlap="buffer_all")
    for _ in range(13):
        engine.passes(8)
    assert engine.states(schedule) == ["queued", *["waiting"] * 100, *["skipped buffer_full"] * 3]


def test_a_waiting_run_cannot_be_started_and_its_deadline_counts_from_its_turn(engine: Engine) -> None:
    schedule = engine.create(overlap="buffer_all", start_deadline=90)
    _minutes(engine, 2)
    first, second = (row.id for row in engine.rows(schedule))
    assert engine.start(second) is None
    assert engine.start(first) is not None
    engine.update(schedule, task_enabled=False)
    engine.passes(600)
    assert engine.states(schedule) == ["running", "waiting"]
    engine.finish(first)
    row = engine.rows(schedule)[1]
    assert (row.due_at, row.start_deadline) == (engine.clock.now, engine.clock.now + timedelta(seconds=90))
    engine.passes(91)
    assert engine.states(schedule) == ["succeeded", "expired deadline"]


def test_the_deadline_of_a_late_tick_that_waits_counts_from_its_turn(engine: Engine) -> None:
    schedule = engine.create(overlap="buffer_all", start_deadline=90, catch_up="all")
    _minutes(engine, 1)
    engine.start(engine.rows(schedule)[0].id)
    engine.passes(300)
    engine.finish(engine.rows(schedule)[0].id)
    row = engine.rows(schedule)[1]
    assert (row.due_at, row.start_deadline) == (engine.clock.now, engine.clock.now + timedelta(seconds=90))


def test_a_policy_that_is_changed_while_runs_are_active(engine: Engine) -> None:
    schedule = engine.create(overlap="allow_all", start_deadline=None)
    _minutes(engine, 2)
    one, two = (row.id for row in engine.rows(schedule))
    engine.start(one)
    engine.start(two)
    engine.update(schedule, task_extra_config={"overlap": "buffer_all", "start_deadline": None})
    _minutes(engine, 1)
    assert engine.states(schedule) == ["running", "running", "waiting"]
    engine.finish(two)
    assert engine.states(schedule) == ["running", "succeeded", "waiting"]
    engine.finish(one)
    assert engine.states(schedule) == ["succeeded", "succeeded", "queued"]


def test_whoever_waits_for_a_run_that_is_gone_is_let_go(engine: Engine) -> None:
    schedule = engine.create(overlap="buffer_all")
    _minutes(engine, 2)
    engine.execute_sql("DELETE FROM celery_task_runs WHERE blocked_by IS NULL")
    engine.passes()
    engine.passes()
    assert engine.states(schedule) == ["queued"]


def test_max_runs_completes_and_gives_back_what_never_started(engine: Engine) -> None:
    schedule = engine.create(overlap="allow_all", max_runs=3, start_deadline=30)
    _minutes(engine, 1)
    engine.passes(59)
    assert engine.states(schedule) == ["expired deadline"]
    assert engine.clock_row(schedule).run_count == 0
    for _ in range(3):
        engine.passes(60 - engine.clock.now.second)
        engine.execute(engine.rows(schedule)[-1].id)
    assert engine.row(schedule).state == "completed"
    assert engine.row(schedule).state_reason == "max_runs was reached"
    assert engine.next_run_at(schedule) is None
    _minutes(engine, 2)
    assert engine.states(schedule) == ["expired deadline", *["succeeded"] * 3]


def test_runs_that_made_room_before_their_start_do_not_use_up_max_runs(engine: Engine) -> None:
    schedule = engine.create(overlap="cancel_other", max_runs=2)
    _minutes(engine, 3)
    assert engine.states(schedule) == ["cancelled replaced", "cancelled replaced", "queued"]
    assert (engine.row(schedule).state, engine.clock_row(schedule).run_count) == ("active", 1)
    engine.execute(engine.rows(schedule)[2].id)
    _minutes(engine, 1)
    assert (engine.row(schedule).state, engine.clock_row(schedule).run_count) == ("completed", 2)


def test_a_max_runs_that_is_reached_already_completes_at_once(engine: Engine) -> None:
    schedule = engine.create(overlap="allow_all")
    _minutes(engine, 3)
    engine.update(schedule, task_extra_config={"overlap": "allow_all", "max_runs": 2})
    row = engine.row(schedule)
    assert (row.state, row.state_reason, engine.next_run_at(schedule)) == (
        "completed",
        "max_runs was reached",
        None,
    )
    engine.cancel(engine.rows(schedule)[0].id)
    assert engine.row(schedule).state == "completed", "two are left"
    engine.cancel(engine.rows(schedule)[1].id)
    assert engine.row(schedule).state == "active"


def test_a_completed_schedule_goes_on_when_its_last_run_never_starts(engine: Engine) -> None:
    schedule = engine.create(max_runs=1)
    _minutes(engine, 1)
    assert engine.row(schedule).state == "completed"
    engine.cancel(engine.rows(schedule)[0].id)
    assert engine.row(schedule).state == "active"
    assert engine.next_run_at(schedule) == engine.clock.now + MINUTE
    _minutes(engine, 1)
    engine.execute(engine.rows(schedule)[1].id)
    assert engine.row(schedule).state == "completed"
    assert engine.actions(schedule) == [
        ("create", "me"),
        ("complete", "upbeat"),
        ("reactivate", "upbeat"),
        ("complete", "upbeat"),
    ]


def test_a_fixed_delay_counts_from_the_end(engine: Engine) -> None:
    schedule = engine.create({"type": "interval", "every": 90, "unit": "seconds", "fixed_delay": True})
    assert engine.next_run_at(schedule) == engine.clock.now + 1.5 * MINUTE
    engine.passes(90)
    assert engine.next_run_at(schedule) is None
    assert engine.row(schedule).state == "active"
    engine.start(engine.rows(schedule)[0].id)
    engine.passes(3600)
    assert engine.states(schedule) == ["running"]
    engine.finish(engine.rows(schedule)[0].id)
    assert engine.next_run_at(schedule) == engine.clock.now + 1.5 * MINUTE
    engine.passes(90)
    assert engine.states(schedule) == ["succeeded", "queued"]


DELAYED: dict[str, Any] = {"type": "interval", "every": 60, "unit": "seconds", "fixed_delay": True}


@pytest.mark.parametrize("meanwhile", ["paused", "edited", "disabled"])
def test_a_fixed_delay_counts_from_the_end_whatever_was_done_meanwhile(
    engine: Engine, meanwhile: str
) -> None:
    schedule = engine.create(DELAYED)
    _minutes(engine, 1)
    run = engine.rows(schedule)[0].id
    engine.start(run)
    if meanwhile == "paused":
        engine.pause(schedule)
        engine.resume(schedule)
    elif meanwhile == "edited":
        engine.update(schedule, schedule=DELAYED | {"every": 30})
    else:
        engine.update(schedule, task_enabled=False)
        engine.update(schedule, task_enabled=True)
    engine.passes(300)
    assert engine.states(schedule) == ["running"]
    engine.finish(run)
    every = 30 if meanwhile == "edited" else 60
    assert engine.next_run_at(schedule) == engine.clock.now + timedelta(seconds=every)


def test_a_fixed_delay_whose_tick_had_been_decided_before_goes_on(engine: Engine) -> None:
    schedule = engine.create({"type": "interval", "every": 60, "unit": "seconds", "fixed_delay": True})
    engine.passes(60)
    tick = engine.rows(schedule)[0]
    engine.execute(tick.id)
    engine.execute_sql("UPDATE celery_periodic_task_clocks SET next_run_at = :tick", tick=tick.scheduled_for)
    engine.passes()
    assert engine.states(schedule) == ["succeeded"]
    assert engine.next_run_at(schedule) == engine.clock.now + MINUTE


def test_a_fixed_delay_goes_on_after_a_run_that_never_started(engine: Engine) -> None:
    schedule = engine.create(
        {"type": "interval", "every": 60, "unit": "seconds", "fixed_delay": True}, start_deadline=10
    )
    engine.passes(60)
    engine.passes(11)
    assert engine.states(schedule) == ["expired deadline"]
    assert engine.next_run_at(schedule) == engine.clock.now + MINUTE


def test_consecutive_failures_pause(engine: Engine) -> None:
    schedule = engine.create(overlap="allow_all", pause_on_failure=2)
    for state in (RunState.FAILED, RunState.SUCCEEDED, RunState.FAILED, RunState.FAILED):
        _minutes(engine, 1)
        engine.execute(engine.rows(schedule)[-1].id, state)
    row = engine.row(schedule)
    assert (row.state, row.paused_by) == ("paused", "upbeat")
    assert row.pause_note is not None
    assert "2 runs in a row have failed" in row.pause_note
    engine.resume(schedule)
    _minutes(engine, 1)
    engine.execute(engine.rows(schedule)[-1].id, RunState.FAILED)
    assert engine.row(schedule).state == "active"


def test_a_failure_counts_after_its_retries(engine: Engine) -> None:
    schedule = engine.create(overlap="allow_all", pause_on_failure=1, max_attempts=2, retry_jitter=0)
    _minutes(engine, 1)
    run = engine.rows(schedule)[0].id
    engine.execute(run, RunState.FAILED)
    assert engine.row(schedule).state == "active"
    engine.passes(10)
    engine.start(run, attempt=2)
    engine.finish(run, RunState.FAILED, attempt=2)
    assert engine.row(schedule).state == "paused"


def test_jitter_delays_the_dispatch_and_not_the_tick(engine: Engine) -> None:
    schedule = engine.create(jitter=50)
    _minutes(engine, 1)
    (row,) = engine.rows(schedule)
    assert row.scheduled_for == engine.clock.now
    assert row.scheduled_for < row.due_at < row.scheduled_for + timedelta(seconds=50)
    assert row.next_dispatch_at == row.due_at
    assert engine.wakeups.sent == []
    assert engine.start(row.id) is None
    engine.passes((row.due_at - engine.clock.now).total_seconds())
    assert [message.run_id for message in engine.wakeups.sent] == [row.id]
    assert engine.start(row.id) is not None


def test_the_workers_death_lets_the_next_one_go(engine: Engine) -> None:
    schedule = engine.create(overlap="buffer_one")
    _minutes(engine, 1)
    engine.start(engine.rows(schedule)[0].id)
    _minutes(engine, 1)
    engine.lose_worker()
    engine.passes()
    engine.passes()
    assert engine.states(schedule) == ["lost worker_lost", "queued"]


def test_backfill_runs_one_after_another(engine: Engine) -> None:
    schedule = engine.create(overlap="skip")
    start = engine.clock.now - 5 * MINUTE

    def fill(**more: object) -> backfill.Backfill:
        request = BackfillRequest.model_validate({"start": start, "end": engine.clock.now, **more})
        with engine.sync.begin() as session:
            return backfill.backfill(session, CATALOGUE, schedule, request, actor="me", redispatch_delay=30)

    assert (fill(dry_run=True).ticks, len(fill(dry_run=True).chosen)) == (5, 5)
    assert engine.rows(schedule) == []
    done = fill(max_concurrent=2)
    assert [message.run_id for message in done.messages] == list(done.run_ids[:2])
    assert engine.states(schedule) == ["queued", "queued", "waiting", "waiting", "waiting"]
    assert (fill().chosen, fill().left_out) == ((), {"active": 5})
    engine.execute(done.run_ids[0])
    assert engine.states(schedule) == ["succeeded", "queued", "queued", "waiting", "waiting"]
    engine.execute(done.run_ids[1], RunState.FAILED)
    assert engine.states(schedule) == ["succeeded", "failed", "queued", "queued", "waiting"]
    for run_id in done.run_ids[2:]:
        engine.execute(run_id)
    assert fill(dry_run=True).left_out == {"succeeded": 4, "failed": 1}
    assert fill(dry_run=True, reprocess="failed").chosen == (start + 2 * MINUTE,)
    assert len(fill(dry_run=True, reprocess="completed").chosen) == 5
    _minutes(engine, 1)
    assert engine.states(schedule)[-1] == "queued", "a backfilled run does not count for overlap"


def test_a_backfill_leaves_out_what_a_beat_is_about_to_fire(engine: Engine) -> None:
    schedule, noon = engine.create(overlap="allow_all"), engine.clock.now

    def fill(**more: object) -> backfill.Backfill:
        request = BackfillRequest.model_validate(
            {"start": noon - MINUTE, "end": engine.clock.now, "dry_run": True, **more}
        )
        with engine.sync.begin() as session:
            return backfill.backfill(session, CATALOGUE, schedule, request, actor="me", redispatch_delay=30)

    engine.clock.advance(181)
    found = fill()
    assert found.chosen == (noon, noon + MINUTE), (
        "only the latest of those that were missed is caught up with"
    )
    assert found.left_out == {"active": 2}
    engine.passes()
    assert [row.scheduled_for for row in engine.rows(schedule)] == [noon + 2 * MINUTE, noon + 3 * MINUTE]
    run = engine.rows(schedule)[0].id
    engine.start(run)
    engine.finish(run, RunState.CANCELLED)
    assert fill().left_out == {"failed": 1, "active": 1}, "it may have done a part of its work"
    assert len(fill(reprocess="failed").chosen) == 3


def test_run_now_obeys_the_overlap_policy(engine: Engine) -> None:
    schedule = engine.create(overlap="skip")

    def run_now(overlap: Overlap | None = None) -> UUID:
        run_id = new_id()
        with engine.sync.begin() as session:
            on_demand.run_now(
                session,
                CATALOGUE,
                schedule,
                actor="me",
                run_id=run_id,
                redispatch_delay=30,
                overlap=overlap,
            )
        return run_id

    def state(run_id: UUID) -> tuple[str, str | None, bool]:
        row = next(row for row in engine.rows(schedule) if row.id == run_id)
        return row.state, row.reason, row.blocked_by is not None

    engine.pause(schedule)
    assert state(run_now()) == ("queued", None, False)
    assert state(run_now()) == ("queued", None, False), "runs on demand do not count"
    engine.resume(schedule)
    _minutes(engine, 1)
    tick = engine.rows(schedule)[0].id
    assert state(run_now()) == ("skipped", "overlap", False)
    assert state(run_now(Overlap.ALLOW_ALL)) == ("queued", None, False)
    waiting = run_now(Overlap.BUFFER_ALL)
    assert state(waiting) == ("queued", None, True)
    engine.execute(tick)
    assert state(waiting) == ("queued", None, False)
