"""Facts and alerts: written with what makes them so, told once when a condition begins and once when it ends."""

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, text

from app.modules.alerts import service as alerts
from app.modules.alerts import statements, watching
from app.modules.alerts.models import AlertRow, FactRow
from app.modules.alerts.service import Watch
from app.scheduling import liveness, pausing, schedules
from app.scheduling.catalogue import Catalogue
from app.scheduling.config import RunOptions
from app.scheduling.ids import new_id
from app.scheduling.models import BeatRow
from app.scheduling.runs import Origin, RunState, submit
from app.settings import AlertSettings
from support.engine import DELAY, MINUTE, TASK, Engine, checked

AT_ONCE = AlertSettings(beat_silent=30.0, queue_patience=60.0)


class Looking:
    """A process that has been in contact for ever, and looks when it is told to."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.watch = Watch(AT_ONCE)
        self.watch._in_contact_since = -1e9
        self.beats_live = True
        self._seen = 0

    def look(self) -> list[tuple[str, dict[str, Any]]]:
        """What is new since the last look."""
        if self.beats_live:
            self.engine.execute_sql("UPDATE celery_beats SET last_pass_at = clock_timestamp()")
        with self.engine.sync.begin() as session:
            assert self.watch.look(session)
        with self.engine.sync.begin() as session:
            assert alerts.alone(session)
            alerts.take(session, 100)
            found = session.scalars(select(FactRow).where(FactRow.id > self._seen).order_by(FactRow.id)).all()
            self._seen = max([self._seen, *(fact.id for fact in found)])
            return [(fact.type, fact.data) for fact in found]

    def types(self) -> list[str]:
        return [kind for kind, _ in self.look()]

    def open(self) -> dict[str, int]:
        """The open alerts, and how often each was seen."""
        with self.engine.sync() as session:
            rows = session.scalars(
                select(AlertRow).where(AlertRow.closed_at.is_(None)).order_by(AlertRow.kind)
            )
            return {row.kind: row.count for row in rows}

    def alert(self, kind: str) -> AlertRow:
        with self.engine.sync() as session:
            return session.scalars(select(AlertRow).where(AlertRow.kind == kind)).one()


@pytest.fixture
def looking(engine: Engine) -> Looking:
    engine.execute_sql("TRUNCATE facts, alerts, webhooks CASCADE")
    engine.passes()
    return Looking(engine)


def fail(engine: Engine, schedule: UUID) -> UUID:
    engine.passes(60)
    run = engine.rows(schedule)[-1].id
    engine.execute(run, RunState.FAILED)
    return run


def succeed(engine: Engine, schedule: UUID, after: float = 60) -> UUID:
    engine.passes(after)
    run = engine.rows(schedule)[-1].id
    engine.clock.advance(1)
    engine.execute(run)
    return run


def test_a_failed_run_and_the_success_after_it(engine: Engine, looking: Looking) -> None:
    schedule = engine.create(tags=["team:a", "nightly"])
    first = fail(engine, schedule)
    ((kind, data),) = looking.look()
    row = engine.rows(schedule)[0]
    assert (kind, data) == (
        "run.failed",
        {
            "run_id": str(first),
            "task": "module.task",
            "queue": "celery",
            "origin": "schedule",
            "state": "failed",
            "reason": None,
            "attempt": 1,
            "scheduled_for": row.scheduled_for.isoformat() if row.scheduled_for else None,
            "started_at": data["started_at"],
            "finished_at": data["finished_at"],
            "error": {"type": "ValueError", "message": "no"},
            "schedule_id": str(schedule),
            "schedule": "test",
        },
    )
    with engine.sync() as session:
        assert session.scalars(select(FactRow.tags)).one() == ["team:a", "nightly"]
    assert looking.open() == {"run_failed": 1}
    fail(engine, schedule)
    assert looking.types() == ["run.failed"]
    assert looking.open() == {"run_failed": 2}
    assert looking.types() == []
    good = succeed(engine, schedule)
    ((kind, data),) = looking.look()
    assert (kind, data["run_id"], data["after"]) == ("schedule.recovered", str(good), ["run_failed"])
    assert looking.open() == {}
    succeed(engine, schedule)
    assert looking.types() == []
    fail(engine, schedule)
    assert looking.types() == ["run.failed"]
    assert looking.open() == {"run_failed": 1}


def test_a_retry_that_follows_is_no_fact_and_a_rollback_leaves_none(engine: Engine, looking: Looking) -> None:
    schedule = engine.create(max_attempts=2)
    run = fail(engine, schedule)
    assert engine.states(schedule) == ["queued"]
    assert looking.types() == []
    with engine.sync() as session:
        ended = "UPDATE celery_task_runs SET state = 'lost', finished_at = now() WHERE id = :id"
        session.execute(text(ended), {"id": run})
        assert session.scalars(select(FactRow.type)).all() == ["run.failed"]
        session.rollback()
    assert looking.types() == []


def test_a_failed_run_without_a_schedule_is_told_and_opens_no_alert(engine: Engine, looking: Looking) -> None:
    with engine.sync.begin() as session:
        wanted = {"args": [], "kwargs": {}, "options": RunOptions(), "origin": Origin.CODE}
        run = submit(session, task=TASK, redispatch_delay=DELAY, **wanted)  # type: ignore[arg-type]
    assert run is not None
    engine.execute(run.run_id, RunState.FAILED)
    ((kind, data),) = looking.look()
    assert (kind, data["schedule_id"], data["run_id"]) == ("run.failed", None, str(run.run_id))
    assert looking.open() == {}


@pytest.mark.parametrize("standing", ["not_decided", "not_started", "not_finished"])
def test_a_tick_is_late_when_its_grace_has_passed(engine: Engine, looking: Looking, standing: str) -> None:
    schedule, without = engine.create(grace=90), engine.create()
    engine.clock.advance(60)
    tick = engine.clock.now
    if standing != "not_decided":
        engine.passes()
    if standing == "not_finished":
        assert engine.start(engine.rows(schedule)[0].id)
    engine.clock.advance(89)
    assert looking.types() == []
    engine.clock.advance(1)
    ((kind, data),) = looking.look()
    assert (kind, data["standing"], data["grace"]) == ("schedule.late", standing, 90)
    assert (data["schedule_id"], data["scheduled_for"]) == (str(schedule), tick.isoformat())
    assert (data["run_id"] is None) == (standing == "not_decided")
    assert looking.types() == []
    assert looking.open() == {"schedule_late": 1}
    assert "test is late: 90 s after its tick" in looking.alert("schedule_late").message
    engine.passes()
    run = next(row for row in engine.rows(schedule) if row.state in ("queued", "running"))
    if run.state == "queued":
        assert engine.start(run.id)
    engine.clock.advance(1)
    assert engine.finish(run.id)
    recovered = [data["after"] for kind, data in looking.look() if kind == "schedule.recovered"]
    assert recovered == [["schedule_late"]]
    assert "schedule_late" not in looking.open()
    assert engine.rows(without)


def test_what_is_late_stays_so_whatever_succeeds_beside_it(engine: Engine, looking: Looking) -> None:
    schedule = engine.create(grace=90, overlap="allow_all")
    engine.passes(60)
    stuck = engine.rows(schedule)[0].id
    assert engine.start(stuck)
    succeed(engine, schedule)
    engine.clock.advance(31)
    assert looking.types() == ["schedule.late"]
    for after in (28, 59):
        succeed(engine, schedule, after)
        assert looking.types() == []
    assert looking.open() == {"schedule_late": 1}
    assert engine.finish(stuck)
    assert looking.types() == ["schedule.recovered"]
    assert looking.open() == {}


def test_a_late_run_is_over_also_when_its_end_was_told_afterwards(engine: Engine, looking: Looking) -> None:
    """A worker knows when a run ended, and tells it a moment later; a look comes in between."""
    schedule = engine.create({"type": "crontab", "expression": "0 * * * *"}, grace=90)
    engine.passes(3600)
    run = engine.rows(schedule)[0].id
    assert engine.start(run)
    engine.clock.advance(91)
    assert looking.types() == ["schedule.late"]
    engine.clock.advance(-1)
    assert engine.finish(run)
    engine.clock.advance(1)
    assert looking.types() == ["schedule.recovered"]


def test_the_last_run_of_a_schedule_can_be_late_too(engine: Engine, looking: Looking) -> None:
    schedule = engine.create(grace=90, max_runs=1)
    engine.passes(60)
    assert engine.row(schedule).state == "completed"
    engine.clock.advance(90)
    ((kind, data),) = looking.look()
    assert (kind, data["standing"]) == ("schedule.late", "not_started")
    engine.execute(engine.rows(schedule)[0].id)
    assert looking.types() == ["schedule.recovered"]


def test_recoveries_are_looked_for_in_turns(
    engine: Engine, looking: Looking, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = [engine.create() for _ in range(3)]
    engine.passes(60)
    for schedule in failing:
        engine.execute(engine.rows(schedule)[0].id, RunState.FAILED)
    assert looking.types() == ["run.failed"] * 3
    engine.passes(60)
    for schedule in failing:
        engine.execute(engine.rows(schedule)[1].id)
    monkeypatch.setattr(watching, "SCHEDULES", 2)
    assert looking.types() == ["schedule.recovered"] * 2
    assert looking.types() == ["schedule.recovered"]
    assert looking.open() == {}


def test_what_cannot_be_looked_at_silences_nothing_else(
    engine: Engine, looking: Looking, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine.create()
    looking.beats_live = False
    engine.clock.advance(60)
    monkeypatch.setattr(statements, "LATE", text("SELECT 1 / 0"))
    assert looking.types() == ["beat.silent"]
    assert "what is late cannot be looked at: division by zero" in caplog.text


def test_what_ends_within_its_grace_is_not_late(engine: Engine, looking: Looking) -> None:
    schedule = engine.create(grace=30)
    succeed(engine, schedule)
    engine.clock.advance(40)
    assert "schedule.late" not in looking.types()


def test_missed_ticks(engine: Engine, looking: Looking) -> None:
    schedule, noon = engine.create(catch_up="none"), engine.clock.now
    engine.passes(210)
    kinds = looking.look()
    assert [(kind, data["count"], data["reason"]) for kind, data in kinds] == [
        ("schedule.missed", 3, "missed")
    ]
    assert kinds[0][1]["first"] == (noon + MINUTE).isoformat()
    assert looking.open() == {"schedule_missed": 1}
    succeed(engine, schedule, 30)
    assert looking.types() == ["schedule.recovered"]


def test_a_run_that_nobody_started_in_time_is_missed_and_ranges_of_a_pause_are_not(
    engine: Engine, looking: Looking
) -> None:
    schedule = engine.create(start_deadline=30)
    engine.passes(60)
    engine.passes(31)
    assert engine.states(schedule) == ["expired deadline"]
    ((kind, data),) = looking.look()
    assert (kind, data["reason"], data["state"]) == ("schedule.missed", "deadline", "expired")
    engine.pause(schedule)
    engine.passes(300)
    engine.resume(schedule)
    assert looking.types() == []


def test_the_products_own_pauses_are_told_and_peoples_are_not(engine: Engine, looking: Looking) -> None:
    failing, agents, persons = engine.create(pause_on_failure=1), engine.create(), engine.create()
    fail(engine, failing)
    with engine.sync.begin() as session:
        pausing.pause(session, agents, note="The budget is used up.", author=f"agent:{new_id()}")
    engine.pause(persons)
    told = [(kind, data["schedule_id"]) for kind, data in looking.look()]
    assert told == [
        ("run.failed", str(failing)),
        ("schedule.paused", str(failing)),
        ("schedule.paused", str(agents)),
    ]
    engine.resume(failing)
    engine.resume(agents)
    looking.look()
    assert looking.open() == {"run_failed": 1}
    with engine.sync.begin() as session:
        schedules.remove(session, failing, "me")
    looking.look()
    assert looking.open() == {}


def test_a_schedule_that_fits_no_more_and_one_that_cannot_be_read(engine: Engine, looking: Looking) -> None:
    gone, broken = engine.create(), engine.create()
    engine.execute_sql("UPDATE celery_periodic_task_configs SET schedule = '{}' WHERE id = :id", id=broken)
    engine.passes(60)
    checked(engine.sync, Catalogue([]))
    told = {data["schedule_id"]: (kind, bool(data["reason"])) for kind, data in looking.look()}
    assert told == dict.fromkeys((str(gone), str(broken)), ("schedule.invalid", True))
    engine.update(broken, schedule={"type": "crontab", "expression": "0 5 * * *"})
    looking.look()
    with engine.sync() as session:
        still = session.scalars(select(AlertRow.schedule_id).where(AlertRow.closed_at.is_(None))).all()
    assert still == [gone]


def test_silent_beats_are_told_once_and_heard_again(engine: Engine, looking: Looking) -> None:
    engine.create()
    looking.look()
    looking.beats_live = False
    engine.clock.advance(29)
    assert looking.types() == []
    engine.clock.advance(2)
    assert looking.look() == [("beat.silent", {"seconds": 31.0})]
    assert looking.types() == []
    assert looking.open() == {"beat_silent": 1}
    with engine.sync.begin() as session:
        session.add(BeatRow(id=new_id(), name="other", pid=1, last_pass_at=engine.clock.now))
    assert looking.types() == ["beat.recovered"]
    assert looking.open() == {}


def test_a_process_that_has_just_come_calls_nobody_silent(engine: Engine, looking: Looking) -> None:
    engine.create()
    looking.beats_live = False
    engine.clock.advance(300)
    looking.watch.broke()
    assert looking.types() == []
    looking.watch._in_contact_since = -1e9
    assert looking.types() == ["beat.silent"]


def test_a_queue_without_a_consumer(engine: Engine, looking: Looking) -> None:
    engine.create(queue="priority_low")
    engine.create()
    engine.passes(60)
    engine.passes(59)
    assert looking.types() == []
    engine.passes(1)
    ((kind, data),) = looking.look()
    assert (kind, data) == ("queue.unconsumed", {"queue": "priority_low", "seconds": 60.0})
    assert looking.types() == []
    engine.execute_sql("""UPDATE celery_workers SET queues = '["celery", "priority_low"]'""")
    assert looking.look() == [("queue.recovered", {"queue": "priority_low"})]
    assert looking.open() == {}


def test_a_worker_that_is_replaced_leaves_no_queue_without_one(engine: Engine, looking: Looking) -> None:
    engine.create()
    engine.passes(60)
    engine.clock.advance(300)
    with engine.sync.begin() as session:
        liveness.retire_worker(session, engine.worker)
    engine.clock.advance(59)
    assert looking.types() == []
    engine.clock.advance(1)
    assert looking.types() == ["queue.unconsumed"]


def test_a_paused_queue_waits_on_purpose(engine: Engine, looking: Looking) -> None:
    engine.create(queue="priority_low")
    engine.execute_sql(
        "INSERT INTO celery_queue_pauses (queue, paused_by, note) VALUES ('priority_low', 'me', 'because')"
    )
    engine.passes(60)
    engine.passes(61)
    assert looking.types() == []
    engine.execute_sql("DELETE FROM celery_queue_pauses")
    assert looking.types() == ["queue.unconsumed"]


def test_one_process_looks_at_a_time(engine: Engine, looking: Looking) -> None:
    engine.create()
    engine.clock.advance(60)
    other = Watch(AT_ONCE)
    with engine.sync.begin() as first, engine.sync.begin() as second:
        assert looking.watch.look(first)
        assert not other.look(second)
    with engine.sync() as session:
        assert session.scalars(select(FactRow.type)).all() == ["beat.silent"]
