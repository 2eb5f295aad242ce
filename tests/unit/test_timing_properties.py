"""Laws that hold for every timing, at every instant."""

import json
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from unit.oracle import random_expression

from app.scheduling.timing import Timing, TimingError, parse, parse_cached

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Africa/Casablanca",
)
LIMITS = {"seconds": 1_000_000, "minutes": 100_000, "hours": 10_000, "days": 500, "weeks": 100}

instants = st.datetimes(datetime(1995, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC))
zones = st.sampled_from(ZONES)


@st.composite
def crontabs(draw: st.DrawFn) -> dict[str, Any]:
    near = draw(instants)
    return {
        "type": "crontab",
        "expression": random_expression(Random(draw(st.integers(0, 2**32))), near),
        "timezone": draw(zones),
        "day_match": draw(st.sampled_from(("or", "and"))),
        "dst_gap": draw(st.sampled_from(("run", "skip"))),
    }


@st.composite
def intervals(draw: st.DrawFn) -> dict[str, Any]:
    unit = draw(st.sampled_from(sorted(LIMITS)))
    schedule = {"type": "interval", "every": draw(st.integers(1, LIMITS[unit])), "unit": unit}
    if draw(st.booleans()):
        schedule["anchor"] = draw(instants).isoformat()
    return {**schedule, "timezone": draw(zones)}


@st.composite
def one_offs(draw: st.DrawFn) -> dict[str, Any]:
    return {"type": "one_off", "at": draw(instants).isoformat(), "run_if_past": draw(st.booleans())}


def _parsed(schedule: dict[str, Any]) -> Timing | None:
    try:
        return parse(schedule)
    except TimingError as error:
        assert "never matches" in error.problem
        return None


timings = cast(
    st.SearchStrategy[Timing],
    st.one_of(crontabs(), intervals(), one_offs()).map(_parsed).filter(lambda timing: timing is not None),
)


@given(timings, instants)
@settings(max_examples=400, deadline=None)
def test_next_and_last_agree(timing: Timing, instant: datetime) -> None:
    later = timing.next_after(instant)
    if later is not None:
        assert later > instant
        assert later.tzinfo is UTC
        assert later.microsecond == 0
        assert timing.last_until(later) == later
        assert timing.next_after(later - timedelta(microseconds=1)) == later
        before = timing.last_until(later - timedelta(microseconds=1))
        assert before is None or before <= instant
    earlier = timing.last_until(instant)
    if earlier is not None:
        assert earlier <= instant
        following = timing.next_after(earlier)
        assert following == later


@given(timings, instants, st.timedeltas(timedelta(0), timedelta(days=300)))
@settings(max_examples=300, deadline=None)
def test_ticks_are_the_chain_of_next_after(timing: Timing, after: datetime, span: timedelta) -> None:
    walked = []
    for tick in timing.ticks(after, after + span):
        walked.append(tick)
        if len(walked) == 500:
            break
    until = walked[-1] if len(walked) == 500 else after + span
    assert walked == sorted(set(walked))
    assert all(after < tick <= until for tick in walked)
    assert timing.count(after, until) == len(walked)
    backwards, last = [], timing.last_until(until)
    while last is not None and last > after:
        backwards.append(last)
        last = timing.last_until(last - timedelta(microseconds=1))
    assert backwards[::-1] == walked


@given(
    timings,
    instants,
    st.timedeltas(timedelta(0), timedelta(days=200)),
    st.timedeltas(timedelta(0), timedelta(days=200)),
)
@settings(max_examples=200, deadline=None)
def test_counts_add_up(timing: Timing, start: datetime, first: timedelta, second: timedelta) -> None:
    middle, end = start + first, start + first + second
    parts = (timing.count(start, middle), timing.count(middle, end))
    assert timing.count(start, end) == sum(part for part in parts if part is not None)


@given(timings)
@settings(max_examples=200, deadline=None)
def test_round_trip(timing: Timing) -> None:
    stored = timing.as_dict()
    assert parse(stored) == timing
    assert parse(stored).as_dict() == stored
    assert hash(parse(stored)) == hash(timing)
    assert parse_cached(json.dumps(stored)) == timing
