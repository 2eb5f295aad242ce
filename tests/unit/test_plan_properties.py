"""Laws that hold for every plan: limits cut, and nothing else; jitter is known beforehand, and stays in its place."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st
from unit.test_timing_properties import instants, timings

from app.scheduling.plan import Jitter, Plan
from app.scheduling.preview import preview
from app.scheduling.timing import OneOff, Timing, parse

spans = st.timedeltas(timedelta(0), timedelta(days=400))
windows = st.timedeltas(timedelta(microseconds=1), timedelta(days=2)).map(
    lambda window: Jitter(window=window)
)
shares = st.floats(0, 1, exclude_min=True, exclude_max=True).map(lambda share: Jitter(share=share))
without: st.SearchStrategy[Jitter | None] = st.none()
MICROSECOND = timedelta(microseconds=1)


@st.composite
def plans(draw: st.DrawFn, jitter: st.SearchStrategy[Jitter | None] = without) -> Plan:
    timing: Timing = draw(timings)
    limits: dict[str, Any] = {}
    if draw(st.booleans()):
        limits["starts_at"] = draw(instants)
    if draw(st.booleans()):
        limits["ends_at"] = limits.get("starts_at", draw(instants)) + draw(spans)
    spread = draw(jitter)
    if isinstance(timing, OneOff) and spread is not None and spread.share is not None:
        spread = None
    return Plan(timing=timing, jitter=spread, **limits)


def within(plan: Plan, tick: datetime) -> bool:
    return (plan.starts_at is None or plan.starts_at <= tick) and (
        plan.ends_at is None or tick <= plan.ends_at
    )


@given(plans(), instants)
@settings(max_examples=300, deadline=None)
def test_next_and_last_are_inverse(plan: Plan, instant: datetime) -> None:
    later, earlier = plan.next_after(instant), plan.last_until(instant)
    if later is not None:
        assert later > instant
        assert within(plan, later)
        assert plan.last_until(later) == later
        assert plan.last_until(later - MICROSECOND) == earlier
    if earlier is not None:
        assert earlier <= instant
        assert within(plan, earlier)
        assert plan.next_after(earlier) == later
        assert plan.next_after(earlier - MICROSECOND) == earlier


@given(plans(), instants, spans)
@settings(max_examples=200, deadline=None)
def test_ticks_are_those_of_the_timing_within_the_limits(
    plan: Plan, after: datetime, span: timedelta
) -> None:
    until, walked = after + span, []
    for tick in plan.timing.ticks(after, after + span):
        walked.append(tick)
        if len(walked) == 300:
            until = tick
            break
    expected = [tick for tick in walked if within(plan, tick)]
    assert list(plan.ticks(after, until)) == expected
    assert plan.count(after, until) == len(expected)


@given(plans(windows | shares), st.uuids(), instants)
@settings(max_examples=300, deadline=None)
def test_jitter_never_reaches_the_next_tick(plan: Plan, schedule_id: UUID, instant: datetime) -> None:
    tick = plan.next_after(instant)
    if tick is None:
        return
    due = plan.due_at(schedule_id, tick)
    assert due >= tick
    assert due == plan.due_at(schedule_id, tick)
    following = plan.timing.next_after(tick)
    if following is not None:
        assert due < following
    if plan.jitter is not None and plan.jitter.window is not None:
        assert due - tick < plan.jitter.window


@given(shares | windows)
@settings(max_examples=50, deadline=None)
def test_jitter_spreads_schedules_evenly(jitter: Jitter) -> None:
    hourly = parse({"type": "interval", "every": 1, "unit": "hours"})
    plan, tick = Plan(timing=hourly, jitter=jitter), datetime(2027, 1, 1, tzinfo=UTC)
    width = jitter.width(timedelta(hours=1))
    if width < timedelta(milliseconds=1):
        return
    offsets = sorted((plan.due_at(UUID(int=n), tick) - tick) / width for n in range(2000))
    # The largest distance from the even distribution (Kolmogorov and Smirnov); 0.05 is exceeded once in ten thousand.
    assert max(abs(offset - n / 2000) for n, offset in enumerate(offsets)) < 0.05


@given(plans(windows | shares | without), st.uuids(), instants)
@settings(max_examples=150, deadline=None)
def test_a_preview_shows_what_the_plan_says(plan: Plan, schedule_id: UUID, after: datetime) -> None:
    shown = preview(plan, schedule_id, after, 20)
    tick: datetime | None = after
    for each in shown:
        tick = plan.next_after(tick or after)
        assert each.nominal == tick
        assert each.local.astimezone(UTC) == tick
        assert each.due_at == plan.due_at(schedule_id, each.nominal)
        assert (each.asked_for is None) == (each.dst != "gap")
    if len(shown) < 20:
        assert plan.next_after(shown[-1].nominal if shown else after) is None
