"""Simulations by example: one table, the policies side by side."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.scheduling.plan import Jitter, Plan
from app.scheduling.policies import Overlap, Policies
from app.scheduling.simulation import Outcome, SimulatedRun, simulate
from app.scheduling.timing import parse

SCHEDULE = UUID("0199d0c2-f2f0-7a51-9c66-3f0c5f3ad4b1")
START = datetime(2027, 1, 1, tzinfo=UTC)
HOURLY = {"type": "interval", "every": 1, "unit": "hours"}
DELAYED = {**HOURLY, "fixed_delay": True}


class NewYear:
    name = "new-year"

    def excludes(self, day: date) -> bool:
        return day == date(2027, 1, 1)


def hours(number: float) -> timedelta:
    return timedelta(hours=number)


def simulated(
    schedule: dict[str, Any], period: float, takes: Any, *, limit: int = 100, **policies: Any
) -> list[SimulatedRun]:
    options = {key: policies.pop(key) for key in ("jitter", "calendars", "ends_at") if key in policies}
    plan = Plan(timing=parse(schedule), **options)
    return simulate(
        plan, Policies(**policies), SCHEDULE, START, START + hours(period), durations=takes, limit=limit
    )


def shown(run: SimulatedRun) -> str:
    """`tick: start-end`, in hours of the period, or the reason."""
    tick = (run.scheduled_for - START) / hours(1)
    if run.started_at is None or run.ended_at is None:
        return f"{tick:g}: {run.reason}"
    span = f"{(run.started_at - START) / hours(1):g}-{(run.ended_at - START) / hours(1):g}"
    return f"{tick:g}: {span}" + (" cancelled" if run.outcome is Outcome.CANCELLED else "")


@pytest.mark.parametrize(
    ("policies", "expected"),
    [
        ({"overlap": Overlap.SKIP}, "1: 1-3.5, 2: overlap, 3: overlap, 4: 4-6.5, 5: overlap"),
        ({"overlap": Overlap.BUFFER_ONE}, "1: 1-3.5, 2: 3.5-6, 3: buffer_full, 4: 6-8.5, 5: buffer_full"),
        ({"overlap": Overlap.BUFFER_LATEST}, "1: 1-3.5, 2: replaced, 3: 3.5-6, 4: replaced, 5: 6-8.5"),
        ({"overlap": Overlap.BUFFER_ALL}, "1: 1-3.5, 2: 3.5-6, 3: 6-8.5, 4: 8.5-11, 5: 11-13.5"),
        (
            {"overlap": Overlap.CANCEL_OTHER},
            "1: 1-2 cancelled, 2: 2-3 cancelled, 3: 3-4 cancelled, 4: 4-5 cancelled, 5: 5-7.5",
        ),
        ({"overlap": Overlap.ALLOW_ALL}, "1: 1-3.5, 2: 2-4.5, 3: 3-5.5, 4: 4-6.5, 5: 5-7.5"),
        (
            {"overlap": Overlap.ALLOW_ALL, "max_concurrent": 2},
            "1: 1-3.5, 2: 2-4.5, 3: overlap, 4: 4-6.5, 5: 5-7.5",
        ),
        ({"overlap": Overlap.SKIP, "max_runs": 1}, "1: 1-3.5"),
        ({"overlap": Overlap.BUFFER_LATEST, "max_runs": 3}, "1: 1-3.5, 2: replaced, 3: 3.5-6, 4: 6-8.5"),
    ],
)
def test_policies(policies: dict[str, Any], expected: str) -> None:
    assert ", ".join(map(shown, simulated(HOURLY, 5, hours(2.5), **policies))) == expected


def test_a_run_that_ends_at_the_next_tick_is_over() -> None:
    assert [shown(run) for run in simulated(HOURLY, 2, hours(1))] == ["1: 1-2", "2: 2-3"]


def test_no_duration_is_no_overlap() -> None:
    assert [shown(run) for run in simulated(HOURLY, 2, hours(0))] == ["1: 1-1", "2: 2-2"]


def test_durations_may_differ() -> None:
    found = simulated(HOURLY, 4, lambda tick: hours(1.5 if tick.hour == 1 else 0.5))
    assert [shown(run) for run in found] == ["1: 1-2.5", "2: overlap", "3: 3-3.5", "4: 4-4.5"]


def test_a_fixed_delay_counts_from_simulated_ends() -> None:
    assert [shown(run) for run in simulated(DELAYED, 6, hours(0.5))] == [
        "1: 1-1.5",
        "2.5: 2.5-3",
        "4: 4-4.5",
        "5.5: 5.5-6",
    ]


def test_a_fixed_delay_on_excluded_dates() -> None:
    found = simulated(DELAYED, 25.5, hours(0.5), calendars=(NewYear(),))
    assert [shown(run) for run in found[:2]] == ["1: calendar", "2: calendar"]
    assert [shown(run) for run in found[22:]] == ["23: calendar", "24: 24-24.5", "25.5: 25.5-26"]


def test_calendars_and_limits() -> None:
    found = simulated(HOURLY, 48, hours(0), calendars=(NewYear(),), ends_at=START + hours(25))
    assert [shown(run) for run in found][-3:] == ["23: calendar", "24: 24-24", "25: 25-25"]


def test_excluded_ticks_do_not_count_as_runs() -> None:
    found = simulated(HOURLY, 48, hours(0), calendars=(NewYear(),), max_runs=2)
    assert [run.outcome for run in found].count(Outcome.SUCCEEDED) == 2
    assert shown(found[-1]) == "25: 25-25"


def test_jitter_delays_the_start() -> None:
    (run,) = simulated(HOURLY, 1, hours(1), jitter=Jitter(share=0.5))
    assert run.scheduled_for < run.due_at
    assert run.started_at == run.due_at
    assert run.waited == timedelta(0)


def test_waiting_is_shown() -> None:
    _, second = simulated(HOURLY, 2, hours(2.5), overlap=Overlap.BUFFER_ONE)
    assert second.waited == hours(1.5)


def test_the_limit_of_ticks() -> None:
    assert len(simulated({**HOURLY, "unit": "seconds"}, 1000, hours(0), limit=7)) == 7


def test_a_negative_duration() -> None:
    with pytest.raises(ValueError, match="less than no time"):
        simulated(HOURLY, 1, hours(-1))


@given(
    st.sampled_from(list(Overlap)),
    st.integers(0, 600),
    st.none() | st.integers(1, 8),
    st.none() | st.floats(0.01, 0.99),
    st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_every_tick_is_accounted_for(
    overlap: Overlap,
    minutes: int,
    most: int | None,
    share: float | None,
    delayed: bool,  # noqa: FBT001 (hypothesis gives it by position)
) -> None:
    jitter = None if share is None else Jitter(share=share)
    takes = timedelta(minutes=minutes)
    found = simulated(
        DELAYED if delayed else HOURLY, 24, takes, overlap=overlap, max_runs=most, jitter=jitter
    )
    ticks = [run.scheduled_for for run in found]
    assert ticks == sorted(set(ticks))
    if not delayed and most is None:
        assert len(ticks) == 24
    started = [run for run in found if run.started_at is not None and run.ended_at is not None]
    for run in started:
        assert run.started_at is not None
        assert run.ended_at is not None
        assert run.scheduled_for <= run.due_at <= run.started_at <= run.ended_at
        if run.outcome is Outcome.SUCCEEDED:
            assert run.ended_at - run.started_at == takes
    if most is not None:
        assert len(started) <= most
    if overlap is not Overlap.ALLOW_ALL:
        spans = sorted((run.started_at, run.ended_at) for run in started)
        assert all(before[1] <= after[0] for before, after in pairwise(spans))  # type: ignore[operator]
    assert all((run.outcome is Outcome.SUCCEEDED) == (run.reason is None) for run in found)
