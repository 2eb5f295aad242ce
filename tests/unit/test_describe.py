"""Schedules in words."""

from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any

import pytest
from unit.oracle import random_expression

from app.scheduling.describe import describe
from app.scheduling.plan import Jitter, Plan
from app.scheduling.timing import TimingError, parse

NOW = datetime(2026, 11, 24, tzinfo=UTC)


class Closed:
    name = "company"

    def excludes(self, day: date) -> bool:
        return day.month == 12


def words(expression: str, **more: Any) -> str:
    return describe(Plan(timing=parse({"type": "crontab", "expression": expression, **more})), NOW)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("30 2 * * MON", "At 02:30 on Monday"),
        ("0 */2 * * *", "Every 2 hours"),
        ("* * * * *", "Every minute"),
        ("0 9 13 * FRI", "At 09:00 on day 13 of the month or on Friday"),
        ("0 9 */2 * FRI", "At 09:00 every 2 days and only on Friday"),
        ("0 9 1,L * *", "At 09:00 on day 1 of the month or on the last day of the month"),
        ("0 9 LW * *", "At 09:00 on the last weekday of the month"),
        ("5 0 * * MON#1,5L", "At 00:05 on the first Monday of the month or on the last Friday of the month"),
        ("0 0 29 2 *", "At 00:00 on day 29 of the month, in February"),
        ("0 3,10-16/3 * * *", "At 03:00, 10:00, 13:00 and 16:00"),
    ],
)
def test_crontabs(expression: str, expected: str) -> None:
    assert words(expression) == f"{expected}, UTC"


def test_both_days_must_match_where_it_is_so() -> None:
    assert words("0 9 13 * FRI", day_match="and") == "At 09:00 on day 13 of the month and only on Friday, UTC"


@pytest.mark.parametrize(
    ("expression", "zone", "dst_gap", "rule"),
    [
        ("30 2 * * MON", "Europe/Berlin", "run", "; a time that the clock skips runs at the end of the gap"),
        ("30 2 * * MON", "Europe/Berlin", "skip", "; a time that the clock skips does not run"),
        (
            "*/5 2 * * *",
            "Europe/Berlin",
            "run",
            "; a time that the clock skips does not run, one that it repeats runs twice",
        ),
        ("30 2 * * MON", "Asia/Shanghai", "run", ""),
        ("30 2 * * MON", "UTC", "run", ""),
    ],
)
def test_the_rule_for_changes_of_clocks(expression: str, zone: str, dst_gap: str, rule: str) -> None:
    assert words(expression, timezone=zone, dst_gap=dst_gap).partition(zone)[2] == rule


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (
            {"type": "interval", "every": 30, "unit": "seconds"},
            "Every 30 seconds, counted from 1970-01-01 00:00 UTC",
        ),
        (
            {"type": "interval", "every": 1, "unit": "weeks", "timezone": "Europe/Berlin"},
            "Every week, counted from 1970-01-01 00:00 Europe/Berlin; local time is kept when clocks change",
        ),
        (
            {"type": "interval", "every": 1, "unit": "hours", "fixed_delay": True},
            "1 hour after each run has ended",
        ),
        (
            {"type": "one_off", "at": "2027-03-01T09:00:05+09:00", "timezone": "Asia/Tokyo"},
            "Once, at 2027-03-01 09:00:05 Asia/Tokyo",
        ),
    ],
)
def test_intervals_and_one_offs(schedule: dict[str, Any], expected: str) -> None:
    assert describe(Plan(timing=parse(schedule)), NOW) == expected


@pytest.mark.parametrize(
    ("jitter", "expected"),
    [
        (Jitter(window=timedelta(minutes=90)), "90 minutes"),
        (Jitter(window=timedelta(seconds=1.5)), "1.5 seconds"),
        (Jitter(share=0.1), "10 % of the period"),
    ],
)
def test_limits_jitter_and_calendars(jitter: Jitter, expected: str) -> None:
    plan = Plan(
        timing=parse({"type": "interval", "every": 1, "unit": "hours"}),
        starts_at=NOW,
        ends_at=NOW + timedelta(days=1),
        jitter=jitter,
        calendars=(Closed(),),
    )
    assert describe(plan, NOW).split("; ")[1:] == [
        "from 2026-11-24 00:00 UTC",
        "until 2026-11-25 00:00 UTC",
        f"each run is put off by up to {expected}",
        "not on dates of company",
    ]


def test_every_expression_finds_words() -> None:
    random, said = Random(7), 0
    for _ in range(2000):
        try:
            text = words(random_expression(random, NOW.replace(tzinfo=None)))
        except TimingError as error:
            assert "never matches" in error.problem
            continue
        assert not any(gap in text for gap in ("  ", ", ,", "None")), text
        said += 1
    assert said > 1500
