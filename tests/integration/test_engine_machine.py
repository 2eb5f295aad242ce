"""Schedules and policies under arbitrary interleavings of ticks, edits, pauses, completions, two beats and crashes.

After each step three of the invariants are checked on the real tables: I1 (each tick of a schedule is decided exactly
once, by a run or within one range, and nothing else is), I2 (an attempt starts at most once), I4 (a terminal run
never changes); and that nobody waits for a run that is over. Which ticks there are is computed here, by plain
arithmetic, from the history of versions. ``UPBEAT_TEST_MACHINE_EXAMPLES`` makes it longer.
"""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select, text

from app.scheduling import on_demand, statements
from app.scheduling.firing import Due
from app.scheduling.ids import new_id
from app.scheduling.models import ScheduleVersionRow
from app.scheduling.policies import CatchUp, Overlap
from app.scheduling.runs import RunState
from support.engine import CATALOGUE, TABLES, Engine

EXAMPLES = int(os.environ.get("UPBEAT_TEST_MACHINE_EXAMPLES", "20"))
SHRINK = "UPBEAT_TEST_MACHINE_SHRINK" in os.environ
STEPS = int(os.environ.get("UPBEAT_TEST_MACHINE_STEPS", "30"))

SECOND = timedelta(seconds=1)
PERIODS = {"minutely": 60, "sevens": 7}
TIMINGS: dict[str, dict[str, Any]] = {
    "minutely": {"type": "crontab", "expression": "* * * * *"},
    "sevens": {"type": "interval", "every": 7, "unit": "seconds"},
    "delay": {"type": "interval", "every": 20, "unit": "seconds", "fixed_delay": True},
}
OVERLAPS = st.sampled_from([each.value for each in Overlap])
EXTRAS = st.fixed_dictionaries(
    {"overlap": OVERLAPS, "catch_up": st.sampled_from([each.value for each in CatchUp])},
    optional={
        "max_runs": st.integers(1, 4),
        "pause_on_failure": st.integers(1, 2),
        "start_deadline": st.sampled_from([5, 90]),
        "catchup_window": st.sampled_from([0, 30, 600]),
        "max_attempts": st.integers(1, 2),
        "on_worker_lost": st.sampled_from(["fail", "retry"]),
        "jitter": st.sampled_from([3, "50%"]),
    },
)


class Machine(RuleBasedStateMachine):
    """People, two beats and a worker, in any order."""

    engine: ClassVar[Engine]
    start: ClassVar[datetime]
    schedules = Bundle("schedules")

    def __init__(self) -> None:
        super().__init__()
        engine = self.engine
        engine.execute_sql(f"TRUNCATE {TABLES} CASCADE")
        engine.clock.set(self.start)
        engine.wakeups.sent.clear()
        engine.wakeups.lost = False
        engine.worker = engine.new_worker()
        self.beats = [engine.new_beat(), engine.new_beat()]
        self.started: dict[tuple[UUID, int], None] = {}
        self.running: dict[UUID, int] = {}
        self.terminal: dict[UUID, dict[str, Any]] = {}
        self.known: list[UUID] = []

    # People

    @precondition(lambda self: len(self.known) < 3)
    @rule(target=schedules, timing=st.sampled_from(sorted(TIMINGS)), extra=EXTRAS)
    def create(self, timing: str, extra: dict[str, Any]) -> UUID:
        schedule = self.engine.create(TIMINGS[timing], **extra)
        self.known.append(schedule)
        return schedule

    @rule(schedule=schedules, timing=st.sampled_from(sorted(TIMINGS)))
    def edit_timing(self, schedule: UUID, timing: str) -> None:
        # What an edit during a pause means for the ticks of the pause is a test of its own.
        if self.engine.row(schedule).state != "paused":
            self.engine.update(schedule, schedule=TIMINGS[timing])

    @rule(schedule=schedules, extra=EXTRAS)
    def edit_policies(self, schedule: UUID, extra: dict[str, Any]) -> None:
        self.engine.update(schedule, task_extra_config=extra)

    @rule(schedule=schedules)
    def pause(self, schedule: UUID) -> None:
        if self.engine.row(schedule).state in ("active", "paused"):
            self.engine.pause(schedule)

    @rule(schedule=schedules, catch_up=st.sampled_from(CatchUp), dry=st.booleans())
    def resume(self, *, schedule: UUID, catch_up: CatchUp, dry: bool) -> None:
        if self.engine.row(schedule).state == "paused":
            self.engine.resume(schedule, catch_up=catch_up, dry_run=dry)

    @rule(schedule=schedules, enabled=st.booleans())
    def enable(self, *, schedule: UUID, enabled: bool) -> None:
        self.engine.update(schedule, task_enabled=enabled)

    @rule(schedule=schedules, overlap=st.none() | st.sampled_from(Overlap))
    def run_now(self, schedule: UUID, overlap: Overlap | None) -> None:
        with self.engine.sync.begin() as session:
            message = on_demand.run_now(
                session,
                CATALOGUE,
                schedule,
                actor="me",
                run_id=new_id(),
                redispatch_delay=30,
                overlap=overlap,
            )
        if message is not None:
            self.engine.wakeups.publish([message])

    @rule(schedule=schedules, data=st.data())
    def cancel(self, schedule: UUID, data: st.DataObject) -> None:
        active = [row.id for row in self.engine.rows(schedule) if row.state in ("queued", "running")]
        if active:
            self.engine.cancel(data.draw(st.sampled_from(active)))

    # Time, beats and their crashes

    @rule(seconds=st.sampled_from([0.4, 1, 3, 8, 31, 61, 200]))
    def time_passes(self, seconds: float) -> None:
        self.engine.clock.advance(seconds)

    @rule(beat=st.integers(0, 1))
    def beat_passes(self, beat: int) -> None:
        self.beats[beat].run_pass()

    @rule(beat=st.integers(0, 1))
    def beat_dies_before_its_commit(self, beat: int) -> None:
        with self.engine.sync() as session:
            claimed = session.execute(statements.claim(500)).all()
            if claimed:
                due = [Due(row.schedule_id, row.next_run_at, row.run_count) for row in claimed]
                self.beats[beat]._firer.fire(session, due, claimed[0].now)
            session.rollback()
        self.beats[beat] = self.engine.new_beat()

    @rule(beat=st.integers(0, 1))
    def beat_dies_after_its_commit(self, beat: int) -> None:
        self.engine.wakeups.lost = True
        self.beats[beat].fire()
        self.engine.wakeups.lost = False
        self.beats[beat] = self.engine.new_beat()

    # The worker: messages stay in the list, so they are delivered late, twice and in any order

    @precondition(lambda self: self.engine.wakeups.sent)
    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        message = data.draw(st.sampled_from(self.engine.wakeups.sent))
        if self.engine.start(message.run_id, message.kind.attempt) is not None:
            assert (message.run_id, message.kind.attempt) not in self.started, "I2: started twice"
            self.started[message.run_id, message.kind.attempt] = None
            self.running[message.run_id] = message.kind.attempt

    @precondition(lambda self: self.running)
    @rule(data=st.data(), state=st.sampled_from([RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED]))
    def finish(self, data: st.DataObject, state: RunState) -> None:
        run_id = data.draw(st.sampled_from(list(self.running)))
        self.engine.finish(run_id, state, self.running.pop(run_id))

    @precondition(lambda self: self.started)
    @rule(data=st.data())
    def finish_again(self, data: st.DataObject) -> None:
        run_id, attempt = data.draw(st.sampled_from(list(self.started)))
        if self.running.get(run_id) != attempt:
            assert self.engine.finish(run_id, RunState.SUCCEEDED, attempt) is None, (
                "a fenced outcome had effect"
            )

    @rule()
    def worker_dies(self) -> None:
        self.engine.lose_worker()
        for beat in self.beats:
            beat.run_pass()
            beat.run_pass()
        self.running.clear()

    # What must hold

    @invariant()
    def terminal_runs_never_change(self) -> None:
        with self.engine.sync() as session:
            rows = session.execute(
                text("SELECT id, state, to_jsonb(r) AS document FROM celery_task_runs r")
            ).all()
        documents = {row.id: row.document for row in rows if RunState(row.state).terminal}
        for run_id, document in self.terminal.items():
            assert documents.get(run_id) == document, "I4: a terminal run changed"
        self.terminal = documents

    @invariant()
    def nobody_waits_for_what_is_over(self) -> None:
        with self.engine.sync() as session:
            stuck = session.execute(
                text(
                    "SELECT w.id FROM celery_task_runs w LEFT JOIN celery_task_runs b ON b.id = w.blocked_by"
                    " WHERE w.state = 'queued' AND w.blocked_by IS NOT NULL"
                    " AND (b.id IS NULL OR b.state NOT IN ('queued', 'running'))"
                )
            ).all()
        assert stuck == []

    @invariant()
    def each_tick_is_decided_once(self) -> None:
        for schedule in self.known:
            found = sorted(self._decided(schedule))
            assert found == sorted(self._named(schedule)), f"I1: schedule {schedule}"
            self._delay_goes_on(schedule)

    def _decided(self, schedule: UUID) -> Iterator[datetime]:
        """Of timings with ticks of their own: the ticks that have a run, and those in ranges."""
        delays = self._delays(schedule)
        for row in self.engine.rows(schedule):
            if row.origin == "schedule" and row.schedule_version not in delays:
                assert row.scheduled_for is not None
                yield row.scheduled_for
        for first, last, count, _ in self.engine.missed(schedule):
            kind = next(_kind(v) for v in reversed(self._versions(schedule)) if v.changed_at < first)
            if kind != "delay":
                ticks = list(_multiples(PERIODS[kind], first - SECOND, last))
                assert (ticks[0], ticks[-1], len(ticks)) == (first, last, count)
                yield from ticks

    def _named(self, schedule: UUID) -> Iterator[datetime]:
        """What the versions of the schedule name, up to what is decided by now."""
        for timing, period in PERIODS.items():
            for lo, hi in self._spans(schedule, timing):
                yield from _multiples(period, lo, hi)

    def _versions(self, schedule: UUID) -> list[ScheduleVersionRow]:
        with self.engine.sync() as session:
            query = select(ScheduleVersionRow).where(ScheduleVersionRow.schedule_id == schedule)
            return list(session.scalars(query.order_by(ScheduleVersionRow.version)))

    def _delays(self, schedule: UUID) -> set[int]:
        return {each.version for each in self._versions(schedule) if _kind(each) == "delay"}

    def _spans(self, schedule: UUID, kind: str) -> Iterator[tuple[datetime, datetime]]:
        """When ticks of this kind had to be decided: `(lo, hi]` of each version."""
        versions = self._versions(schedule)
        upcoming = self.engine.next_run_at(schedule)
        for version, following in zip(versions, [*versions[1:], None], strict=True):
            state = version.config["state"]
            if _kind(version) != kind or state not in ("active", "paused"):
                continue
            if following is None:
                hi = version.changed_at if upcoming is None or state == "paused" else upcoming - SECOND / 1000
            elif state == "paused" and all(
                v.config["state"] == "paused" for v in versions[following.version - 1 :]
            ):
                continue
            elif following.action == "complete":
                hi = self._last_decided(schedule, version, following)
            else:
                hi = following.changed_at
            # What is due and was not decided yet is still ahead, though something else was edited meanwhile.
            yield version.changed_at, hi if upcoming is None else min(hi, upcoming - SECOND / 1000)

    def _last_decided(
        self, schedule: UUID, version: ScheduleVersionRow, complete: ScheduleVersionRow
    ) -> datetime:
        """Ticks beyond the run that completed it are none."""
        rows = [
            row.scheduled_for
            for row in self.engine.rows(schedule)
            if row.origin == "schedule" and row.scheduled_for and row.scheduled_for <= complete.changed_at
        ]
        return max(rows, default=version.changed_at)

    def _delay_goes_on(self, schedule: UUID) -> None:
        version = self._versions(schedule)[-1]
        if _kind(version) == "delay" and self.engine.row(schedule).state == "active":
            active = [
                row
                for row in self.engine.rows(schedule)
                if row.origin == "schedule" and row.state in ("queued", "running")
            ]
            assert active or self.engine.next_run_at(schedule), "a fixed delay has neither run nor next tick"


def _kind(version: ScheduleVersionRow) -> str:
    schedule = version.config["schedule"]
    if schedule.get("fixed_delay"):
        return "delay"
    return "minutely" if schedule["type"] == "crontab" else "sevens"


def _multiples(period: int, lo: datetime, hi: datetime) -> Iterator[datetime]:
    """The instants in `(lo, hi]` whose seconds since the epoch are multiples of ``period``."""
    tick = (int(lo.timestamp()) // period + 1) * period
    while tick <= hi.timestamp():
        yield datetime.fromtimestamp(tick, UTC)
        tick += period


@pytest.mark.timeout(3600)
def test_the_invariants_hold_whatever_happens(engine: Engine) -> None:
    # Half a minute off the ticks, and of a day whose months have their partitions.
    Machine.engine, Machine.start = engine, engine.clock.now + timedelta(seconds=30)
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink] if SHRINK else [Phase.generate],
        ),
    )
