"""A slow and simple reading of the crontab rules, to judge the evaluator by.

Written from the specification, not from the evaluator: it has its own field parser, and finds ticks by looking at
what the clock on the wall shows at every UTC minute. It is right wherever offsets are whole minutes, that is, in
every zone since 1972.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from random import Random
from zoneinfo import ZoneInfo

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
# Longer than any time by which clocks were ever set back.
LOOK_BACK = timedelta(hours=26)

MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
WEEKDAYS = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]


@dataclass(frozen=True)
class Minute:
    """One minute of real time: the wall it shows, the walls skipped just before, whether it was shown before."""

    instant: datetime
    wall: datetime
    skipped: tuple[datetime, ...]
    repeated: bool


def minutes_of(zone: ZoneInfo, start: datetime, end: datetime) -> list[Minute]:
    """Every whole UTC minute of `[start, end]`."""
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
        if instant >= start:
            found.append(Minute(instant, wall, tuple(skipped), repeated=wall <= highest))
        previous, highest = wall, max(highest, wall)
    return found


def transitions_of(zone: ZoneInfo, first_year: int, last_year: int) -> list[datetime]:
    """The instants, to six hours, at which the zone's offset changes."""
    found = []
    instant = datetime(first_year, 1, 1, tzinfo=UTC)
    offset = instant.astimezone(zone).utcoffset()
    while instant.year <= last_year:
        instant += timedelta(hours=6)
        current = instant.astimezone(zone).utcoffset()
        if current != offset:
            found.append(instant)
            offset = current
    return found


class Expression:
    """A five-field expression, and which walls and dates it names."""

    def __init__(self, text: str, day_match: str = "or") -> None:
        minute, hour, self.day, month, self.weekday = text.upper().split()
        self.minutes = _numbers(minute, 0, 59)
        self.hours = _numbers(hour, 0, 23)
        self.months = _numbers(month, 1, 12, {name: at for at, name in enumerate(MONTHS, 1)})
        self.real_time = minute[0] == "*" or hour[0] == "*"
        both_restricted = self.day[0] != "*" and self.weekday[0] != "*"
        self.either = both_restricted and day_match == "or"
        self.known: dict[date, bool] = {}

    def names_date(self, day: date) -> bool:
        if day not in self.known:
            by_day, by_weekday = self._names_day(day), self._names_weekday(day)
            matches = (by_day or by_weekday) if self.either else (by_day and by_weekday)
            self.known[day] = matches and day.month in self.months
        return self.known[day]

    def names(self, wall: datetime) -> bool:
        return wall.minute in self.minutes and wall.hour in self.hours and self.names_date(wall.date())

    def ticks(self, minutes: list[Minute], dst_gap: str = "run") -> Iterator[datetime]:
        for minute in minutes:
            if self.real_time:
                if self.names(minute.wall):
                    yield minute.instant
            elif (self.names(minute.wall) and not minute.repeated) or (
                dst_gap == "run" and any(self.names(wall) for wall in minute.skipped)
            ):
                yield minute.instant

    def _names_day(self, day: date) -> bool:
        last = _last_day(day)
        for term in self.day.split(","):
            if term == "L":
                if day == last:
                    return True
            elif term == "LW":
                weekdays = [last - DAY * back for back in range(3) if (last - DAY * back).isoweekday() < 6]
                if day == weekdays[0]:
                    return True
            elif day.day in _numbers(term, 1, 31):
                return True
        return False

    def _names_weekday(self, day: date) -> bool:
        names = {name: at for at, name in enumerate(WEEKDAYS)}
        for term in self.weekday.split(","):
            if term.endswith("L"):
                wanted, fits = _number(term[:-1], names), (day + 7 * DAY).month != day.month
            elif "#" in term:
                name, nth = term.split("#")
                wanted, fits = _number(name, names), 7 * (int(nth) - 1) < day.day <= 7 * int(nth)
            else:
                if day.isoweekday() % 7 in {number % 7 for number in _numbers(term, 0, 7, names)}:
                    return True
                continue
            if fits and wanted % 7 == day.isoweekday() % 7:
                return True
        return False


def _last_day(day: date) -> date:
    while (day + DAY).month == day.month:
        day += DAY
    return day


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
