"""Pausing, resuming, editing, and the question why an instant had no run."""

from datetime import datetime, timedelta
from uuid import UUID

import pytest

from app.errors import Conflict, InvalidInput, NotFound
from app.scheduling import explaining, schedules
from app.scheduling.explaining import Explanation, Verdict
from app.scheduling.ids import new_id
from app.scheduling.models import ScheduleRow
from app.scheduling.policies import CatchUp, Reason
from support.engine import MINUTE, Engine


def _why(engine: Engine, schedule: UUID, at: datetime) -> Explanation:
    with engine.sync() as session:
        return explaining.explain(session, schedule, at)


def test_ticks_that_pass_while_paused_are_one_range(engine: Engine) -> None:
    schedule, noon = engine.create(), engine.clock.now
    engine.passes(60)
    engine.pause(schedule, "maintenance")
    row = engine.row(schedule)
    assert (row.state, row.paused_by, row.pause_note) == ("paused", "me", "maintenance")
    assert (row.paused_at, engine.next_run_at(schedule)) == (engine.clock.now, None)
    engine.passes(630)
    assert len(engine.rows(schedule)) == 1
    done = engine.resume(schedule)
    assert (done.ticks, done.firing.ticks) == (10, ())
    assert engine.missed(schedule) == [(noon + 2 * MINUTE, noon + 11 * MINUTE, 10, "paused")]
    assert engine.next_run_at(schedule) == noon + 12 * MINUTE
    assert engine.row(schedule).pause_note is None
    assert engine.actions(schedule) == [("create", "me"), ("pause", "me"), ("resume", "me")]


def test_resuming_with_catch_up_says_beforehand_what_it_will_do(engine: Engine) -> None:
    schedule, noon = engine.create(overlap="allow_all", catchup_window=240), engine.clock.now
    engine.pause(schedule)
    engine.clock.advance(630)
    would = engine.resume(schedule, catch_up=CatchUp.ALL, dry_run=True)
    assert engine.row(schedule).state == "paused"
    assert engine.rows(schedule) == []
    did = engine.resume(schedule, catch_up=CatchUp.ALL)
    assert would.firing == did.firing
    assert [row.scheduled_for for row in engine.rows(schedule)] == [noon + n * MINUTE for n in (7, 8, 9, 10)]
    assert engine.missed(schedule) == [(noon + MINUTE, noon + 6 * MINUTE, 6, "catchup_window")]
    assert len(engine.wakeups.sent) == 4
    assert engine.next_run_at(schedule) == noon + 11 * MINUTE


def test_all_that_is_caught_up_with_is_decided_at_once(engine: Engine) -> None:
    schedule = engine.create(overlap="allow_all", catchup_window=86_400, max_catchup_runs=150)
    engine.pause(schedule)
    engine.clock.advance(200 * 60 + 30)
    engine.resume(schedule, catch_up=CatchUp.ALL)
    engine.passes()
    assert len(engine.rows(schedule)) == 150
    assert [gap[2:] for gap in engine.missed(schedule)] == [(50, "catchup_limit")]


def test_an_edit_during_a_pause_leaves_the_ticks_before_it_as_they_were(engine: Engine) -> None:
    schedule, noon = engine.create(overlap="allow_all"), engine.clock.now
    engine.pause(schedule)
    engine.clock.advance(600)
    every_five = {"schedule": {"type": "crontab", "expression": "*/5 * * * *"}}
    engine.update(schedule, **every_five)
    engine.update(schedule, **every_five, description="no edit of its timing")
    assert engine.missed(schedule) == [(noon + MINUTE, noon + 10 * MINUTE, 10, "paused")]
    engine.clock.advance(600)
    done = engine.resume(schedule, catch_up=CatchUp.ALL)
    assert done.ticks == 2
    assert [row.scheduled_for for row in engine.rows(schedule)] == [noon + n * MINUTE for n in (15, 20)]
    assert len(engine.missed(schedule)) == 1


def test_a_one_off_that_is_over_can_be_described_again(engine: Engine) -> None:
    once = {"type": "one_off", "at": (engine.clock.now + MINUTE).isoformat()}
    schedule = engine.create(once)
    engine.passes(60)
    engine.update(schedule, schedule=once, description="what it was for")
    row = engine.row(schedule)
    assert (row.state, row.description) == ("completed", "what it was for")
    with pytest.raises(InvalidInput, match="past"):
        engine.update(schedule, schedule=once | {"at": (engine.clock.now - MINUTE).isoformat()})


def test_what_was_read_before_the_lock_is_read_again(engine: Engine) -> None:
    schedule = engine.create()
    with engine.sync.begin() as session:
        before = session.get_one(ScheduleRow, schedule)
        engine.pause(schedule, "meanwhile")
        row, clock = schedules.locked(session, schedule)
        assert row is before
        assert (row.state, row.version, clock.next_run_at) == ("paused", 2, None)


def test_what_nobody_had_decided_when_it_was_paused_or_edited_is_accounted_for(engine: Engine) -> None:
    paused, edited, disabled = engine.create(), engine.create(), engine.create()
    noon = engine.clock.now
    engine.clock.advance(150)
    engine.pause(paused)
    engine.update(edited, schedule={"type": "crontab", "expression": "*/5 * * * *"})
    engine.update(disabled, task_enabled=False)
    gap = (noon + MINUTE, noon + 2 * MINUTE, 2)
    assert engine.missed(paused) == [(*gap, "paused")]
    assert engine.missed(edited) == engine.missed(disabled) == [(*gap, "edited")]
    assert engine.next_run_at(edited) == noon + 5 * MINUTE


def test_an_edit_of_anything_but_timing_leaves_the_clock_alone(engine: Engine) -> None:
    schedule, noon = engine.create(), engine.clock.now
    engine.clock.advance(150)
    engine.update(schedule, task_kwargs={"b": 1}, task_extra_config={"overlap": "allow_all"})
    assert engine.next_run_at(schedule) == noon + MINUTE
    engine.passes()
    assert [row.kwargs for row in engine.rows(schedule)] == [{"b": 1}]


@pytest.mark.parametrize("state", ["disabled", "completed"])
def test_what_does_not_fire_cannot_be_paused(engine: Engine, state: str) -> None:
    schedule = engine.create()
    engine.execute_sql("UPDATE celery_periodic_task_configs SET state = :state", state=state)
    with pytest.raises(Conflict, match=state):
        engine.pause(schedule)


def test_a_pause_needs_a_note_and_a_second_one_replaces_it(engine: Engine) -> None:
    schedule = engine.create()
    with pytest.raises(InvalidInput, match="note"):
        engine.pause(schedule, "  ")
    engine.pause(schedule, "one")
    since = engine.clock.now
    engine.clock.advance(30)
    engine.pause(schedule, "two")
    assert (engine.row(schedule).pause_note, engine.row(schedule).paused_at) == ("two", since)
    with pytest.raises(Conflict, match="not paused"):
        engine.resume(engine.create())


def test_a_one_off_that_was_paused_away_runs_only_if_caught_up_with(engine: Engine) -> None:
    at = engine.clock.now + MINUTE
    schedule = engine.create({"type": "one_off", "at": at.isoformat()})
    engine.pause(schedule)
    engine.clock.advance(120)
    with pytest.raises(Conflict, match="catch_up"):
        engine.resume(schedule)
    engine.resume(schedule, catch_up=CatchUp.LATEST)
    assert engine.states(schedule) == ["queued"]
    assert engine.row(schedule).state == "completed"


def test_limits_are_inclusive_and_end_the_schedule(engine: Engine) -> None:
    noon = engine.clock.now
    schedule = engine.create(
        starts_at=(noon + 2 * MINUTE).isoformat(),
        ends_at=(noon + 3 * MINUTE).isoformat(),
        overlap="allow_all",
    )
    for _ in range(5):
        engine.passes(60)
    assert [row.scheduled_for for row in engine.rows(schedule)] == [noon + 2 * MINUTE, noon + 3 * MINUTE]
    assert engine.row(schedule).state == "completed"
    with pytest.raises(InvalidInput, match="no tick"):
        engine.create(ends_at=(noon - MINUTE).isoformat())


class TestWhy:
    """Each verdict, with what it is about."""

    def test_what_ran_waits_or_was_skipped(self, engine: Engine) -> None:
        schedule, noon = engine.create(overlap="buffer_one"), engine.clock.now
        for _ in range(3):
            engine.passes(60)
        first = engine.rows(schedule)[0].id
        queued = _why(engine, schedule, noon + MINUTE)
        assert (queued.verdict, queued.reason) == (Verdict.QUEUED, None)
        assert "waits in the queue celery" in queued.explanation
        engine.execute(first)
        found = [_why(engine, schedule, noon + n * MINUTE) for n in (1, 2, 3)]
        assert [(each.verdict, each.reason) for each in found] == [
            (Verdict.EXECUTED, None),
            (Verdict.QUEUED, None),
            (Verdict.NOT_EXECUTED, "buffer_full"),
        ]
        assert "on w@host and is succeeded" in found[0].explanation
        assert (found[0].previous_tick, found[0].next_tick) == (noon, noon + 2 * MINUTE)

    def test_a_waiting_run_names_the_one_before(self, engine: Engine) -> None:
        schedule, noon = engine.create(overlap="buffer_one"), engine.clock.now
        engine.passes(60)
        engine.passes(60)
        found = _why(engine, schedule, noon + 2 * MINUTE)
        assert (found.verdict, found.reason) == (Verdict.QUEUED, "overlap")
        assert str(engine.rows(schedule)[0].id) in found.explanation

    def test_what_is_no_tick(self, engine: Engine) -> None:
        schedule, noon = engine.create(), engine.clock.now
        found = _why(engine, schedule, noon + 90 * timedelta(seconds=1))
        assert found.verdict is Verdict.NOT_A_TICK
        assert (found.previous_tick, found.next_tick) == (noon + MINUTE, noon + 2 * MINUTE)

    def test_before_creation_and_ahead(self, engine: Engine) -> None:
        schedule, noon = engine.create(), engine.clock.now
        engine.execute_sql("UPDATE celery_periodic_task_config_versions SET changed_at = :at", at=noon)
        assert _why(engine, schedule, noon - MINUTE).verdict is Verdict.BEFORE_CREATION
        assert _why(engine, schedule, noon + MINUTE).verdict is Verdict.AHEAD

    def test_undecided_until_a_beat_comes(self, engine: Engine) -> None:
        schedule, noon = engine.create(), engine.clock.now
        engine.passes()
        engine.clock.advance(61)
        found = _why(engine, schedule, noon + MINUTE)
        assert found.verdict is Verdict.UNDECIDED
        assert "Is a beat running?" in found.explanation
        engine.passes()
        assert _why(engine, schedule, noon + MINUTE).verdict is Verdict.QUEUED

    def test_missed_paused_disabled_and_deleted(self, engine: Engine) -> None:
        schedule, noon = engine.create(catch_up="none"), engine.clock.now
        engine.passes(300)
        found = _why(engine, schedule, noon + 2 * MINUTE)
        assert (found.verdict, found.reason) == (Verdict.MISSED, Reason.MISSED)
        assert found.missed is not None
        assert found.missed["count"] == 4
        for action, verdict in (("pause", Verdict.PAUSED), ("disable", Verdict.DISABLED)):
            if action == "pause":
                engine.pause(schedule, "quiet, please")
            else:
                engine.update(schedule, task_enabled=False)
            found = _why(engine, schedule, engine.clock.now + MINUTE)
            assert (found.verdict, found.version["author"]) == (verdict, "me")
        with engine.sync.begin() as session:
            schedules.remove(session, schedule, "you")
        found = _why(engine, schedule, engine.clock.now + MINUTE)
        assert found.verdict is Verdict.DELETED
        assert "by you" in found.explanation

    def test_the_version_that_was_in_force_decides(self, engine: Engine) -> None:
        schedule, noon = engine.create(), engine.clock.now
        engine.passes(60)
        engine.update(schedule, schedule={"type": "crontab", "expression": "0 0 * * *"})
        engine.passes(60)
        assert _why(engine, schedule, noon + MINUTE).verdict is Verdict.QUEUED
        later = _why(engine, schedule, noon + 2 * MINUTE)
        assert later.verdict is Verdict.NOT_A_TICK
        assert later.version["version"] == 2

    def test_what_never_was(self, engine: Engine) -> None:
        with pytest.raises(NotFound):
            _why(engine, new_id(), engine.clock.now)
