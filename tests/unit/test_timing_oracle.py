"""The evaluator, timings and plans, against the brute-force oracle.

UPBEAT_TEST_ORACLE_CASES sets how many (expression, zone, instant) cases are compared, UPBEAT_TEST_ORACLE_SEED which ones.
"""

import os
from bisect import bisect_right
from datetime import UTC, date, datetime, timedelta
from functools import cache
from random import Random
from zoneinfo import ZoneInfo

import pytest
from unit.oracle import Expression, Period, Window, random_expression, transitions_of
from unit.test_plan import Dates

from app.scheduling.crontab import DayMatch
from app.scheduling.plan import Plan
from app.scheduling.timing import Crontab, DstGap, Timing, TimingError, parse

CASES = int(os.environ.get("UPBEAT_TEST_ORACLE_CASES", "6000"))
SEED = int(os.environ.get("UPBEAT_TEST_ORACLE_SEED", "1"))
INSTANTS, EXPRESSIONS, WALK = 10, 30, 200

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
        start = random.choice(turns) - timedelta(minutes=random.randint(1500, 3700))
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


class Expected:
    """The ticks of a window as the oracle has them; beyond the window it says nothing."""

    def __init__(self, ticks: list[datetime], start: datetime, end: datetime) -> None:
        self.ticks, self.start, self.end = ticks, start, end

    def compare(self, found: Plan | Timing, random: Random, case: str) -> None:
        """Next, last and count at random instants, and a walk over the window, over a part of it if it is long."""
        inside = self.ticks[bisect_right(self.ticks, self.start) :]
        assert found.count(self.start, self.end) == len(inside), case
        first, until = random.randint(0, max(0, len(inside) - WALK)), self.end
        after = inside[first - 1] if first else self.start
        if first + WALK < len(inside):
            until = inside[first + WALK - 1]
        assert list(found.ticks(after, until)) == inside[first : first + WALK], case
        for instant in random_instants(random, self.start, self.end, self.ticks):
            at = bisect_right(self.ticks, instant)
            later, earlier = found.next_after(instant), found.last_until(instant)
            if at < len(self.ticks):
                assert later == self.ticks[at], f"{case}: {instant}"
            else:
                assert later is None or later > self.end, f"{case}: {instant}"
            if at:
                assert earlier == self.ticks[at - 1], f"{case}: {instant}"
            else:
                assert earlier is None or earlier < self.start, f"{case}: {instant}"
            assert found.count(instant, self.end) == len(self.ticks) - at, f"{case}: {instant}"


@pytest.mark.parametrize("zone_name", ZONES)
def test_crontabs(zone_name: str) -> None:
    random, zone = Random(f"{SEED} {zone_name}"), ZoneInfo(zone_name)
    cases = 0
    while cases < CASES / len(ZONES):
        start, end = window(random, zone)
        looked_at = Window(zone, start, end)
        middle = looked_at.minutes[len(looked_at.minutes) // 2].wall
        for _ in range(EXPRESSIONS):
            text = random_expression(random, middle)
            day_match, dst_gap = random.choice(DAY_MATCHES), random.choice(DST_GAPS)
            case = f"{text!r} {zone_name} {day_match} {dst_gap} from {start} to {end}"
            expression = Expression(text, day_match)
            timing, refused = attempt(text, zone_name, day_match, dst_gap)
            if timing is None:
                assert never_names_a_date(expression) or "clocks" in refused, case
                continue
            Expected(expression.ticks(looked_at, dst_gap), start, end).compare(timing, random, case)
            cases += INSTANTS


def limits(
    random: Random, start: datetime, end: datetime, ticks: list[datetime]
) -> tuple[datetime | None, datetime | None]:
    """Limits inside, before or after the window, at a tick or not; or none."""
    span = int((end - start).total_seconds())
    anywhere = [start + timedelta(seconds=random.randint(-span // 2, span + span // 2)) for _ in range(2)]
    at_ticks = random.choices(ticks, k=2) if ticks else anywhere
    first, last = sorted(random.choice(pair) for pair in zip(anywhere, at_ticks, strict=True))
    return random.choice([None, first]), random.choice([None, last])


@pytest.mark.parametrize("zone_name", ZONES)
def test_plans(zone_name: str) -> None:
    """Limits and calendars around crontabs and intervals."""
    random, zone = Random(f"{SEED} plans {zone_name}"), ZoneInfo(zone_name)
    cases = 0
    while cases < CASES / len(ZONES) / 5:
        start, end = window(random, zone)
        looked_at = Window(zone, start, end)
        middle = looked_at.minutes[len(looked_at.minutes) // 2].wall
        for _ in range(EXPRESSIONS):
            timing, oracle = random_timing(random, zone_name, middle)
            ticks = oracle.ticks(looked_at)
            starts_at, ends_at = limits(random, start, end, ticks)
            days = frozenset(random.sample([middle.date() + timedelta(days=n) for n in range(-2, 3)], 2))
            plan = Plan(timing=timing, starts_at=starts_at, ends_at=ends_at, calendars=(Dates("days", days),))
            case = f"{plan} from {start} to {end}"
            expected = [
                tick
                for tick in ticks
                if (starts_at is None or starts_at <= tick) and (ends_at is None or tick <= ends_at)
            ]
            Expected(expected, start, end).compare(plan, random, case)
            for tick in expected:
                skipped = looked_at.walls[tick].date() in days
                assert (plan.excluded_by(tick) == "days") == skipped, f"{case}: {tick}"
            cases += INSTANTS


def random_timing(random: Random, zone_name: str, middle: datetime) -> tuple[Timing, Expression | Period]:
    """A crontab or an interval of whole minutes, and its oracle."""
    zone = ZoneInfo(zone_name)
    if random.random() < 0.5:
        unit, most = random.choice([("minutes", 3000), ("hours", 60), ("days", 3), ("weeks", 1)])
        every = random.randint(1, most)
        anchor = middle.replace(tzinfo=zone).astimezone(UTC) + timedelta(minutes=random.randint(-90, 90))
        anchor -= timedelta(days=random.choice([0, 1, 365]))
        schedule = {"type": "interval", "every": every, "unit": unit, "timezone": zone_name}
        found = parse({**schedule, "anchor": anchor.isoformat()})
        period = timedelta(**{unit: every})
        return found, Period(period, anchor, zone, on_the_wall=unit in ("days", "weeks"))
    while True:
        text, day_match = random_expression(random, middle), random.choice(DAY_MATCHES)
        crontab, _ = attempt(text, zone_name, day_match, "run")
        if crontab is not None:
            return crontab, Expression(text, day_match)


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
