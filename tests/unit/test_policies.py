"""Firing decisions and retry back-off."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.scheduling.plan import Plan
from app.scheduling.policies import (
    CATCH_UP_AFTER,
    CatchUp,
    Firing,
    MissedRange,
    Overlap,
    Policies,
    Reason,
    Retry,
    Tick,
    fire,
)
from app.scheduling.timing import Timing, parse

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)

EVERY_SECOND = parse({"type": "interval", "every": 1, "unit": "seconds"})
EVERY_MINUTE = parse({"type": "crontab", "expression": "* * * * *"})
ONCE = parse({"type": "one_off", "at": "2026-03-02T12:00:00Z"})
PARALLEL = Overlap.ALLOW_ALL


def decide(
    timing: Timing, first: datetime, now: datetime, *, active: int = 0, limit: int = 100, **policies: Any
) -> Firing:
    return fire(
        Plan(timing=timing), Policies(**policies), next_run_at=first, now=now, active=active, limit=limit
    )


def test_nothing_is_due() -> None:
    assert decide(EVERY_MINUTE, NOON, NOON - SECOND) == Firing(next_run_at=NOON)


def test_a_tick_on_time_runs() -> None:
    assert decide(EVERY_MINUTE, NOON, NOON) == Firing((Tick(NOON, None),), (), NOON + MINUTE)


def test_a_one_off_has_no_next_run() -> None:
    assert decide(ONCE, NOON, NOON + SECOND) == Firing((Tick(NOON, None),), (), None)


def test_young_ticks_all_fire_whatever_catch_up_says() -> None:
    ticks = tuple(Tick(NOON + at * SECOND, None) for at in range(11))
    for catch_up in CatchUp:
        firing = decide(EVERY_SECOND, NOON, NOON + CATCH_UP_AFTER, overlap=PARALLEL, catch_up=catch_up)
        assert firing == Firing(ticks, (), NOON + 11 * SECOND)


def test_next_run_at_is_believed_even_when_it_is_no_tick() -> None:
    odd = NOON + 17 * SECOND
    assert decide(EVERY_MINUTE, odd, odd) == Firing((Tick(odd, None),), (), NOON + MINUTE)
    late = decide(EVERY_MINUTE, odd, odd + 30 * SECOND)
    assert late == Firing((Tick(odd, None),), (), NOON + MINUTE)
    later = decide(EVERY_MINUTE, odd, NOON + 100 * SECOND, catch_up=CatchUp.NONE)
    assert later.missed == (MissedRange(odd, NOON + MINUTE, 2, Reason.MISSED),)


class TestOverlap:
    def test_skip_while_a_run_is_active(self) -> None:
        firing = decide(EVERY_MINUTE, NOON, NOON, active=1)
        assert firing == Firing((Tick(NOON, Reason.OVERLAP),), (), NOON + MINUTE)

    def test_skip_counts_the_runs_of_the_same_firing(self) -> None:
        firing = decide(EVERY_SECOND, NOON, NOON + 2 * SECOND)
        assert [tick.reason for tick in firing.ticks] == [None, Reason.OVERLAP, Reason.OVERLAP]

    def test_allow_all(self) -> None:
        firing = decide(EVERY_SECOND, NOON, NOON + 2 * SECOND, active=50, overlap=PARALLEL)
        assert [tick.reason for tick in firing.ticks] == [None, None, None]

    def test_allow_all_up_to_max_concurrent(self) -> None:
        firing = decide(EVERY_SECOND, NOON, NOON + 3 * SECOND, active=1, overlap=PARALLEL, max_concurrent=3)
        assert [tick.reason for tick in firing.ticks] == [None, None, Reason.OVERLAP, Reason.OVERLAP]


class TestCatchUp:
    """A schedule of every minute, due at noon, is looked at 30 minutes and 30 seconds later."""

    now = NOON + 30 * MINUTE + 30 * SECOND
    newest = NOON + 30 * MINUTE
    upcoming = NOON + 31 * MINUTE

    def test_none(self) -> None:
        assert decide(EVERY_MINUTE, NOON, self.now, catch_up=CatchUp.NONE) == Firing(
            (), (MissedRange(NOON, self.newest, 31, Reason.MISSED),), self.upcoming
        )

    def test_latest(self) -> None:
        assert decide(EVERY_MINUTE, NOON, self.now) == Firing(
            (Tick(self.newest, None),),
            (MissedRange(NOON, self.newest - MINUTE, 30, Reason.MISSED),),
            self.upcoming,
        )

    def test_latest_with_a_single_missed_tick(self) -> None:
        assert decide(EVERY_MINUTE, self.newest, self.now) == Firing(
            (Tick(self.newest, None),), (), self.upcoming
        )

    @pytest.mark.parametrize("catch_up", [CatchUp.LATEST, CatchUp.ALL])
    def test_outside_the_window(self, catch_up: CatchUp) -> None:
        firing = decide(EVERY_MINUTE, NOON, self.now, catch_up=catch_up, catchup_window=29 * SECOND)
        assert firing == Firing(
            (), (MissedRange(NOON, self.newest, 31, Reason.CATCHUP_WINDOW),), self.upcoming
        )

    def test_the_window_is_inclusive(self) -> None:
        firing = decide(EVERY_MINUTE, NOON, self.now, catchup_window=30 * SECOND)
        assert firing.ticks == (Tick(self.newest, None),)
        firing = decide(
            EVERY_MINUTE, NOON, self.now, catch_up=CatchUp.ALL, overlap=PARALLEL, catchup_window=90 * SECOND
        )
        assert firing.ticks == (Tick(self.newest - MINUTE, None), Tick(self.newest, None))

    def test_all(self) -> None:
        firing = decide(EVERY_MINUTE, NOON, self.now, catch_up=CatchUp.ALL, overlap=PARALLEL)
        assert firing == Firing(tuple(Tick(NOON + at * MINUTE, None) for at in range(31)), (), self.upcoming)

    def test_all_inside_the_window(self) -> None:
        firing = decide(
            EVERY_MINUTE, NOON, self.now, catch_up=CatchUp.ALL, overlap=PARALLEL, catchup_window=2 * MINUTE
        )
        assert firing == Firing(
            (Tick(self.newest - MINUTE, None), Tick(self.newest, None)),
            (MissedRange(NOON, self.newest - 2 * MINUTE, 29, Reason.CATCHUP_WINDOW),),
            self.upcoming,
        )

    def test_all_up_to_the_cap(self) -> None:
        firing = decide(
            EVERY_MINUTE, NOON, self.now, catch_up=CatchUp.ALL, overlap=PARALLEL, max_catchup_runs=2
        )
        assert firing == Firing(
            (Tick(self.newest - MINUTE, None), Tick(self.newest, None)),
            (MissedRange(NOON, self.newest - 2 * MINUTE, 29, Reason.CATCHUP_LIMIT),),
            self.upcoming,
        )

    def test_all_with_both_limits_tells_them_apart(self) -> None:
        firing = decide(
            EVERY_MINUTE,
            NOON,
            self.now,
            catch_up=CatchUp.ALL,
            overlap=PARALLEL,
            max_catchup_runs=2,
            catchup_window=10 * MINUTE,
        )
        assert firing.missed == (
            MissedRange(NOON, NOON + 20 * MINUTE, 21, Reason.CATCHUP_WINDOW),
            MissedRange(NOON + 21 * MINUTE, NOON + 28 * MINUTE, 8, Reason.CATCHUP_LIMIT),
        )

    def test_all_under_skip_runs_the_first(self) -> None:
        firing = decide(EVERY_MINUTE, NOON, self.now, catch_up=CatchUp.ALL)
        assert [tick.reason for tick in firing.ticks] == [None] + [Reason.OVERLAP] * 30

    def test_a_late_one_off(self) -> None:
        assert decide(ONCE, NOON, NOON + HOUR) == Firing((Tick(NOON, None),), (), None)
        assert decide(ONCE, NOON, NOON + HOUR + SECOND) == Firing(
            (), (MissedRange(NOON, NOON, 1, Reason.CATCHUP_WINDOW),), None
        )

    def test_years_of_downtime_are_one_range(self) -> None:
        firing = decide(EVERY_SECOND, NOON - timedelta(days=3650), NOON)
        assert [missed.count for missed in firing.missed] == [3650 * 86400 - 11]
        assert len(firing.ticks) == 12


def test_a_limited_firing_goes_on_where_it_stopped() -> None:
    now = NOON + 30 * MINUTE + 30 * SECOND
    firing = decide(EVERY_MINUTE, NOON, now, catch_up=CatchUp.ALL, overlap=PARALLEL, limit=20)
    assert len(firing.ticks) == 20
    assert firing.next_run_at == NOON + 20 * MINUTE
    rest = decide(EVERY_MINUTE, firing.next_run_at, now, catch_up=CatchUp.ALL, overlap=PARALLEL, limit=20)
    assert [tick.scheduled_for for tick in rest.ticks] == [NOON + at * MINUTE for at in range(20, 31)]
    assert rest.next_run_at == NOON + 31 * MINUTE


TIMINGS = (
    EVERY_SECOND,
    EVERY_MINUTE,
    ONCE,
    parse({"type": "interval", "every": 7, "unit": "seconds"}),
    parse({"type": "interval", "every": 3, "unit": "days", "timezone": "America/New_York"}),
    parse({"type": "crontab", "expression": "0,30 1-3 * * *", "timezone": "Europe/Berlin"}),
    parse({"type": "crontab", "expression": "*/10 * * * *", "timezone": "Australia/Lord_Howe"}),
)

durations = st.one_of(
    st.timedeltas(timedelta(0), timedelta(seconds=40)), st.timedeltas(timedelta(0), timedelta(days=40))
)
policies = st.builds(
    Policies,
    overlap=st.sampled_from(Overlap),
    max_concurrent=st.none() | st.integers(1, 5),
    catch_up=st.sampled_from(CatchUp),
    catchup_window=durations,
    max_catchup_runs=st.integers(1, 30),
)


def due(timing: Timing, first: datetime, now: datetime) -> list[datetime]:
    return [first, *timing.ticks(first, now)]


def expanded(timing: Timing, missed: MissedRange) -> list[datetime]:
    found = due(timing, missed.first, missed.last)
    assert found[-1] == missed.last
    assert missed.count == len(found)
    return found


@given(
    timing=st.sampled_from(TIMINGS),
    policies=policies,
    start=st.datetimes(datetime(2026, 2, 20), datetime(2026, 4, 1), timezones=st.just(UTC)),
    late=st.one_of(st.timedeltas(timedelta(0), timedelta(seconds=40)), st.timedeltas(timedelta(0), 6 * HOUR)),
    odd=st.booleans(),
    active=st.integers(0, 3),
    waiting=st.integers(0, 3),
    limit=st.integers(1, 40),
)
@settings(max_examples=500, deadline=None)
def test_every_tick_is_accounted_for_once(
    *,
    timing: Timing,
    policies: Policies,
    start: datetime,
    late: timedelta,
    odd: bool,
    active: int,
    waiting: int,
    limit: int,
) -> None:
    first = start if odd else timing.next_after(start)
    if first is None:
        return
    now = first + late
    firing = fire(
        Plan(timing=timing),
        policies,
        next_run_at=first,
        now=now,
        active=active,
        waiting=waiting,
        limit=limit,
    )

    decided = [tick.scheduled_for for tick in firing.ticks]
    missed = [tick for each in firing.missed for tick in expanded(timing, each)]
    expected = due(timing, first, now)
    if len(decided) == limit and firing.next_run_at is not None and firing.next_run_at <= now:
        expected = [tick for tick in expected if tick < firing.next_run_at]
    else:
        assert firing.next_run_at == timing.next_after(now)
    assert missed + decided == expected
    check_catch_up(policies, firing, now)
    check_overlap(policies, firing, active, waiting)


def check_catch_up(policies: Policies, firing: Firing, now: datetime) -> None:
    old = [tick.scheduled_for for tick in firing.ticks if now - tick.scheduled_for > CATCH_UP_AFTER]
    assert all(now - tick <= policies.catchup_window for tick in old)
    most = {CatchUp.NONE: 0, CatchUp.LATEST: 1, CatchUp.ALL: policies.max_catchup_runs}
    assert len(old) <= most[policies.catch_up]
    for missed in firing.missed:
        assert now - missed.last > CATCH_UP_AFTER
        assert missed.reason is not Reason.CATCHUP_WINDOW or now - missed.last > policies.catchup_window
        if missed.reason is Reason.CATCHUP_LIMIT:
            assert now - missed.first <= policies.catchup_window
            assert policies.catch_up is CatchUp.ALL


Fate = tuple[Reason | None, bool]
RUN: Fate = (None, False)
WAIT: Fate = (None, True)
OVERLAPS: Fate = (Reason.OVERLAP, False)
FULL: Fate = (Reason.BUFFER_FULL, False)
REPLACED: Fate = (Reason.REPLACED, False)


def check_overlap(policies: Policies, firing: Firing, active: int, waiting: int) -> None:
    """What each policy makes of n ticks, said for all of them at once instead of one after another."""
    n = len(firing.ticks)
    busy = active + waiting > 0
    if policies.overlap is Overlap.ALLOW_ALL:
        most = n if policies.max_concurrent is None else policies.max_concurrent - active - waiting
        expected = [RUN] * min(n, max(0, most))
        expected += [OVERLAPS] * (n - len(expected))
    elif policies.overlap is Overlap.CANCEL_OTHER:
        expected = [REPLACED] * (n - 1) + [WAIT if active else RUN] * min(n, 1)
    else:
        first = [] if busy else [RUN] * min(n, 1)
        rest = n - len(first)
        room = {Overlap.SKIP: 0, Overlap.BUFFER_ONE: max(0, 1 - waiting), Overlap.BUFFER_ALL: 100 - waiting}
        if policies.overlap is Overlap.BUFFER_LATEST:
            expected = first + [REPLACED] * (rest - 1) + [WAIT] * min(rest, 1)
        else:
            waits = min(rest, room[policies.overlap])
            refused = OVERLAPS if policies.overlap is Overlap.SKIP else FULL
            expected = first + [WAIT] * waits + [refused] * (rest - waits)
    assert [(tick.reason, tick.waits) for tick in firing.ticks] == expected
    replacing = policies.overlap in (Overlap.BUFFER_LATEST, Overlap.CANCEL_OTHER)
    assert firing.replaces_waiting == (replacing and waiting > 0 and n > 0)
    assert firing.cancels_active == (policies.overlap is Overlap.CANCEL_OTHER and active > 0 and n > 0)


class TestMaxRuns:
    def test_the_last_run_completes(self) -> None:
        firing = fire(Plan(timing=EVERY_MINUTE), Policies(), next_run_at=NOON, now=NOON, remaining=1)
        assert firing == Firing((Tick(NOON, None),), (), None)
        assert firing.completed

    def test_skipped_ticks_do_not_count(self) -> None:
        firing = fire(
            Plan(timing=EVERY_MINUTE), Policies(), next_run_at=NOON, now=NOON, active=1, remaining=1
        )
        assert firing == Firing((Tick(NOON, Reason.OVERLAP),), (), NOON + MINUTE)

    def test_ticks_beyond_the_last_run_are_none(self) -> None:
        rules = Policies(overlap=PARALLEL)
        now = NOON + 5 * SECOND
        firing = fire(Plan(timing=EVERY_SECOND), rules, next_run_at=NOON, now=now, remaining=2)
        assert firing == Firing((Tick(NOON, None), Tick(NOON + SECOND, None)), (), None)

    def test_what_is_replaced_does_not_count(self) -> None:
        rules = Policies(overlap=Overlap.BUFFER_LATEST)
        now = NOON + 5 * SECOND
        firing = fire(
            Plan(timing=EVERY_SECOND), rules, next_run_at=NOON, now=now, active=1, waiting=1, remaining=1
        )
        assert [tick.waits for tick in firing.ticks] == [False] * 5 + [True]
        assert firing.next_run_at == NOON + 6 * SECOND
        assert firing.replaces_waiting


class TestFixedDelay:
    plan = Plan(timing=parse({"type": "interval", "every": 60, "unit": "seconds", "fixed_delay": True}))

    def decide(self, late: timedelta, **rules: Any) -> Firing:
        return fire(self.plan, Policies(**rules), next_run_at=NOON, now=NOON + late)

    def test_the_next_tick_is_counted_from_the_end(self) -> None:
        firing = self.decide(SECOND)
        assert firing == Firing((Tick(NOON, None),), (), None, awaits_end=True)
        assert not firing.completed

    def test_a_late_tick_is_one_tick(self) -> None:
        assert self.decide(HOUR).ticks == (Tick(NOON, None),)
        none = self.decide(HOUR, catch_up=CatchUp.NONE)
        assert none == Firing((), (MissedRange(NOON, NOON, 1, Reason.MISSED),), NOON + HOUR + MINUTE)
        old = self.decide(2 * HOUR)
        assert old.missed == (MissedRange(NOON, NOON, 1, Reason.CATCHUP_WINDOW),)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_concurrent": 0},
        {"catchup_window": -SECOND},
        {"max_catchup_runs": 0},
        {"start_deadline": timedelta(0)},
    ],
)
def test_senseless_policies(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must .*; "):
        Policies(**wrong)


class TestRetry:
    seed = UUID("019c0000-0000-8000-8000-000000000001")

    def test_doubles_up_to_the_cap(self) -> None:
        retry = Retry(jitter=0)
        delays = [retry.delay(attempt, self.seed).total_seconds() for attempt in range(1, 10)]
        assert delays == [10, 20, 40, 80, 160, 320, 600, 600, 600]

    def test_jitter_is_a_function_of_seed_and_attempt(self) -> None:
        retry = Retry(jitter=0.5)
        assert retry.delay(1, self.seed) == retry.delay(1, self.seed.bytes)
        assert len({retry.delay(8, bytes([seed])) for seed in range(100)}) == 100
        assert retry.delay(8, self.seed) != retry.delay(9, self.seed)

    @given(
        st.builds(
            Retry,
            base=st.timedeltas(timedelta(0), timedelta(days=365)),
            factor=st.floats(1, 1e308),
            cap=st.timedeltas(timedelta(0), timedelta(days=3650)),
            jitter=st.floats(0, 1),
        ),
        st.integers(1, 2**31),
        st.binary(max_size=20),
    )
    def test_stays_within_its_bounds(self, retry: Retry, attempt: int, seed: bytes) -> None:
        delay = retry.delay(attempt, seed)
        assert timedelta(0) <= delay <= retry.cap
        assert delay >= min(retry.base, retry.cap) * (1 - retry.jitter) - timedelta(microseconds=1)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"max_attempts": 0},
            {"base": -SECOND},
            {"cap": -SECOND},
            {"factor": 0.5},
            {"factor": float("nan")},
            {"jitter": 2},
        ],
    )
    def test_senseless_values(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"must (not )?be"):
            Retry(**wrong)

    def test_attempts_are_numbered_from_one(self) -> None:
        with pytest.raises(ValueError, match="from 1"):
            Retry().delay(0, b"")
