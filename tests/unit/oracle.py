"""A slow and simple reading of the rules for ticks, to judge the evaluator by.

Written from the specification, not from the evaluator: it has its own field parser, and finds ticks by looking at
what the clock on the wall shows at every UTC minute. It is right wherever offsets are whole minutes, that is, in
every zone since 1972.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from random import Random
from zoneinfo import ZoneInfo

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
# Longer than any time by which clocks were set back since 1972.
LOOK_BACK = timedelta(hours=6)

MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
WEEKDAYS = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]


@dataclass(frozen=True, slots=True)
class Minute:
    """One minute of real time: the wall it shows, the walls skipped just before, whether it was shown before."""

    instant: datetime
    wall: datetime
    skipped: tuple[datetime, ...]
    repeated: bool


class Window:
    """Every whole UTC minute of `[start, end]`, together by the hour that the wall shows."""

    def __init__(self, zone: ZoneInfo, start: datetime, end: datetime) -> None:
        self.minutes = _minutes_of(zone, start, end)
        self.hours = [list(hour) for _, hour in groupby(self.minutes, _day_and_hour)]
        self.gaps = [minute for minute in self.minutes if minute.skipped]
        self.walls = {minute.instant: minute.wall for minute in self.minutes}


def _day_and_hour(minute: Minute) -> tuple[int, int]:
    return minute.wall.day, minute.wall.hour


def _minutes_of(zone: ZoneInfo, start: datetime, end: datetime) -> list[Minute]:
    found: list[Minute] = []
    instant = start - LOOK_BACK
    previous = highest = instant.astimezone(zone).replace(tzinfo=None)
    while instant < end:
        instant += MINUTE
        wall = instant.astimezone(zone).replace(tzinfo=None)
        skipped = []
        absent = previous + MINUTE
        while absent < wall:
            skipped.append(absent)
            absent += MINUTE
        repeated = wall <= highest
        if instant >= start:
            found.append(Minute(instant, wall, tuple(skipped), repeated))
        previous = wall
        if not repeated:
            highest = wall
    return found


def transitions_of(zone: ZoneInfo, first_year: int, last_year: int) -> list[datetime]:
    """The days at whose start the zone's offset is another than a day before."""
    found = []
    instant = datetime(first_year, 1, 1, tzinfo=UTC)
    offset = instant.astimezone(zone).utcoffset()
    while instant.year <= last_year:
        instant += DAY
        current = instant.astimezone(zone).utcoffset()
        if current != offset:
            found.append(instant)
            offset = current
    return found


class Period:
    """Multiples of `every` from `anchor`: in real time, or on the wall, where they follow the rule of fixed times."""

    def __init__(self, every: timedelta, anchor: datetime, zone: ZoneInfo, *, on_the_wall: bool) -> None:
        self.every, self.anchor = every, anchor
        self.anchor_wall = anchor.astimezone(zone).replace(tzinfo=None)
        self.on_the_wall = on_the_wall

    def names(self, wall: datetime) -> bool:
        return not (wall - self.anchor_wall) % self.every

    def ticks(self, window: Window) -> list[datetime]:
        if not self.on_the_wall:
            return [each.instant for each in window.minutes if not (each.instant - self.anchor) % self.every]
        named = [each.instant for each in window.minutes if not each.repeated and self.names(each.wall)]
        return sorted({*named, *_moved(window, self.names)})


def _moved(window: Window, names: Callable[[datetime], bool]) -> list[datetime]:
    """The ends of gaps that swallow a named wall."""
    return [minute.instant for minute in window.gaps if any(names(wall) for wall in minute.skipped)]


class Expression:
    """A five-field expression, and which walls and dates it names."""

    def __init__(self, text: str, day_match: str = "or") -> None:
        minute, hour, day, month, weekday = text.upper().split()
        self.minutes = _numbers(minute, 0, 59)
        self.hours = _numbers(hour, 0, 23)
        self.months = _numbers(month, 1, 12, {name: at for at, name in enumerate(MONTHS, 1)})
        self.by_day = [_day_rule(term) for term in day.split(",")]
        self.by_weekday = [_weekday_rule(term) for term in weekday.split(",")]
        self.real_time = minute[0] == "*" or hour[0] == "*"
        both_restricted = day[0] != "*" and weekday[0] != "*"
        self.either = both_restricted and day_match == "or"
        self.known: dict[date, bool] = {}

    def names_date(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        if day not in self.known:
            by_day = any(rule(day) for rule in self.by_day)
            by_weekday = any(rule(day) for rule in self.by_weekday)
            self.known[day] = (by_day or by_weekday) if self.either else (by_day and by_weekday)
        return self.known[day]

    def names(self, wall: datetime) -> bool:
        return wall.minute in self.minutes and wall.hour in self.hours and self.names_date(wall.date())

    def ticks(self, window: Window, dst_gap: str = "run") -> list[datetime]:
        found = [
            minute.instant
            for hour in window.hours
            if hour[0].wall.hour in self.hours and self.names_date(hour[0].wall.date())
            for minute in hour
            if minute.wall.minute in self.minutes and (self.real_time or not minute.repeated)
        ]
        if dst_gap == "run" and not self.real_time:
            found = sorted({*found, *_moved(window, self.names)})
        return found


def _day_rule(term: str) -> Callable[[date], bool]:
    if term == "L":
        return lambda day: day == _last_day(day)
    if term == "LW":
        return lambda day: day == _last_working_day(day)
    days = _numbers(term, 1, 31)
    return lambda day: day.day in days


def _weekday_rule(term: str) -> Callable[[date], bool]:
    names = {name: at for at, name in enumerate(WEEKDAYS)}
    if term.endswith("L"):
        last = _number(term[:-1], names) % 7
        return lambda day: last == day.isoweekday() % 7 and (day + 7 * DAY).month != day.month
    if "#" in term:
        name, nth = term.split("#")
        wanted, week = _number(name, names) % 7, int(nth)
        return lambda day: wanted == day.isoweekday() % 7 and 7 * (week - 1) < day.day <= 7 * week
    numbers = {number % 7 for number in _numbers(term, 0, 7, names)}
    return lambda day: day.isoweekday() % 7 in numbers


def _last_working_day(day: date) -> date:
    last = _last_day(day)
    return next(last - DAY * back for back in range(3) if (last - DAY * back).isoweekday() < 6)


def _last_day(day: date) -> date:
    return (day.replace(day=28) + 4 * DAY).replace(day=1) - DAY


def _number(text: str, names: dict[str, int] | None) -> int:
    return names[text] if names and text in names else int(text)


def _numbers(text: str, low: int, high: int, names: dict[str, int] | None = None) -> set[int]:
    found: set[int] = set()
    for term in text.split(","):
        span, _, step = term.partition("/")
        if span == "*":
            first, last = low, high
        elif "-" in span:
            first, last = (_number(end, names) for end in span.split("-"))
        else:
            first = _number(span, names)
            last = high if step else first
        found.update(range(first, last + 1, int(step or 1)))
    return found


def random_expression(random: Random, near: datetime) -> str:
    """A valid expression; often one that names the dates, hours and minutes around the wall `near`."""
    day = (near + DAY * random.randint(-1, 1)).date()
    minute = _random_field(random, 0, 59, [0, 0, 30, 15, near.minute])
    hour = _random_field(random, 0, 23, [0, 1, 2, 2, 3, 23, near.hour])
    days = _random_field(random, 1, 31, [day.day, day.day, 1, 31], star=0.5)
    month = _random_field(random, 1, 12, [day.month], names=MONTHS, star=0.7)
    weekday = _random_field(random, 0, 7, [day.isoweekday(), 0, 7], names=WEEKDAYS, star=0.5)
    if random.random() < 0.1:
        days = random.choice(["L", "LW", f"{days},L" if days[0] != "*" else "L"])
    if random.random() < 0.12:
        number = random.choice([day.isoweekday() % 7, random.randint(0, 7)])
        special = random.choice(
            [f"{number}L", f"{number}#{(day.day + 6) // 7}", f"{number}#{random.randint(1, 5)}"]
        )
        weekday = special if random.random() < 0.7 else f"{special},{random.randint(0, 7)}"
    return f"{minute} {hour} {days} {month} {weekday}"


def _random_field(
    random: Random, low: int, high: int, likely: list[int], *, names: Sequence[str] = (), star: float = 0.25
) -> str:
    if random.random() < star:
        return "*" if random.random() < 0.6 else f"*/{random.randint(1, (high - low) // 2 + 1)}"
    return ",".join(
        _random_term(random, low, high, likely, names=names) for _ in range(random.choice([1, 1, 1, 2, 3]))
    )


def _random_term(random: Random, low: int, high: int, likely: list[int], *, names: Sequence[str]) -> str:
    first = random.choice(likely) if random.random() < 0.7 else random.randint(low, high)
    shape = random.random()
    if shape < 0.6:
        if names and first - low < len(names) and random.random() < 0.4:
            return names[first - low]
        return str(first)
    if shape < 0.7:
        return f"{first}/{random.randint(1, high)}"
    last = random.randint(first, high)
    return f"{first}-{last}" if shape < 0.85 else f"{first}-{last}/{random.randint(1, 9)}"
