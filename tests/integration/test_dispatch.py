"""One pass of a beat, on the real database. What is sent is caught at the `Publisher` protocol."""

import threading
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session, sessionmaker

from app.errors import InvalidInput
from app.scheduling import runs, schedules, statements
from app.scheduling.config import RunOptions, ScheduleCreate, ScheduleUpdate
from app.scheduling.dispatch import Dispatcher
from app.scheduling.ids import tick_id
from app.scheduling.messages import Kind, RunMessage
from app.scheduling.models import BeatRow, ClockRow, MissedRangeRow, RunRow, ScheduleRow
from app.settings import Settings
from support.engine import CATALOGUE, MINUTE, TASK, Engine, Wakeups
from support.polling import eventually

EVERY_SECOND = {"type": "interval", "every": 1, "unit": "seconds"}
HOURLY = {"type": "crontab", "expression": "0 * * * *"}


@pytest.fixture
def wakeups() -> Wakeups:
    return Wakeups()


@pytest.fixture
def beat(sync: sessionmaker[Session], wakeups: Wakeups, settings: Settings) -> Dispatcher:
    return Dispatcher(sync, wakeups, CATALOGUE, settings, name="test")


def _create(
    sync: sessionmaker[Session], schedule: dict[str, Any], *, ago: float = 0.0, **extra: object
) -> UUID:
    """A schedule whose clock stands ``ago`` seconds in the past, at a tick of it."""
    body = ScheduleCreate(
        task_name="test",
        task_path="old.task",
        schedule=schedule,
        task_args=[1],
        task_kwargs={"a": "ö"},
        task_extra_config=extra,
    )
    with sync.begin() as session:
        identifier = schedules.create(session, CATALOGUE, body, "me").row.id
        session.execute(
            text(
                "UPDATE celery_periodic_task_clocks SET next_run_at ="
                " date_trunc('second', clock_timestamp()) - make_interval(secs => :ago)"
                " WHERE schedule_id = :id"
            ),
            {"ago": ago, "id": identifier},
        )
    return identifier


def _rows(sync: sessionmaker[Session], schedule_id: UUID) -> list[RunRow]:
    with sync() as session:
        return list(
            session.scalars(select(RunRow).where(RunRow.schedule_id == schedule_id).order_by(RunRow.id))
        )


def _clock(sync: sessionmaker[Session], schedule_id: UUID) -> datetime | None:
    with sync() as session:
        return session.scalars(select(ClockRow.next_run_at).where(ClockRow.schedule_id == schedule_id)).one()


def test_a_due_tick_becomes_one_queued_run_and_one_wakeup(
    sync: sessionmaker[Session], beat: Dispatcher, wakeups: Wakeups
) -> None:
    schedule = _create(sync, HOURLY, queue="system")
    assert beat.run_pass() > 0
    (row,) = _rows(sync, schedule)
    assert row.scheduled_for is not None
    assert row.id == tick_id(schedule, row.scheduled_for)
    assert (row.state, row.origin, row.task, row.queue) == ("queued", "schedule", "module.task", "system")
    assert (row.args, row.kwargs, row.options) == ([1], {"a": "ö"}, {"soft_time_limit": 9.0})
    assert wakeups.sent == [RunMessage(row.id, Kind("module.task", "system", 1, 9.0, None))]
    clock = _clock(sync, schedule)
    assert clock is not None
    assert (clock.minute, clock.second) == (0, 0)
    assert clock > row.scheduled_for
    beat.run_pass()
    assert len(_rows(sync, schedule)) == 1


def test_the_same_tick_again_makes_no_second_run(
    sync: sessionmaker[Session], beat: Dispatcher, wakeups: Wakeups
) -> None:
    schedule = _create(sync, HOURLY)
    beat.run_pass()
    (row,) = _rows(sync, schedule)
    with sync.begin() as session:
        session.execute(
            text("UPDATE celery_periodic_task_clocks SET next_run_at = :tick"), {"tick": row.scheduled_for}
        )
    beat.run_pass()
    assert len(_rows(sync, schedule)) == 1
    assert len(wakeups.sent) == 1


def test_two_beats_share_the_work_and_double_nothing(
    sync: sessionmaker[Session], wakeups: Wakeups, settings: Settings
) -> None:
    due = {_create(sync, HOURLY) for _ in range(60)}
    small = _in_batches_of(7, settings)
    beats = [Dispatcher(sync, wakeups, CATALOGUE, small, name=f"beat{n}") for n in range(2)]

    def work(beat: Dispatcher) -> None:
        while beat.fire():
            pass

    threads = [threading.Thread(target=work, args=(beat,)) for beat in beats]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    with sync() as session:
        counts = Counter(session.scalars(select(RunRow.schedule_id)))
    assert counts == dict.fromkeys(due, 1)
    assert Counter(each.run_id for each in wakeups.sent).most_common(1)[0][1] == 1
    assert len(wakeups.sent) == 60


def test_overlap_skips_and_records(sync: sessionmaker[Session], beat: Dispatcher, wakeups: Wakeups) -> None:
    skipping = _create(sync, EVERY_SECOND, ago=3)
    beside = _create(sync, EVERY_SECOND, ago=3, overlap="allow_all")
    two = _create(sync, EVERY_SECOND, ago=3, overlap="allow_all", max_concurrent=2)
    beat.fire()
    states = {each: [row.state for row in _rows(sync, each)] for each in (skipping, beside, two)}
    assert states[skipping][:4] == ["queued", "skipped", "skipped", "skipped"]
    assert set(states[beside]) == {"queued"}
    assert states[two][:4] == ["queued", "queued", "skipped", "skipped"]
    assert {row.reason for row in _rows(sync, skipping)[1:]} == {"overlap"}
    assert len(wakeups.sent) == sum(each.count("queued") for each in states.values())


def test_catch_up_fires_the_latest_and_records_the_rest(
    sync: sessionmaker[Session], beat: Dispatcher
) -> None:
    minutely = {"type": "interval", "every": 60, "unit": "seconds"}
    latest, none = _create(sync, minutely, ago=600), _create(sync, minutely, ago=600, catch_up="none")
    short = _create(sync, HOURLY, ago=7200, catchup_window=0)
    beat.fire()
    assert len(_rows(sync, latest)) in (1, 2)  # a second one if a minute began in the last ten seconds
    assert len(_rows(sync, none)) in (0, 1)
    assert _rows(sync, short) == [] or len(_rows(sync, short)) == 1
    with sync() as session:
        reasons = {row.schedule_id: row.reason for row in session.scalars(select(MissedRangeRow))}
    assert reasons[latest] == reasons[none] == "missed"
    assert reasons[short] == "catchup_window"


def test_a_bad_row_is_marked_and_stops_nobody(
    sync: sessionmaker[Session], beat: Dispatcher, wakeups: Wakeups
) -> None:
    bad, gone, good = _create(sync, HOURLY), _create(sync, HOURLY), _create(sync, HOURLY)
    with sync.begin() as session:
        session.execute(
            text('UPDATE celery_periodic_task_configs SET schedule = \'{"type": "lunar"}\' WHERE id = :id'),
            {"id": bad},
        )
        session.execute(
            text("UPDATE celery_periodic_task_configs SET task_path = 'no.such' WHERE id = :id"), {"id": gone}
        )
    beat.fire()
    with sync() as session:
        states = {row.id: (row.state, row.state_reason) for row in session.scalars(select(ScheduleRow))}
    assert states[good] == ("active", None)
    assert states[bad][0] == states[gone][0] == "invalid"
    assert "type" in (states[bad][1] or "")
    assert "No task has this name" in (states[gone][1] or "")
    assert _clock(sync, bad) is None
    assert len(wakeups.sent) == 1
    with sync.begin() as session:
        mended = schedules.update(session, CATALOGUE, bad, ScheduleUpdate(schedule=HOURLY), "me")
    assert (mended.row.state, mended.row.state_reason) == ("active", None)
    assert mended.next_run_at is not None


def test_a_one_off_completes(sync: sessionmaker[Session], beat: Dispatcher) -> None:
    schedule = _create(sync, {"type": "one_off", "at": "2020-02-02T20:20:20Z", "run_if_past": True})
    beat.fire()
    assert [row.state for row in _rows(sync, schedule)] == ["queued"]
    with sync() as session:
        row = session.get_one(ScheduleRow, schedule)
    assert row.state == "completed"
    assert _clock(sync, schedule) is None


def test_a_past_one_off_runs_at_once_when_asked_to(sync: sessionmaker[Session]) -> None:
    body = ScheduleCreate(
        task_name="test",
        task_path="module.task",
        schedule={"type": "one_off", "at": "2020-02-02T20:20:20Z", "run_if_past": True},
    )
    with sync.begin() as session:
        view = schedules.create(session, CATALOGUE, body, "me")
        assert view.next_run_at == view.row.created_at


def test_a_lost_message_is_sent_again_with_growing_delay(
    sync: sessionmaker[Session], beat: Dispatcher, wakeups: Wakeups
) -> None:
    schedule = _create(sync, HOURLY, start_deadline=None)
    beat.fire()
    delays = []
    for _ in range(7):
        with sync.begin() as session:
            session.execute(text("UPDATE celery_task_runs SET next_dispatch_at = clock_timestamp()"))
        beat.run_pass()
        (row,) = _rows(sync, schedule)
        assert row.next_dispatch_at is not None
        with sync() as session:
            now = schedules.database_time(session)
        delays.append(round((row.next_dispatch_at - now).total_seconds(), -1))
    assert delays == [60, 120, 240, 480, 600, 600, 600]
    assert len(wakeups.sent) == 8


def test_a_run_past_its_start_deadline_expires(
    sync: sessionmaker[Session], beat: Dispatcher, wakeups: Wakeups
) -> None:
    schedule = _create(sync, HOURLY, start_deadline=5)
    beat.fire()
    (row,) = _rows(sync, schedule)
    assert row.next_dispatch_at == row.start_deadline
    with sync.begin() as session:
        session.execute(
            text("UPDATE celery_task_runs SET start_deadline = due_at, next_dispatch_at = due_at")
        )
    beat.run_pass()
    (row,) = _rows(sync, schedule)
    assert (row.state, row.reason, row.next_dispatch_at) == ("expired", "deadline", None)
    assert row.finished_at is not None
    assert len(wakeups.sent) == 1


def test_without_a_broker_ticks_go_on_and_are_sent_when_it_is_back(
    sync: sessionmaker[Session], beat: Dispatcher, wakeups: Wakeups
) -> None:
    wakeups.away = True
    schedules = [_create(sync, HOURLY) for _ in range(5)]
    assert beat.run_pass() <= 1.0
    with sync.begin() as session:
        session.execute(text("UPDATE celery_task_runs SET next_dispatch_at = clock_timestamp()"))
    tried = [row.dispatches for each in schedules for row in _rows(sync, each)]
    for _ in range(30):
        beat.run_pass()
    runs_of = [row for each in schedules for row in _rows(sync, each)]
    assert {row.state for row in runs_of} == {"queued"}
    assert sum(row.dispatches for row in runs_of) - sum(tried) <= 3, "one is tried each second, not all"
    wakeups.away = False

    def all_sent() -> bool:
        beat.run_pass()
        return sorted(each.run_id for each in wakeups.sent) == sorted(row.id for row in runs_of)

    eventually(all_sent, 10, "every run to be sent")


class Gated(Wakeups):
    """Sends when its gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    def publish(self, messages: Sequence[RunMessage]) -> None:
        assert self.gate.wait(10)
        super().publish(messages)


def _run_ids(sync: sessionmaker[Session]) -> set[UUID]:
    with sync() as session:
        return set(session.scalars(select(RunRow.id)))


def _in_batches_of(size: int, settings: Settings) -> Settings:
    return settings.model_copy(update={"beat": settings.beat.model_copy(update={"batch": size})})


def test_the_next_batch_is_committed_while_one_is_published_and_sent_after_it(
    sync: sessionmaker[Session], settings: Settings
) -> None:
    wakeups = Gated()
    beat = Dispatcher(sync, wakeups, CATALOGUE, _in_batches_of(4, settings), name="beat")
    for _ in range(8):
        _create(sync, HOURLY)
    assert beat.fire() == 4
    first = _run_ids(sync)
    second = threading.Thread(target=beat.fire)
    second.start()
    eventually(lambda: len(_run_ids(sync)) == 8, 10, "the second batch")
    assert wakeups.sent == []
    wakeups.gate.set()
    second.join(10)
    beat.close()
    sent = [each.run_id for each in wakeups.sent]
    assert (set(sent[:4]), set(sent[4:])) == (first, _run_ids(sync) - first)


def test_a_stop_completes_what_is_being_published(sync: sessionmaker[Session], settings: Settings) -> None:
    wakeups = Gated()
    beat = Dispatcher(sync, wakeups, CATALOGUE, _in_batches_of(4, settings), name="beat")
    for _ in range(6):
        _create(sync, HOURLY)
    assert beat.fire() == 4
    stop = threading.Thread(target=beat.close)
    stop.start()
    assert wakeups.sent == []
    wakeups.gate.set()
    stop.join(10)
    assert {each.run_id for each in wakeups.sent} == _run_ids(sync)
    assert len(wakeups.sent) == 4, "what was not claimed stays for others"


def test_a_backlog_during_an_outage_is_decided_and_sent_when_the_broker_is_back(
    sync: sessionmaker[Session], wakeups: Wakeups, settings: Settings
) -> None:
    beat = Dispatcher(sync, wakeups, CATALOGUE, _in_batches_of(4, settings), name="beat")
    for _ in range(10):
        _create(sync, HOURLY)
    wakeups.away = True
    while beat.run_pass() == 0:
        pass
    due = _run_ids(sync)
    assert len(due) == 10
    with sync() as session:
        latest = session.scalar(
            text("SELECT max(next_dispatch_at) - clock_timestamp() FROM celery_task_runs")
        )
    assert latest.total_seconds() <= 1.0, "each batch is woken again as soon as the broker may be back"
    wakeups.away = False

    def all_sent() -> bool:
        beat.run_pass()
        return {each.run_id for each in wakeups.sent} == due

    eventually(all_sent, 10, "every run to be sent")


def test_a_run_due_later_is_dispatched_when_its_time_comes(
    sync: sessionmaker[Session], beat: Dispatcher, wakeups: Wakeups
) -> None:
    with sync.begin() as session:
        message = runs.submit(
            session,
            task=TASK,
            args=[],
            kwargs={},
            options=RunOptions(),
            origin=runs.Origin.CODE,
            redispatch_delay=30,
            due_in=0.3,
        )
    assert message is None
    assert 0 < beat.run_pass() <= 0.3
    assert wakeups.sent == []
    with sync.begin() as session:
        session.execute(
            text(
                "UPDATE celery_task_runs SET due_at = clock_timestamp(), next_dispatch_at = clock_timestamp()"
            )
        )
    beat.run_pass()
    assert len(wakeups.sent) == 1


def test_sweeping_waits_for_a_lease_of_unbroken_contact(
    sync: sessionmaker[Session], wakeups: Wakeups, settings: Settings
) -> None:
    schedule = _create(sync, HOURLY)
    eager = settings.model_copy(
        update={
            "beat": settings.beat.model_copy(update={"sweep_every": 1e-9}),
            "worker": settings.worker.model_copy(update={"lease": 1e-9}),
        }
    )
    patient = settings.model_copy(update={"beat": settings.beat.model_copy(update={"sweep_every": 1e-9})})
    Dispatcher(sync, wakeups, CATALOGUE, settings, name="first").run_pass()
    with sync.begin() as session:
        session.execute(text("UPDATE celery_task_runs SET state = 'running'"))
    beat = Dispatcher(sync, wakeups, CATALOGUE, patient, name="patient")
    beat.run_pass()
    beat.run_pass()
    assert _rows(sync, schedule)[0].state == "running"
    beat = Dispatcher(sync, wakeups, CATALOGUE, eager, name="eager")
    beat.run_pass()
    beat.run_pass()
    assert (_rows(sync, schedule)[0].state, _rows(sync, schedule)[0].reason) == ("lost", "worker_lost")


def test_a_good_pass_is_recorded(sync: sessionmaker[Session], beat: Dispatcher) -> None:
    beat.run_pass()
    with sync() as session:
        (row,) = session.scalars(select(BeatRow))
    assert (row.id, row.name) == (beat.id, "test")


def test_refused_input_changes_nothing(sync: sessionmaker[Session]) -> None:
    schedule = _create(sync, HOURLY)
    before = _clock(sync, schedule)
    with pytest.raises(InvalidInput, match="expression"), sync.begin() as session:
        schedules.update(
            session,
            CATALOGUE,
            schedule,
            ScheduleUpdate(task_name="new", schedule={"type": "crontab", "expression": "61 * * * *"}),
            "me",
        )
    assert _clock(sync, schedule) == before
    with sync() as session:
        assert session.get_one(ScheduleRow, schedule).task_name == "test"


def _waits(engine: Engine, schedule: UUID) -> bool:
    return bool(engine.rows(schedule)[0].next_dispatch_at > engine.clock.now)  # type: ignore[operator]


def test_what_the_broker_took_all_the_same_waits_for_its_next_attempt(engine: Engine) -> None:
    schedule = engine.create(max_attempts=2, retry_base=60, retry_jitter=0)
    engine.passes(60)
    run = engine.rows(schedule)[0].id
    engine.execute(run, runs.RunState.FAILED)
    with engine.sync.begin() as session:
        session.execute(statements.DISPATCH_SOON, {"ids": [run], "delay": 1.0})
    row = engine.rows(schedule)[0]
    assert row.next_dispatch_at == row.due_at == engine.clock.now + MINUTE


def test_a_queue_that_is_empty_while_runs_wait_in_it_has_lost_their_messages(engine: Engine) -> None:
    schedule = engine.create(queue="system")
    engine.passes(60)
    engine.wakeups.lengths["celery"] = 0
    engine.passes(3)
    assert len(engine.wakeups.sent) == 1
    engine.wakeups.lengths["system"] = 0
    engine.clock.advance(-2)
    engine.passes()
    assert len(engine.wakeups.sent) == 1, "it may be on its way"
    engine.passes(2)
    assert len(engine.wakeups.sent) == 2
    assert _waits(engine, schedule)


def test_a_broker_that_lost_its_data_is_told_everything_again(engine: Engine) -> None:
    schedules = [engine.create() for _ in range(3)]
    engine.passes(60)
    engine.passes(1)
    assert len(engine.wakeups.sent) == 3
    engine.wakeups.mark = "second"
    engine.passes(1)
    assert Counter(message.run_id for message in engine.wakeups.sent) == {
        engine.rows(each)[0].id: 2 for each in schedules
    }
    engine.passes(1)
    assert len(engine.wakeups.sent) == 6
