"""What `parse` refuses: each error names the field and the remedy, and nothing else is ever raised."""

import json
from random import Random
from typing import Any

import pytest

from app.scheduling.timing import TimingError, parse, parse_cached

CRONTAB: dict[Any, Any] = {"type": "crontab", "expression": "0 0 * * *"}
INTERVAL: dict[Any, Any] = {"type": "interval", "every": 1, "unit": "hours"}
ONE_OFF: dict[Any, Any] = {"type": "one_off", "at": "2027-03-01T09:00:00Z"}


@pytest.mark.parametrize(
    ("schedule", "field", "problem"),
    [
        (None, "schedule", "must be an object"),
        ([], "schedule", "must be an object"),
        ({}, "type", "use crontab, interval or one_off"),
        ({"type": "cron"}, "type", "'cron' is not a kind of schedule; use crontab"),
        ({"type": ["crontab"]}, "type", "use crontab, interval or one_off"),
        ({**CRONTAB, "every": 1}, "every", "remove it, or use one of expression, timezone"),
        ({**CRONTAB, "fixed_delay": True}, "fixed_delay", "is not a key of a schedule of type crontab"),
        ({**INTERVAL, "fixed_delay": 1}, "fixed_delay", "use true or false"),
        (
            {**INTERVAL, "fixed_delay": True, "anchor": "2026-01-01T00:00:00Z"},
            "anchor",
            "counts from each run's end; remove it",
        ),
        ({**CRONTAB, 5: 1}, "5", "is not a key"),
        ({"type": "crontab"}, "expression", "is missing; give five fields"),
        ({**CRONTAB, "expression": 5}, "expression", "must be text with five fields"),
        ({**CRONTAB, "expression": ""}, "expression", "has 0 fields; give five"),
        ({**CRONTAB, "expression": "* * * *"}, "expression", "has 4 fields; give five"),
        ({**CRONTAB, "expression": "0 * * * * *"}, "expression", "seconds and years are not supported"),
        ({**CRONTAB, "expression": "0 0 0 * * * 2027"}, "expression", "has 7 fields"),
        ({**CRONTAB, "expression": "@reboot"}, "expression", "use a crontab or a one-off"),
        ({**CRONTAB, "expression": "@often"}, "expression", "use one of @hourly"),
        ({**CRONTAB, "expression": "* " * 400}, "expression", "use ranges and steps"),
        ({**CRONTAB, "expression": "60 * * * *"}, "expression", "minute field .* use .* 0-59"),
        ({**CRONTAB, "expression": "* 24 * * *"}, "expression", "hour field .* use .* 0-23"),
        ({**CRONTAB, "expression": "* * 0 * *"}, "expression", "day-of-month field .* use .* 1-31"),
        ({**CRONTAB, "expression": "* * * 13 *"}, "expression", "month field .* use .* 1-12"),
        ({**CRONTAB, "expression": "* * * * 8"}, "expression", "day-of-week field .* use .* 0-7"),
        ({**CRONTAB, "expression": "* * * * MONDAY"}, "expression", "day-of-week field"),
        ({**CRONTAB, "expression": "*/0 * * * *"}, "expression", "minute field"),
        ({**CRONTAB, "expression": "30-10 * * * *"}, "expression", "minute field"),
        ({**CRONTAB, "expression": "1,,2 * * * *"}, "expression", "minute field"),
        ({**CRONTAB, "expression": "* * L/2 * *"}, "expression", "day-of-month field"),
        ({**CRONTAB, "expression": "* * ? * *"}, "expression", "day-of-month field"),
        ({**CRONTAB, "expression": "* * * * 5#6"}, "expression", "day-of-week field"),
        ({**CRONTAB, "expression": "MON * * * *"}, "expression", "minute field"),
        ({**CRONTAB, "expression": "٣ * * * *"}, "expression", "minute field"),
        (
            {**CRONTAB, "expression": "0 0 30 2 *"},
            "expression",
            "never matches: no month has such a day; change",
        ),
        ({**CRONTAB, "expression": "0 0 31 2,4,6,9,11 *"}, "expression", "never matches"),
        ({**CRONTAB, "expression": "0 0 30 2 MON", "day_match": "and"}, "expression", "never matches"),
        ({**CRONTAB, "expression": "0 0 1 * MON#2", "day_match": "and"}, "expression", "never matches"),
        ({**CRONTAB, "expression": "0 0 */30 2 MON#5"}, "expression", "never matches"),
        (
            {"type": "crontab", "expression": "* 2 * 3 SUN#2", "timezone": "America/New_York"},
            "expression",
            "always skip this time; choose",
        ),
        (
            {"type": "crontab", "expression": "30 2 * 3 7L", "timezone": "Europe/Berlin", "dst_gap": "skip"},
            "expression",
            "always skip this time; choose",
        ),
        ({**CRONTAB, "day_match": "xor"}, "day_match", "use one of or, and"),
        ({**CRONTAB, "day_match": None}, "day_match", "use one of or, and"),
        ({**CRONTAB, "dst_gap": ["run"]}, "dst_gap", "use one of run, skip"),
        ({**CRONTAB, "timezone": "Mars/Olympus"}, "timezone", 'use a name such as "UTC"'),
        ({**CRONTAB, "timezone": "Europe"}, "timezone", "not an IANA time zone"),
        ({**CRONTAB, "timezone": "../../etc/passwd"}, "timezone", "not an IANA time zone"),
        ({**CRONTAB, "timezone": "/etc/localtime"}, "timezone", "not an IANA time zone"),
        ({**CRONTAB, "timezone": ""}, "timezone", "not an IANA time zone"),
        ({**CRONTAB, "timezone": "U\0C"}, "timezone", "not an IANA time zone"),
        ({**CRONTAB, "timezone": "\ud800"}, "timezone", "not an IANA time zone"),
        ({**CRONTAB, "timezone": "x" * 5000}, "timezone", "not an IANA time zone"),
        ({**CRONTAB, "timezone": 1}, "timezone", "not an IANA time zone"),
        ({**CRONTAB, "timezone": None}, "timezone", "not an IANA time zone"),
        ({"type": "interval", "unit": "hours"}, "every", "is missing; give a whole number"),
        ({**INTERVAL, "every": 0}, "every", "whole number from 1 up"),
        ({**INTERVAL, "every": -1}, "every", "whole number from 1 up"),
        ({**INTERVAL, "every": 1.5}, "every", "whole number from 1 up"),
        ({**INTERVAL, "every": True}, "every", "whole number from 1 up"),
        ({**INTERVAL, "every": "1"}, "every", "whole number from 1 up"),
        ({**INTERVAL, "every": 10**6000}, "every", "longer than 3653 days; give a shorter period"),
        ({**INTERVAL, "every": -(10**6000)}, "every", "this int is not a whole number from 1 up"),
        ({**INTERVAL, "every": 522, "unit": "weeks"}, "every", "longer than 3653 days"),
        ({"type": "interval", "every": 1}, "unit", "is missing; give one of seconds, minutes"),
        ({**INTERVAL, "unit": "months"}, "unit", "use one of seconds, minutes"),
        ({**INTERVAL, "anchor": "2026-01-01T00:00:00"}, "anchor", 'has no offset; add "Z"'),
        ({**INTERVAL, "anchor": "yesterday"}, "anchor", "write it as 2027-03-01T09:00:00"),
        ({**INTERVAL, "anchor": 0}, "anchor", "write it as 2027-03-01T09:00:00"),
        ({**INTERVAL, "anchor": "0001-01-01T00:00:00+14:00"}, "anchor", "give a year from 2 to 9998"),
        ({**INTERVAL, "anchor": "9999-12-31T23:00:00-12:00"}, "anchor", "give a year from 2 to 9998"),
        ({"type": "one_off"}, "at", "is missing; give the time"),
        ({"type": "one_off", "at": "2027-03-01T09:00:00"}, "at", "neither offset nor timezone; add"),
        ({**ONE_OFF, "at": "2027-02-30T09:00:00Z"}, "at", "write it as 2027-03-01T09:00:00"),
        ({**ONE_OFF, "at": 1_800_000_000}, "at", "write it as"),
        ({**ONE_OFF, "at": "9999-12-31T23:59:59Z"}, "at", "give a year from 2 to 9998"),
        ({"type": "one_off", "at": "0001-01-01", "timezone": "Asia/Tokyo"}, "at", "give a year from 2"),
        ({**ONE_OFF, "timezone": "Berlin"}, "timezone", "not an IANA time zone"),
        ({**ONE_OFF, "run_if_past": 1}, "run_if_past", "use true or false"),
        (
            {"type": "one_off", "at": "2027-03-28T02:30:00", "timezone": "Europe/Berlin"},
            "at",
            r"does not exist in Europe/Berlin.* first valid time after it is 2027-03-28T03:00:00\+02:00",
        ),
        (
            {"type": "one_off", "at": "2027-10-31T02:30:00", "timezone": "Europe/Berlin"},
            "at",
            r"happens twice .* 2027-10-31T02:30:00\+02:00 or 2027-10-31T02:30:00\+01:00",
        ),
    ],
)
def test_bad_input_names_field_and_remedy(schedule: Any, field: str, problem: str) -> None:
    with pytest.raises(TimingError, match=problem) as caught:
        parse(schedule)
    assert caught.value.field == field
    assert str(caught.value) == f"{field}: {caught.value.problem}"
    assert len(caught.value.problem) < 400


@pytest.mark.parametrize("text", ["", "{", "null", "[" * 100_000, '{"type": "crontab"}', "5"])
def test_bad_stored_text(text: str) -> None:
    with pytest.raises(TimingError):
        parse_cached(text)


def test_malformed_expressions_raise_nothing_else() -> None:
    random = Random(5)
    pieces = [
        *"0123456789*,-/#LW?@ ",
        "MON",
        "JAN",
        "60",
        "99999",
        "*/0",
        "5-1",
        "L",
        "²",
        "٣",
        "\x00",
        "é",
        "@daily",
    ]
    valid = 0
    for _ in range(10_000):
        fields = ["".join(random.choices(pieces, k=random.choice([1, 1, 2, 3, 5]))) for _ in range(5)]
        if random.random() < 0.7:
            broken = random.randrange(5)
            fields = [field if at == broken else "*" for at, field in enumerate(fields)]
        try:
            parse({"type": "crontab", "expression": " ".join(fields)})
            valid += 1
        except TimingError as error:
            assert error.field == "expression"
    assert 0 < valid < 5_000


def test_malformed_schedules_raise_nothing_else() -> None:
    random = Random(6)
    values: list[Any] = [
        None,
        True,
        0,
        -1,
        1.5,
        1e400,
        10**400,
        "",
        "x",
        "UTC",
        "\ud800",
        [],
        {},
        "2027-03-01",
        "hours",
        "and",
    ]
    keys = [
        "type",
        "expression",
        "timezone",
        "day_match",
        "every",
        "unit",
        "anchor",
        "at",
        "run_if_past",
        "fixed_delay",
        "",
        "é",
    ]
    for _ in range(5_000):
        schedule = dict(random.choice([CRONTAB, INTERVAL, ONE_OFF]))
        for key in random.sample(keys, random.randint(1, 3)):
            schedule[key] = random.choice(values)
        try:
            timing = parse(schedule)
        except TimingError as error:
            assert error.field in schedule or "missing" in error.problem
        else:
            assert parse(json.loads(json.dumps(timing.as_dict()))) == timing
