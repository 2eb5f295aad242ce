"""Plans by example: limits, calendars, jitter and fixed delay."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from app.scheduling.plan import Jitter, Plan
from app.scheduling.timing import TimingError, parse

SCHEDULE = UUID("0199d0c2-f2f0-7a51-9c66-3f0c5f3ad4b1")
HOURLY = {"type": "interval", "every": 1, "unit": "hours"}
ONCE = {"type": "one_off", "at": "2027-03-01T09:00:00Z"}
DELAY = {"type": "interval", "every": 10, "unit": "minutes", "fixed_delay": True}


@dataclass(frozen=True)
class Dates:
    name: str
    dates: frozenset[date]

    def excludes(self, day: date) -> bool:
        return day in self.dates


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def plan(schedule: dict[str, Any], starts: str | None = None, ends: str | None = None, **more: Any) -> Plan:
    return Plan(
        timing=parse(schedule),
        starts_at=None if starts is None else at(starts),
        ends_at=None if ends is None else at(ends),
        **more,
    )


def hours(found: Plan, after: str, until: str) -> list[str]:
    return [f"{tick:%d %H:%M}" for tick in found.ticks(at(after), at(until))]


def test_limits_are_inclusive() -> None:
    limited = plan(HOURLY, "2027-01-01T09:00Z", "2027-01-01T11:00+00:00")
    assert hours(limited, "2026-01-01T00:00Z", "2028-01-01T00:00Z") == ["01 09:00", "01 10:00", "01 11:00"]
    assert limited.count(at("2026-01-01T00:00Z"), at("2028-01-01T00:00Z")) == 3
    assert limited.next_after(at("2026-01-01T00:00Z")) == at("2027-01-01T09:00Z")
    assert limited.next_after(at("2027-01-01T11:00Z")) is None
    assert limited.last_until(at("2028-01-01T00:00Z")) == at("2027-01-01T11:00Z")
    assert limited.last_until(at("2027-01-01T08:59:59Z")) is None


def test_limits_need_not_be_ticks() -> None:
    limited = plan(HOURLY, "2027-01-01T10:30+01:00", "2027-01-01T11:59:59.999Z")
    assert limited.starts_at == at("2027-01-01T09:30Z")
    assert hours(limited, "2026-01-01T00:00Z", "2028-01-01T00:00Z") == ["01 10:00", "01 11:00"]


def test_a_single_instant_is_a_range() -> None:
    once = plan(HOURLY, "2027-01-01T09:00Z", "2027-01-01T09:00Z")
    assert hours(once, "2026-01-01T00:00Z", "2028-01-01T00:00Z") == ["01 09:00"]


@pytest.mark.parametrize("limits", [("2027-01-01T09:01Z", "2027-01-01T09:59Z"), (None, "0001-06-01T00:00Z")])
def test_limits_that_leave_no_tick(limits: tuple[str | None, str]) -> None:
    empty = plan(HOURLY, *limits)
    now = at("2026-01-01T00:00Z")
    assert empty.next_after(now) is None
    assert empty.first_tick(now) is None
    assert empty.last_until(at("2028-01-01T00:00Z")) is None
    assert empty.count(now, at("2028-01-01T00:00Z")) == 0


@pytest.mark.parametrize(
    ("schedule", "more", "field", "problem"),
    [
        (
            HOURLY,
            {"starts_at": at("2027-01-02T00:00Z"), "ends_at": at("2027-01-01T00:00Z")},
            "ends_at",
            "before",
        ),
        (HOURLY, {"starts_at": at("2027-01-02T00:00")}, "starts_at", "no offset"),
        (HOURLY, {"ends_at": at("2027-01-02T00:00")}, "ends_at", "no offset"),
        (ONCE, {"jitter": Jitter(share=0.1)}, "jitter", "give seconds"),
    ],
)
def test_what_a_plan_refuses(schedule: Any, more: dict[str, Any], field: str, problem: str) -> None:
    with pytest.raises(TimingError, match=problem) as caught:
        Plan(timing=parse(schedule), **more)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("starts", "ends", "expected"),
    [
        (None, None, "2027-03-01T09:00Z"),
        ("2027-03-01T09:00Z", "2027-03-01T09:00Z", "2027-03-01T09:00Z"),
        ("2027-03-01T09:00:01Z", None, None),
        (None, "2027-03-01T08:59:59Z", None),
    ],
)
def test_a_one_off_within_limits(starts: str | None, ends: str | None, expected: str | None) -> None:
    wanted = None if expected is None else at(expected)
    assert plan(ONCE, starts, ends).first_tick(at("2027-01-01T00:00Z")) == wanted
    assert plan(ONCE, starts, ends).last_until(at("2028-01-01T00:00Z")) == wanted


def test_a_one_off_in_the_past_runs_now_if_asked_for_and_allowed() -> None:
    now = at("2027-04-01T00:00Z")
    past = {**ONCE, "run_if_past": True}
    assert plan(ONCE).first_tick(now) is None
    assert plan(past).first_tick(now) == now
    assert plan(past, ends="2027-04-01T00:00Z").first_tick(now) == now
    assert plan(past, ends="2027-03-31T23:59Z").first_tick(now) is None
    assert plan(past, starts="2027-04-01T00:01Z").first_tick(now) is None
    assert plan(past).first_tick(at("2027-02-01T00:00Z")) == at("2027-03-01T09:00Z")


def test_a_fixed_delay_counts_from_the_end_of_runs() -> None:
    delayed, now = plan(DELAY), at("2027-01-01T09:00:00.250001Z")
    assert delayed.estimated
    assert delayed.first_tick(now) == now + timedelta(minutes=10)
    assert delayed.after_end(now.astimezone(parse_offset("+05:30"))) == now + timedelta(minutes=10)
    assert delayed.last_until(now) is None
    assert delayed.count(now, now + timedelta(days=1)) == 0
    assert list(delayed.ticks(now, now + timedelta(days=1))) == []


def parse_offset(offset: str) -> Any:
    return at(f"2027-01-01T00:00{offset}").tzinfo


def test_a_fixed_delay_within_limits() -> None:
    delayed = plan(DELAY, "2027-01-01T09:00Z", "2027-01-01T12:00Z")
    assert delayed.next_after(at("2027-01-01T00:00Z")) == at("2027-01-01T09:00Z")
    assert delayed.next_after(at("2027-01-01T08:55Z")) == at("2027-01-01T09:05Z")
    assert delayed.after_end(at("2027-01-01T11:50Z")) == at("2027-01-01T12:00Z")
    assert delayed.after_end(at("2027-01-01T11:50:00.000001Z")) is None
    with pytest.raises(ValueError, match="only a fixed delay"):
        plan(HOURLY).after_end(at("2027-01-01T00:00Z"))


@pytest.mark.parametrize(
    ("unit", "hours"), [("seconds", 1 / 3600), ("hours", 1), ("days", 24), ("weeks", 168)]
)
def test_a_fixed_delay_is_elapsed_time_in_every_unit(unit: str, hours: float) -> None:
    timing = {**DELAY, "every": 1, "unit": unit, "timezone": "Europe/Berlin"}
    before_the_change = at("2027-03-27T12:00Z")
    assert plan(timing).next_after(before_the_change) == before_the_change + timedelta(hours=hours)
    stored = parse(timing).as_dict()
    assert stored == {**timing, "fixed_delay": True}
    assert parse(stored) == parse(timing)


def test_the_first_calendar_that_excludes_a_date_is_named() -> None:
    new_year = Dates("new-year", frozenset({date(2027, 1, 1)}))
    january = Dates("january", frozenset(date(2027, 1, day) for day in range(1, 32)))
    holidays = plan(HOURLY, calendars=(new_year, january))
    assert holidays.excluded_by(at("2026-12-31T23:59Z")) is None
    assert holidays.excluded_by(at("2027-01-01T00:00Z")) == "new-year"
    assert holidays.excluded_by(at("2027-01-02T00:00Z")) == "january"
    assert plan(HOURLY).excluded_by(at("2027-01-01T00:00Z")) is None


@pytest.mark.parametrize(
    "schedule",
    [
        {"type": "crontab", "expression": "0 * * * *", "timezone": "Asia/Tokyo"},
        {**HOURLY, "timezone": "Asia/Tokyo"},
        {**ONCE, "timezone": "Asia/Tokyo"},
    ],
)
def test_calendars_look_at_the_local_date(schedule: dict[str, Any]) -> None:
    local = plan(schedule, calendars=(Dates("new-year", frozenset({date(2027, 1, 1)})),))
    assert local.excluded_by(at("2026-12-31T15:00Z")) == "new-year"
    assert local.excluded_by(at("2027-01-01T15:00Z")) is None


def test_an_excluded_tick_is_a_tick() -> None:
    found = plan(HOURLY, calendars=(Dates("new-year", frozenset({date(2027, 1, 1)})),))
    assert found.count(at("2026-12-31T23:30Z"), at("2027-01-01T01:30Z")) == 2
    assert found.next_after(at("2026-12-31T23:30Z")) == at("2027-01-01T00:00Z")


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"window": timedelta(seconds=1), "share": 0.5},
        {"window": timedelta(0)},
        {"window": timedelta(seconds=-1)},
        {"share": 0.0},
        {"share": 1.0},
        {"share": float("nan")},
    ],
)
def test_jitter_is_a_window_or_a_share(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"window|share"):
        Jitter(**values)


def test_jitter_is_known_beforehand() -> None:
    tick = at("2027-01-01T09:00Z")
    spread = plan(HOURLY, jitter=Jitter(window=timedelta(minutes=10)))
    # Pinned: beats of two releases must agree on it.
    assert spread.due_at(SCHEDULE, tick) == at("2027-01-01T09:07:36.561176Z")
    assert plan(HOURLY).due_at(SCHEDULE, tick) == tick
    assert plan(HOURLY, ends="2027-01-01T09:00Z", jitter=spread.jitter).due_at(
        SCHEDULE, tick
    ) == spread.due_at(SCHEDULE, tick)


def test_jitter_of_the_last_tick() -> None:
    tick = at("2027-03-01T09:00Z")
    due = plan(ONCE, jitter=Jitter(window=timedelta(hours=1))).due_at(SCHEDULE, tick)
    assert tick < due < tick + timedelta(hours=1)


def test_naive_instants_are_refused() -> None:
    for found in (plan(HOURLY), plan(HOURLY, "2027-01-01T00:00Z", "2028-01-01T00:00Z"), plan(DELAY)):
        for ask in (found.next_after, found.last_until):
            with pytest.raises(ValueError, match="naive"):
                ask(at("2027-01-01T00:00"))


def test_equal_plans_are_one() -> None:
    assert plan(HOURLY, "2027-01-01T10:00+01:00") == plan(HOURLY, "2027-01-01T09:00Z")
    assert hash(plan(HOURLY)) == hash(Plan(timing=parse(HOURLY)))
    assert plan(HOURLY).zone is UTC
