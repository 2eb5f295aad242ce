"""The crontab evaluator against the brute-force oracle.

UPBEAT_TEST_ORACLE_CASES sets how many (expression, zone, instant) cases are compared, UPBEAT_TEST_ORACLE_SEED which ones.
"""

import os
from datetime import UTC, date, datetime, timedelta
from functools import cache
from random import Random
from zoneinfo import ZoneInfo

import pytest
from unit.oracle import Expression, minutes_of, random_expression, transitions_of

from app.scheduling.crontab import DayMatch
from app.scheduling.timing import Crontab, DstGap, TimingError, parse

CASES = int(os.environ.get("UPBEAT_TEST_ORACLE_CASES", "6000"))
SEED = int(os.environ.get("UPBEAT_TEST_ORACLE_SEED", "1"))
INSTANTS, EXPRESSIONS = 10, 12

ZONES = (
    "UTC",
    "Europe/Berlin",
    "Europe/London",
    "America/New_York",
    "America/Sao_Paulo",
    "America/St_Johns",
    "Australia/Lord_Howe",
    "Asia/Kolkata",
    "Pacific/Apia",
    "Pacific/Chatham",
    "Africa/Casablanca",
    "Antarctica/Troll",
    "Asia/Gaza",
)
DAY_MATCHES: tuple[DayMatch, ...] = ("or", "and")
DST_GAPS: tuple[DstGap, ...] = ("run", "skip")
FIRST_YEAR, LAST_YEAR = 2000, 2030

transitions = cache(transitions_of)


def window(random: Random, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Three days: near a transition if there is one and chance wants it, anywhere in the years otherwise."""
    turns = transitions(zone, FIRST_YEAR, LAST_YEAR)
    if turns and random.random() < 0.8:
        start = random.choice(turns) - timedelta(minutes=random.randint(720, 3000))
    else:
        start = datetime(FIRST_YEAR, 1, 1, tzinfo=UTC) + timedelta(days=random.randrange(31 * 365))
        start += timedelta(minutes=random.randrange(1440))
    return start, start + timedelta(days=3)


def random_instants(random: Random, start: datetime, end: datetime, ticks: list[datetime]) -> list[datetime]:
    span = int((end - start).total_seconds())
    found = [start + timedelta(seconds=random.randrange(span)) for _ in range(INSTANTS - 4)]
    found += [start + timedelta(minutes=random.randrange(span // 60)) for _ in range(2)]
    near = random.choice(ticks) if ticks else found[0]
    return [*found, near, max(start, near - timedelta(microseconds=1))]


def attempt(text: str, zone: str, day_match: DayMatch, dst_gap: DstGap) -> tuple[Crontab | None, str]:
    try:
        return Crontab(text, zone, day_match, dst_gap), ""
    except TimingError as error:
        return None, error.problem


@pytest.mark.parametrize("zone_name", ZONES)
def test_agrees_with_the_oracle(zone_name: str) -> None:
    random, zone = Random(f"{SEED} {zone_name}"), ZoneInfo(zone_name)
    cases = 0
    while cases < CASES / len(ZONES):
        start, end = window(random, zone)
        minutes = minutes_of(zone, start, end)
        middle = minutes[len(minutes) // 2].wall
        for _ in range(EXPRESSIONS):
            text = random_expression(random, middle)
            day_match, dst_gap = random.choice(DAY_MATCHES), random.choice(DST_GAPS)
            case = f"{text!r} {zone_name} {day_match} {dst_gap} from {start} to {end}"
            expression = Expression(text, day_match)
            timing, refused = attempt(text, zone_name, day_match, dst_gap)
            if timing is None:
                assert never_names_a_date(expression) or "clocks" in refused, case
                continue
            expected = list(expression.ticks(minutes, dst_gap))
            ticks = [tick for tick in expected if tick > start]
            assert list(timing.ticks(start, end)) == ticks, case
            assert timing.count(start, end) == len(ticks), case
            for instant in random_instants(random, start, end, expected):
                later = next((tick for tick in expected if tick > instant), None)
                earlier = next((tick for tick in reversed(expected) if tick <= instant), None)
                found = timing.next_after(instant)
                assert found == later or (later is None and (found is None or found > end)), (
                    f"{case}: {instant}"
                )
                found = timing.last_until(instant)
                assert found == earlier or (earlier is None and (found is None or found < start)), (
                    f"{case}: {instant}"
                )
                assert timing.count(instant, end) == sum(tick > instant for tick in expected), (
                    f"{case}: {instant}"
                )
                cases += 1


def never_names_a_date(expression: Expression) -> bool:
    # Every kind of year, and every weekday on which each can start, occurs within 28 years without a century.
    first = date(2000, 1, 1).toordinal()
    return not any(expression.names_date(date.fromordinal(first + at)) for at in range(28 * 366))


@pytest.mark.parametrize("day_match", ["or", "and"])
@pytest.mark.parametrize(
    "days",
    ["29 2 *", "29 2 MON", "31 * 5L", "L 2 *", "LW * *", "13 * FRI", "*/2 * 1-5", "L * 1#5", "30 2 MON#5"],
)
def test_names_the_same_dates_across_a_century(days: str, day_match: str) -> None:
    expression = Expression(f"0 0 {days}", day_match)
    start, end = datetime(2083, 12, 31, tzinfo=UTC), datetime(2119, 12, 31, tzinfo=UTC)
    expected = [
        start + timedelta(days=at)
        for at in range(1, (end - start).days + 1)
        if expression.names_date((start + timedelta(days=at)).date())
    ]
    schedule = {"type": "crontab", "expression": f"0 0 {days}", "day_match": day_match}
    if expected:
        timing = parse(schedule)
        assert list(timing.ticks(start, end)) == expected
        assert timing.count(start, end) == len(expected)
    else:
        with pytest.raises(TimingError, match="never matches"):
            parse(schedule)
