"""One row that cannot be understood must stop nobody: not a beat, not the runs behind it, not its own runs' ends."""

import json

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from app.errors import Conflict, InvalidInput
from app.scheduling import backfill, history, on_demand, statements
from app.scheduling.config import BackfillRequest
from app.scheduling.ids import new_id
from app.scheduling.messages import RunMessage
from app.scheduling.policies import Overlap
from app.scheduling.runs import RunState
from app.worker import codec
from support.engine import CATALOGUE, EVERY_MINUTE, MINUTE, Engine


def _spoil(engine: Engine, schedule: object) -> None:
    engine.execute_sql(
        "UPDATE celery_periodic_task_configs SET task_extra_config = CAST(:extra AS jsonb) WHERE id = :id",
        id=schedule,
        extra=json.dumps({"of_a_newer_release": True}),
    )


def test_runs_of_a_schedule_that_cannot_be_read_end_and_others_are_dispatched(engine: Engine) -> None:
    spoilt = engine.create(overlap="buffer_one", start_deadline=5)
    running = engine.create(overlap="buffer_one")
    good = engine.create(jitter=50, overlap="allow_all")
    engine.passes(60)
    started = engine.rows(running)[0].id
    engine.start(started)
    _spoil(engine, spoilt)
    _spoil(engine, running)
    sent = len(engine.wakeups.sent)
    engine.passes(55)
    assert engine.states(spoilt) == ["expired deadline"]
    assert len(engine.wakeups.sent) == sent + 1, "the jittered run of the good schedule"
    assert engine.finish(started) is RunState.SUCCEEDED
    assert engine.states(good) == ["queued"]


def test_the_ticks_of_a_schedule_that_becomes_invalid_are_a_range(engine: Engine) -> None:
    schedule, noon = engine.create(), engine.clock.now
    _spoil(engine, schedule)
    engine.passes(150)
    assert engine.row(schedule).state == "invalid"
    assert engine.missed(schedule) == [(noon + MINUTE, engine.clock.now, None, "invalid_schedule")]


def test_what_the_database_refuses_of_one_schedule_stops_no_other(engine: Engine) -> None:
    refused, good = engine.create(), engine.create()
    engine.execute_sql(
        "UPDATE celery_periodic_task_clocks SET run_count = 2147483647 WHERE schedule_id = :id", id=refused
    )
    engine.passes(61)
    row = engine.row(refused)
    assert (row.state, engine.next_run_at(refused)) == ("invalid", None)
    assert (
        row.state_reason
        == "schedule: The database refuses what its tick would write (NumericValueOutOfRange)."
    )
    assert engine.states(refused) == []
    assert engine.states(good) == ["queued"]
    assert [message.run_id for message in engine.wakeups.sent] == [engine.rows(good)[0].id]


def test_a_paused_schedule_that_cannot_be_read_can_be_mended(engine: Engine) -> None:
    schedule = engine.create()
    engine.pause(schedule)
    engine.execute_sql(
        "UPDATE celery_periodic_task_configs SET schedule = CAST(:it AS jsonb)", it='{"type": "lunar"}'
    )
    engine.update(schedule, schedule={"type": "crontab", "expression": "*/5 * * * *"})
    engine.resume(schedule)
    assert engine.next_run_at(schedule) == engine.clock.now + 5 * MINUTE


def test_whoever_asks_for_what_cannot_be_read_is_told_so(engine: Engine) -> None:
    paused, bad = engine.create(), engine.create()
    engine.pause(paused)
    _spoil(engine, paused)
    engine.execute_sql(
        "UPDATE celery_periodic_task_configs SET schedule = CAST(:it AS jsonb)", it='{"type": "lunar"}'
    )
    with pytest.raises(Conflict, match=r"not valid: of_a_newer_release: Unknown key\. Mend it first"):
        engine.resume(paused)
    request = BackfillRequest(start=engine.clock.now - MINUTE, end=engine.clock.now)
    with engine.sync() as session, pytest.raises(Conflict, match=r"lunar.*Mend it first"):
        backfill.backfill(session, CATALOGUE, bad, request, actor="me", redispatch_delay=30)
    with pytest.raises(InvalidInput, match=r"schedule.*lunar.*give another one"):
        engine.update(bad, description="what it was for")
    with pytest.raises(InvalidInput, match=r"task_extra_config.*of_a_newer_release"):
        engine.update(paused, schedule=EVERY_MINUTE)
    with pytest.raises(Conflict, match=r"of_a_newer_release.*Mend it first"):
        _run_now(engine, paused, Overlap.SKIP)
    engine.execute_sql(
        'UPDATE celery_periodic_task_config_versions SET config = config || \'{"task_type": "no"}\''
    )
    with (
        engine.sync() as session,
        pytest.raises(Conflict, match="not valid any more: task_type: Must be one of"),
    ):
        history.restore(session, CATALOGUE, paused, 1, actor="me", expected=None, reason=None)


def test_a_schedule_that_cannot_be_read_can_be_paused(engine: Engine) -> None:
    schedule, noon = engine.create(), engine.clock.now
    _spoil(engine, schedule)
    engine.clock.advance(150)
    engine.pause(schedule)
    assert engine.missed(schedule) == [(noon + MINUTE, engine.clock.now, None, "paused")]


def _run_now(engine: Engine, schedule: object, overlap: Overlap) -> None:
    with engine.sync.begin() as session:
        on_demand.run_now(
            session,
            CATALOGUE,
            schedule,  # type: ignore[arg-type]
            actor="me",
            run_id=new_id(),
            redispatch_delay=30,
            overlap=overlap,
        )


def test_a_run_on_demand_that_cancels_leaves_the_schedule_going(engine: Engine) -> None:
    delay = engine.create({"type": "interval", "every": 60, "unit": "seconds", "fixed_delay": True})
    last = engine.create(max_runs=1)
    engine.passes(60)
    assert engine.row(last).state == "completed"
    for schedule in (delay, last):
        _run_now(engine, schedule, Overlap.CANCEL_OTHER)
    assert engine.next_run_at(delay) == engine.clock.now + MINUTE
    assert (engine.row(last).state, engine.clock_row(last).run_count) == ("active", 0)


def test_a_deadline_that_passes_between_two_statements_is_settled_all_the_same(engine: Engine) -> None:
    schedule = engine.create(
        {"type": "interval", "every": 60, "unit": "seconds", "fixed_delay": True}, start_deadline=20
    )
    engine.passes(60)
    row = engine.rows(schedule)[0]
    engine.clock.advance(21)
    with engine.sync.begin() as session:
        session.execute(statements.REDISPATCH, {"ids": [row.id], "delay": 30, "cap": 600})
    assert engine.states(schedule) == ["queued"]
    engine.passes()
    assert engine.states(schedule) == ["expired deadline"]
    assert engine.next_run_at(schedule) == engine.clock.now + MINUTE


def test_a_sweep_that_fails_leaves_the_others_going_and_contact_unbroken(engine: Engine) -> None:
    calls: list[str] = []

    def fails(session: Session) -> list[RunMessage]:
        calls.append("fails")
        raise TypeError("an errback without arguments")

    def refused(session: Session) -> list[RunMessage]:
        calls.append("refused")
        session.execute(text("SELECT CAST('what an errback was given' AS int)"))
        return []

    def works(session: Session) -> list[RunMessage]:
        calls.append("works")
        return []

    engine.beat._sweeps = (fails, refused, works)
    schedule = engine.create()
    engine.passes(60)
    engine.start(engine.rows(schedule)[0].id)
    engine.lose_worker()
    engine.passes()
    engine.passes()
    assert calls[:3] == ["fails", "refused", "works"]
    assert engine.states(schedule) == ["lost worker_lost"]


@pytest.mark.parametrize("value", ["caf\udce9", ["a", {"b\ud800": 1}]])
def test_what_is_no_text_cannot_be_stored(value: object) -> None:
    with pytest.raises(codec.NotStorable, match="surrogate"):
        codec.to_stored(value)
    assert codec.to_stored("\\ud800 😀") == "\\ud800 😀"
