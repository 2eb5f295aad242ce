"""The rules of semantics.md by example: crontab with DST, intervals, one-offs."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.scheduling.timing import Timing, TimingError, parse, parse_cached, refuse_past


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def cron(expression: str, timezone: str = "UTC", **more: Any) -> Timing:
    return parse({"type": "crontab", "expression": expression, "timezone": timezone, **more})


def ticks(timing: Timing, start: str, end: str) -> list[str]:
    """The ticks of `(start, end]` as `day hour:minute` in UTC."""
    found = list(timing.ticks(at(start), at(end)))
    assert timing.count(at(start), at(end)) == len(found)
    return [f"{tick:%d %H:%M}" for tick in found]


# Each case: expression, dst_gap, zone, the UTC range looked at, and the ticks expected in it (UTC).
DST = {
    "Berlin, spring: a time in the gap runs at its end": (
        "30 2 * * *", "run", "Europe/Berlin", "2026-03-28T12:00Z", "2026-03-30T12:00Z", ["29 01:00", "30 00:30"],
    ),
    "Berlin, spring: a time in the gap is dropped with skip": (
        "30 2 * * *", "skip", "Europe/Berlin", "2026-03-28T12:00Z", "2026-03-30T12:00Z", ["30 00:30"],
    ),
    "Berlin, spring: several times in one gap are one tick": (
        "0,20,40 2 * * *", "run", "Europe/Berlin", "2026-03-28T12:00Z", "2026-03-29T12:00Z", ["29 01:00"],
    ),
    "Berlin, spring: the end of the gap, named itself, adds no second tick": (
        "0 2,3 * * *", "run", "Europe/Berlin", "2026-03-28T12:00Z", "2026-03-29T12:00Z", ["29 01:00"],
    ),
    "Berlin, spring: with a wildcard, absent times are skipped": (
        "*/30 2 * * *", "run", "Europe/Berlin", "2026-03-28T12:00Z", "2026-03-30T12:00Z", ["30 00:00", "30 00:30"],
    ),
    "Berlin, spring: every second hour follows real time": (
        "0 */2 * * *", "run", "Europe/Berlin", "2026-03-28T22:30Z", "2026-03-29T05:00Z",
        ["28 23:00", "29 02:00", "29 04:00"],
    ),
    "Berlin, autumn: a repeated time runs once, first": (
        "30 2 * * *", "run", "Europe/Berlin", "2026-10-24T12:00Z", "2026-10-26T12:00Z", ["25 00:30", "26 01:30"],
    ),
    "Berlin, autumn: with a wildcard, the repeated hour runs again": (
        "*/30 * * * *", "run", "Europe/Berlin", "2026-10-24T23:45Z", "2026-10-25T02:00Z",
        ["25 00:00", "25 00:30", "25 01:00", "25 01:30", "25 02:00"],
    ),
    "Berlin, autumn: minutes fixed, hour *, the repeated hour runs again": (
        "15 * * * *", "run", "Europe/Berlin", "2026-10-24T23:45Z", "2026-10-25T02:20Z",
        ["25 00:15", "25 01:15", "25 02:15"],
    ),
    "New York, spring": (
        "30 2 * * *", "run", "America/New_York", "2026-03-07T12:00Z", "2026-03-09T12:00Z", ["08 07:00", "09 06:30"],
    ),
    "New York, autumn": (
        "30 1 * * *", "run", "America/New_York", "2026-10-31T12:00Z", "2026-11-02T12:00Z", ["01 05:30", "02 06:30"],
    ),
    "London, spring": (
        "30 1 * * *", "run", "Europe/London", "2026-03-28T12:00Z", "2026-03-30T12:00Z", ["29 01:00", "30 00:30"],
    ),
    "London, autumn, with a wildcard": (
        "*/30 1 * * *", "run", "Europe/London", "2026-10-24T12:00Z", "2026-10-25T12:00Z",
        ["25 00:00", "25 00:30", "25 01:00", "25 01:30"],
    ),
    "Lord Howe, spring: a gap of half an hour": (
        "15 2 * * *", "run", "Australia/Lord_Howe", "2026-10-03T00:00Z", "2026-10-04T23:00Z", ["03 15:30", "04 15:15"],
    ),
    "Lord Howe, spring: 02:30 is not in the gap": (
        "30 2 * * *", "skip", "Australia/Lord_Howe", "2026-10-03T00:00Z", "2026-10-03T23:00Z", ["03 15:30"],
    ),
    "Lord Howe, autumn: half an hour again": (
        "*/15 1 * * *", "run", "Australia/Lord_Howe", "2026-04-04T00:00Z", "2026-04-04T23:00Z",
        ["04 14:00", "04 14:15", "04 14:30", "04 14:45", "04 15:00", "04 15:15"],
    ),
    "Apia: the skipped day runs once, when the next day begins": (
        "0 12 30 12 *", "run", "Pacific/Apia", "2011-12-28T00:00Z", "2012-01-02T00:00Z", ["30 10:00"],
    ),
    "Apia: the skipped day is dropped with skip": (
        "0 12 * * *", "skip", "Pacific/Apia", "2011-12-29T00:00Z", "2012-01-01T00:00Z", ["29 22:00", "30 22:00", "31 22:00"],
    ),
    "Sao Paulo, history: midnight was absent": (
        "0 0 * * *", "run", "America/Sao_Paulo", "2018-11-03T12:00Z", "2018-11-05T12:00Z", ["04 03:00", "05 02:00"],
    ),
    "Sao Paulo, history: the last hour of the day came twice": (
        "30 23 * * *", "run", "America/Sao_Paulo", "2018-02-17T12:00Z", "2018-02-19T12:00Z", ["18 01:30", "19 02:30"],
    ),
    "Sao Paulo, today: no DST": (
        "0 0 * * *", "run", "America/Sao_Paulo", "2026-11-01T00:00Z", "2026-11-02T12:00Z", ["01 03:00", "02 03:00"],
    ),
    "Casablanca: clocks go back for Ramadan": (
        "30 2 * * *", "run", "Africa/Casablanca", "2026-02-14T12:00Z", "2026-02-16T12:00Z", ["15 01:30", "16 02:30"],
    ),
    "Troll: two hours at once": (
        "30 1,2 * * *", "run", "Antarctica/Troll", "2026-03-28T12:00Z", "2026-03-29T12:00Z", ["29 01:00"],
    ),
    "Kolkata: no DST, half an hour off": (
        "0 0 * * *", "run", "Asia/Kolkata", "2026-03-28T12:00Z", "2026-03-29T23:00Z", ["28 18:30", "29 18:30"],
    ),
    "UTC": ("30 2 * * *", "run", "UTC", "2026-03-28T12:00Z", "2026-03-30T12:00Z", ["29 02:30", "30 02:30"]),
}  # fmt: skip


@pytest.mark.parametrize("case", DST)
def test_dst(case: str) -> None:
    expression, gap, zone, start, end, expected = DST[case]
    assert ticks(cron(expression, zone, dst_gap=gap), start, end) == expected


def test_starts_inside_the_repeated_hour() -> None:
    timing = cron("30 2 * * *", "Europe/Berlin")
    for second_pass in (
        "2026-10-25T01:00Z",
        "2026-10-25T01:10Z",
        "2026-10-25T01:30Z",
        "2026-10-25T01:59:59Z",
    ):
        assert timing.next_after(at(second_pass)) == at("2026-10-26T01:30Z")
        assert timing.last_until(at(second_pass)) == at("2026-10-25T00:30Z")
        assert timing.count(at(second_pass), at("2026-10-26T12:00Z")) == 1


@pytest.mark.parametrize(
    ("days", "day_match", "expected"),
    [
        ("13 * FRI", "or", ["02", "09", "13", "16", "23", "30"]),
        ("13 * FRI", "and", []),
        ("*/2 * FRI", "or", ["09", "23"]),  # starts with *: unrestricted, so both must match
        ("1-31/2 * FRI", "or", [f"{day:02}" for day in range(1, 32) if day % 2 or day in (2, 16, 30)]),
        ("13 * */7", "or", []),
        ("13 * *", "or", ["13"]),
        ("L * *", "or", ["31"]),
        ("LW * *", "or", ["30"]),
        ("* * 5L", "or", ["30"]),
        ("* * FRIL", "or", ["30"]),
        ("* * FRI#2", "or", ["09"]),
        ("* * mon#1,5L", "or", ["05", "30"]),
        ("* * 7", "or", ["04", "11", "18", "25"]),
        ("* OCT sun", "or", ["04", "11", "18", "25"]),
    ],
)
def test_days(days: str, day_match: str, expected: list[str]) -> None:
    timing = cron(f"0 0 {days}", day_match=day_match)
    assert [tick[:2] for tick in ticks(timing, "2026-09-30T12:00Z", "2026-10-31T12:00Z")] == expected


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ("@hourly", "0 * * * *"),
        ("@Daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@weekly", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        (" @annually ", "0 0 1 1 *"),
        ("  0\t*/2 *  * mon-fri ", "0 */2 * * MON-FRI"),
    ],
)
def test_expressions_are_made_canonical(given: str, canonical: str) -> None:
    assert cron(given) == cron(canonical)
    assert cron(given).as_dict() == {
        "type": "crontab",
        "expression": canonical,
        "timezone": "UTC",
        "day_match": "or",
        "dst_gap": "run",
    }


def test_a_range_of_one_value_is_that_value() -> None:
    assert ticks(cron("5-05/2 0 * * *"), "2026-01-01T00:00Z", "2026-01-01T12:00Z") == ["01 00:05"]


def test_rare_dates_are_found_across_the_century() -> None:
    timing = cron("0 0 29 2 MON", day_match="and")
    found = [f"{tick:%Y}" for tick in timing.ticks(at("2026-01-01T00:00Z"), at("2150-01-01T00:00Z"))]
    assert found == ["2044", "2072", "2112", "2140"]


def interval(every: int, unit: str, **more: Any) -> Timing:
    return parse({"type": "interval", "every": every, "unit": unit, **more})


def test_intervals_keep_the_phase_of_their_anchor() -> None:
    timing = interval(7, "minutes", anchor="2026-01-01T00:03:00Z")
    assert ticks(timing, "2025-12-31T23:50:00Z", "2026-01-01T00:12:00Z") == [
        "31 23:56",
        "01 00:03",
        "01 00:10",
    ]
    assert timing.last_until(at("2026-01-01T00:09:59Z")) == at("2026-01-01T00:03:00Z")


def test_hours_elapse_across_dst() -> None:
    timing = interval(12, "hours", timezone="Europe/Berlin")
    assert ticks(timing, "2026-03-28T12:30Z", "2026-03-29T23:00Z") == ["29 00:00", "29 12:00"]


@pytest.mark.parametrize(
    ("anchor", "start", "end", "expected"),
    [
        ("2026-01-01T09:00+01:00", "2026-03-28T00:00Z", "2026-03-30T00:00Z", ["28 08:00", "29 07:00"]),
        (
            "2026-01-01T02:30+01:00",
            "2026-03-28T00:00Z",
            "2026-03-31T00:00Z",
            ["28 01:30", "29 01:00", "30 00:30"],
        ),
        (
            "2026-01-01T02:30+01:00",
            "2026-10-24T00:00Z",
            "2026-10-27T00:00Z",
            ["24 00:30", "25 00:30", "26 01:30"],
        ),
    ],
)
def test_days_keep_wall_time_across_dst(anchor: str, start: str, end: str, expected: list[str]) -> None:
    assert ticks(interval(1, "days", anchor=anchor, timezone="Europe/Berlin"), start, end) == expected


def test_days_across_the_day_that_samoa_left_out() -> None:
    timing = interval(1, "days", timezone="Pacific/Apia")
    expected = ["29 10:00", "30 10:00", "31 10:00", "01 10:00"]
    assert ticks(timing, "2011-12-28T12:00Z", "2012-01-01T12:00Z") == expected


def test_weeks_begin_at_local_midnight_of_the_epoch() -> None:
    timing = interval(1, "weeks", timezone="Europe/Berlin")
    assert timing.as_dict()["anchor"] == "1969-12-31T23:00:00Z"
    assert ticks(timing, "2026-03-20T00:00Z", "2026-04-03T00:00Z") == ["25 23:00", "01 22:00"]


def test_one_off() -> None:
    timing = parse({"type": "one_off", "at": "2027-03-01T09:00:00+01:00"})
    assert timing == parse({"type": "one_off", "at": "2027-03-01T08:00:00Z"})
    assert timing.next_after(at("2027-03-01T07:59:59Z")) == at("2027-03-01T08:00:00Z")
    assert timing.next_after(at("2027-03-01T08:00:00Z")) is None
    assert timing.last_until(at("2027-03-01T07:59:59Z")) is None
    assert ticks(timing, "2027-01-01T00:00Z", "2028-01-01T00:00Z") == ["01 08:00"]


def test_one_off_in_local_time() -> None:
    timing = parse({"type": "one_off", "at": "2027-07-01T09:00:00", "timezone": "Europe/Berlin"})
    assert timing.as_dict() == {"type": "one_off", "at": "2027-07-01T07:00:00Z", "timezone": "Europe/Berlin"}
    assert parse(timing.as_dict()) == timing


def test_one_off_is_never_early() -> None:
    timing = parse({"type": "one_off", "at": "2027-03-01T09:00:00.25Z"})
    assert timing.next_after(at("2027-03-01T00:00Z")) == at("2027-03-01T09:00:01Z")


def test_the_past_is_refused_unless_asked_for() -> None:
    now = at("2027-03-01T08:00:00Z")
    past = {"type": "one_off", "at": "2027-03-01T08:00:00Z"}
    with pytest.raises(TimingError, match="in the past; give a later time") as caught:
        refuse_past(parse(past), now)
    assert caught.value.field == "at"
    refuse_past(parse(past), now - timedelta(seconds=1))
    allowed = parse({**past, "run_if_past": True})
    refuse_past(allowed, now)
    assert parse(allowed.as_dict()) == allowed
    refuse_past(cron("* * * * *"), now)


@pytest.mark.parametrize(
    "timing",
    [
        cron("0 0 1 1 *"),
        cron("*/5 * * * *", "Europe/Berlin"),
        cron("30 2 * * *", "Pacific/Kiritimati"),
        cron("0 0 29 2 MON", "America/New_York", day_match="and"),
        interval(3653, "days", timezone="Pacific/Kiritimati"),
        interval(1, "seconds"),
        interval(521, "weeks", anchor="9990-01-01T00:00:00Z", timezone="America/New_York"),
        parse({"type": "one_off", "at": "2027-03-01T09:00:00Z"}),
    ],
)
def test_the_ends_of_the_calendar_are_not_an_error(timing: Timing) -> None:
    for instant in (datetime.max, datetime.min):
        for offset in (-14, 0, 14):
            aware = instant.replace(tzinfo=(at(f"2026-01-01T00:00{offset:+03}:00").tzinfo))
            timing.next_after(aware)
            timing.last_until(aware)
    assert timing.next_after(datetime.max.replace(tzinfo=UTC)) is None
    assert timing.last_until(datetime.min.replace(tzinfo=UTC)) is None
    year = timedelta(days=365)
    tick: datetime | None = datetime.max.replace(tzinfo=UTC) - 60 * year
    for _ in range(200):
        tick = tick and timing.next_after(tick + year / 2)
    assert tick is None


def test_naive_instants_are_refused() -> None:
    for timing in (
        cron("* * * * *"),
        interval(1, "days"),
        parse({"type": "one_off", "at": "2027-03-01T09:00Z"}),
    ):
        for ask in (timing.next_after, timing.last_until):
            with pytest.raises(ValueError, match="naive"):
                ask(at("2026-01-01T00:00"))


def test_equal_texts_share_one_timing() -> None:
    text = '{"type": "interval", "every": 30, "unit": "seconds"}'
    assert parse_cached(text) is parse_cached(text)
    assert hash(parse_cached(text)) == hash(interval(30, "seconds"))
