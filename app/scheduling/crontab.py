"""Crontab expressions as ordered sets of wall times.

cronsim reads the fields and decides which days match; the walk over days, hours and minutes is done here on
tables, because cronsim itself may return instants that have passed (started in a repeated hour) and gives up
after 50 years. The grammar is checked before cronsim sees it: `5-5/2` is 5 alone, as in Vixie cron.
"""

# ruff: noqa: DTZ001 (a wall is naive: that is what tells it from an instant)

import re
from bisect import bisect_left, bisect_right
from calendar import isleap
from datetime import date, datetime
from functools import lru_cache
from typing import Literal

from cronsim.cronsim import SYMBOLIC_DAYS, SYMBOLIC_MONTHS, CronSim, CronSimError, Field

from app.scheduling.walltime import TimingError

DayMatch = Literal["or", "and"]

ALIASES = {
    "@HOURLY": "0 * * * *",
    "@DAILY": "0 0 * * *",
    "@MIDNIGHT": "0 0 * * *",
    "@WEEKLY": "0 0 * * 0",
    "@MONTHLY": "0 0 1 * *",
    "@YEARLY": "0 0 1 1 *",
    "@ANNUALLY": "0 0 1 1 *",
}

MAX_EXPRESSION = 500

_VALUE = r"(?:\d{1,2}|[A-Z]{3})"
_TERM = rf"(?:\*|{_VALUE}(?:-{_VALUE})?)(?:/\d{{1,2}})?"
_FIELDS = (
    ("minute", Field.MINUTE, _TERM, "0-59"),
    ("hour", Field.HOUR, _TERM, "0-23"),
    ("day-of-month", Field.DAY, rf"{_TERM}|LW?", "1-31, L (last day) or LW (last weekday)"),
    ("month", Field.MONTH, _TERM, "1-12 or JAN-DEC"),
    (
        "day-of-week",
        Field.DOW,
        rf"{_TERM}|{_VALUE}L|{_VALUE}#[1-5]",
        "0-7 or SUN-SAT, 5L (last Friday) or 5#2 (second)",
    ),
)
_NAMES = {
    Field.MONTH: {name: str(number) for number, name in enumerate(SYMBOLIC_MONTHS, 1)},
    Field.DOW: {name: str(number) for number, name in enumerate(SYMBOLIC_DAYS)},
}
_SINGLE_RANGE = re.compile(r"(\d+)-(\d+)/0*[1-9]\d*")
_MONTH_LENGTHS = (0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


class Pattern:
    """The wall times, whole minutes, that a canonical five-field expression names; a `Walls`."""

    __slots__ = ("_days_of", "_hours", "_minutes", "_months", "wildcard")

    def __init__(self, expression: str, day_match: DayMatch) -> None:
        parts = expression.split()
        cooked = [_cook(text, index) for index, text in enumerate(parts)]
        minutes, hours, _, months, _ = cooked
        self._minutes = _members(Field.MINUTE, minutes)
        self._hours = _members(Field.HOUR, hours)
        self._months = _members(Field.MONTH, months)
        self._days_of = _days(cooked[2], cooked[4], day_match).of
        self.wildcard = parts[0].startswith("*") or parts[1].startswith("*")

    @property
    def possible(self) -> bool:
        """Whether any date ever matches.

        Which days of a month match depends only on its length and the weekday of its 1st, and within the 400
        years of the Gregorian cycle (the first 28 suffice) each month starts on every weekday in every length.
        """
        return any(self._days_of(year, month) for month in self._months for year in range(2000, 2028))

    def after(self, wall: datetime) -> datetime | None:
        year, month, day, hour = wall.year, wall.month, wall.day, wall.hour
        if month in self._months:
            days = self._days_of(year, month)
            if day in days:
                if hour in self._hours:
                    at = bisect_right(self._minutes, wall.minute)
                    if at < len(self._minutes):
                        return datetime(year, month, day, hour, self._minutes[at])
                at = bisect_right(self._hours, hour)
                if at < len(self._hours):
                    return datetime(year, month, day, self._hours[at], self._minutes[0])
            at = bisect_right(days, day)
            if at < len(days):
                return datetime(year, month, days[at], self._hours[0], self._minutes[0])
        at = bisect_right(self._months, month)
        while year <= 9999:
            for later in self._months[at:]:
                if days := self._days_of(year, later):
                    return datetime(year, later, days[0], self._hours[0], self._minutes[0])
            year, at = year + 1, 0
        return None

    def until(self, wall: datetime) -> datetime | None:
        year, month, day, hour = wall.year, wall.month, wall.day, wall.hour
        if month in self._months:
            days = self._days_of(year, month)
            if day in days:
                if hour in self._hours:
                    at = bisect_right(self._minutes, wall.minute)
                    if at:
                        return datetime(year, month, day, hour, self._minutes[at - 1])
                at = bisect_left(self._hours, hour)
                if at:
                    return datetime(year, month, day, self._hours[at - 1], self._minutes[-1])
            at = bisect_left(days, day)
            if at:
                return datetime(year, month, days[at - 1], self._hours[-1], self._minutes[-1])
        at = bisect_left(self._months, month)
        while year >= 1:
            for earlier in reversed(self._months[:at]):
                if days := self._days_of(year, earlier):
                    return datetime(year, earlier, days[-1], self._hours[-1], self._minutes[-1])
            year, at = year - 1, len(self._months)
        return None

    def count(self, after: datetime, until: datetime) -> int:
        return self._rank(until) - self._rank(after) + self._between(after, until) if after < until else 0

    def _between(self, after: datetime, until: datetime) -> int:
        """The walls of whole months from that of `after` up to, without, that of `until`."""
        first, last = after.year * 12 + after.month - 1, until.year * 12 + until.month - 1
        days = sum(
            len(self._days_of(at // 12, at % 12 + 1))
            for at in range(first, last)
            if at % 12 + 1 in self._months
        )
        return days * len(self._hours) * len(self._minutes)

    def _rank(self, wall: datetime) -> int:
        """How many walls of its own month are not later than `wall`."""
        if wall.month not in self._months:
            return 0
        days = self._days_of(wall.year, wall.month)
        rank = bisect_left(days, wall.day) * len(self._hours) * len(self._minutes)
        if wall.day in days:
            rank += bisect_left(self._hours, wall.hour) * len(self._minutes)
            if wall.hour in self._hours:
                rank += bisect_right(self._minutes, wall.minute)
        return rank


class _Days:
    """Which days of a month match two fields; most schedules share theirs with many others."""

    __slots__ = ("_known", "_matcher", "_together")

    def __init__(self, day_of_month: str, day_of_week: str, day_match: DayMatch) -> None:
        # The month is looked at by `Pattern`: cronsim refuses some impossible dates but not all.
        self._matcher = CronSim(f"0 0 {day_of_month} * {day_of_week}", datetime(2000, 1, 1))
        self._together = day_match == "and" or self._matcher.day_and
        self._known: dict[tuple[int, int], tuple[int, ...]] = {}

    def of(self, year: int, month: int) -> tuple[int, ...]:
        first = date(year, month, 1)
        length = 29 if month == 2 and isleap(year) else _MONTH_LENGTHS[month]
        shape = (first.weekday(), length)
        days = self._known.get(shape)
        if days is None:
            dates = (first.replace(day=day) for day in range(1, length + 1))
            self._known[shape] = days = tuple(each.day for each in dates if self._matches(each))
        return days

    def _matches(self, day: date) -> bool:
        if self._together:
            return self._matcher.match_dom(day) and self._matcher.match_dow(day)
        return self._matcher.match_dom(day) or self._matcher.match_dow(day)


@lru_cache(maxsize=4096)
def _days(day_of_month: str, day_of_week: str, day_match: DayMatch) -> _Days:
    return _Days(day_of_month, day_of_week, day_match)


def canonical(expression: object) -> str:
    """Five upper-case fields with single spaces; `@daily` and its kin are written out.

    Raises TimingError when there are not five fields; their contents are checked by `pattern`.
    """
    if not isinstance(expression, str):
        raise TimingError("expression", 'must be text with five fields, such as "0 */2 * * *"')
    if len(expression) > MAX_EXPRESSION:
        raise TimingError("expression", f"is longer than {MAX_EXPRESSION} characters; use ranges and steps")
    fields = expression.upper().split()
    if len(fields) == 1 and fields[0].startswith("@"):
        if fields[0] == "@REBOOT":
            raise TimingError(
                "expression",
                "@reboot names no time, and a schedule outlives every restart; use a crontab or a one-off",
            )
        if fields[0] not in ALIASES:
            raise TimingError(
                "expression", f"{fields[0].lower()} is not known; use one of {', '.join(ALIASES).lower()}"
            )
        return ALIASES[fields[0]]
    if len(fields) in (6, 7):
        raise TimingError(
            "expression",
            f"has {len(fields)} fields; seconds and years are not supported, give exactly five: minute hour "
            "day-of-month month day-of-week (an interval can run every few seconds)",
        )
    if len(fields) != 5:
        raise TimingError(
            "expression", f"has {len(fields)} fields; give five: minute hour day-of-month month day-of-week"
        )
    return " ".join(fields)


@lru_cache(maxsize=4096)
def pattern(expression: str, day_match: DayMatch) -> Pattern:
    """The compiled form of a canonical expression.

    Raises TimingError when a field is malformed, or when no date can ever match.
    """
    compiled = Pattern(expression, day_match)
    if not compiled.possible:
        raise TimingError(
            "expression",
            "never matches: no month has such a day; change the day-of-month, month or day-of-week field",
        )
    return compiled


def spelled_out(text: str, index: int) -> str:
    """The values that field number `index` (0 minute … 4 day-of-week) names by lists, ranges and steps, as a list.

    Raises TimingError when it is malformed.
    """
    _, field, _, _ = _FIELDS[index]
    return ",".join(map(str, _members(field, _cook(text, index))))


def _cook(text: str, index: int) -> str:
    """One field as cronsim reads it right: names as numbers, ranges of one value as that value."""
    name, field, grammar, allowed = _FIELDS[index]
    terms = text.split(",")
    if not all(re.fullmatch(grammar, term, re.ASCII) for term in terms):
        raise _bad(name, text, allowed)
    cooked = ",".join(_cook_term(term, field) for term in terms)
    try:
        field.parse(cooked)
    except CronSimError:
        raise _bad(name, text, allowed) from None
    return cooked


def _cook_term(term: str, field: Field) -> str:
    names = _NAMES.get(field, {})
    numbers = re.sub("[A-Z]{3}", lambda word: names.get(word[0], word[0]), term)
    single = _SINGLE_RANGE.fullmatch(numbers)
    return single[1] if single and int(single[1]) == int(single[2]) else numbers


def _bad(name: str, text: str, allowed: str) -> TimingError:
    return TimingError(
        "expression",
        f'the {name} field "{text:.60}" is not valid; use * or values {allowed}, with lists "a,b", ranges "a-b" '
        'and steps "*/n"',
    )


def _members(field: Field, text: str) -> tuple[int, ...]:
    return tuple(sorted(value for value in field.parse(text) if isinstance(value, int)))
