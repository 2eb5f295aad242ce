"""Wall clocks and instants: how nominal local times become UTC instants, DST included.

A schedule names local wall times (a `Walls`); a run needs instants. The two functions `next_instant` and
`last_instant` are the only place where one becomes the other, by one of three rules:

* `FOLLOW`: real time is followed. An absent wall time is skipped, a repeated one counts both times. Debian
  cron's rule for jobs whose minute or hour starts with `*`.
* `RUN`: every wall time counts once. An absent one counts at the first instant after the gap, a repeated one
  at its first occurrence. Debian cron's rule for all other jobs (cron(8), "Notes").
* `SKIP`: as `RUN`, but an absent wall time does not count.

Walls are naive datetimes, instants are UTC-aware ones. Nothing here reads a clock.
"""

# ruff: noqa: DTZ001, DTZ901 (a wall is naive: that is what tells it from an instant)

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from enum import Enum, auto
from typing import Protocol, cast
from zoneinfo import ZoneInfo

# A margin at both ends of `datetime` keeps every conversion between zones free of OverflowError.
EARLIEST = datetime(2, 1, 1, tzinfo=UTC)
LATEST = datetime(9998, 12, 31, tzinfo=UTC)
_EARLIEST_WALL = datetime(2, 1, 1)
_LATEST_WALL = datetime(9998, 12, 31)

_TICK = timedelta(microseconds=1)
_SECOND = timedelta(seconds=1)
_DAY = timedelta(days=1)

_PROBED_DAYS = 400

# Calendar and zone rules together repeat after the 400 years of the Gregorian cycle, once the last change that
# zone data lists (2087 today) has passed: what finds no instant for this long never will.
_CYCLE = timedelta(days=500 * 366)


class TimingError(ValueError):
    """A schedule that cannot be understood or can never fire.

    `field` names the offending key of the schedule object; `problem` says what is wrong and what to do.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class Rule(Enum):
    FOLLOW = auto()
    RUN = auto()
    SKIP = auto()


class Walls(Protocol):
    """An ordered set of wall times; all arguments and results are naive datetimes."""

    def after(self, wall: datetime) -> datetime | None:
        """The first member strictly later than `wall`."""

    def until(self, wall: datetime) -> datetime | None:
        """The latest member not later than `wall`."""

    def count(self, after: datetime, until: datetime) -> int:
        """How many members lie in `(after, until]`."""


class Periods:
    """The walls `anchor + n × period`; a `Walls`."""

    __slots__ = ("_anchor", "_period")

    def __init__(self, anchor: datetime, period: timedelta) -> None:
        self._anchor = anchor
        self._period = period

    def after(self, wall: datetime) -> datetime | None:
        step = self._period - (wall - self._anchor) % self._period
        return wall + step if step <= datetime.max - wall else None

    def until(self, wall: datetime) -> datetime | None:
        step = (wall - self._anchor) % self._period
        return wall - step if step <= wall - datetime.min else None

    def count(self, after: datetime, until: datetime) -> int:
        return (until - self._anchor) // self._period - (after - self._anchor) // self._period


class Ticks:
    """What every kind of timing can do, given `next_after` and `last_until`."""

    __slots__ = ()

    def next_after(self, instant: datetime) -> datetime | None:
        """The first tick strictly after the aware `instant`, in UTC; None when there is none."""
        raise NotImplementedError

    def last_until(self, instant: datetime) -> datetime | None:
        """The latest tick not after the aware `instant`, in UTC; None when there is none."""
        raise NotImplementedError

    def ticks(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """The ticks of `(after, until]`, ascending, in UTC."""
        tick = self.next_after(after)
        while tick is not None and tick <= until:
            yield tick
            tick = self.next_after(tick)


def load_zone(name: object, field: str = "timezone") -> ZoneInfo:
    """The IANA zone called `name`.

    Raises TimingError when there is no such zone.
    """
    if isinstance(name, str):
        try:
            return ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            pass
    raise TimingError(
        field, f'{str(name)[:60]!r} is not an IANA time zone; use a name such as "UTC" or "Europe/Berlin"'
    )


def as_utc(instant: datetime) -> datetime:
    """`instant` in UTC.

    Raises ValueError when it is naive: a naive instant would silently be read in the host's zone.
    """
    if instant.tzinfo is UTC:
        return instant
    if instant.tzinfo is None:
        raise ValueError("naive datetime given where an instant is needed; attach a time zone")
    if instant.year in (1, 9999):  # may not be representable in UTC
        return EARLIEST - _DAY if instant.year == 1 else LATEST + _DAY
    return instant.astimezone(UTC)


def occurrences(wall: datetime, zone: tzinfo) -> tuple[datetime, ...]:
    """The instants at which clocks in `zone` show `wall`: none, one or two, ascending."""
    first, second = _offsets(wall, zone)
    if first == second:
        return ((wall - first).replace(tzinfo=UTC),)
    if first > second:
        return (wall - first).replace(tzinfo=UTC), (wall - second).replace(tzinfo=UTC)
    return ()


def first_valid(wall: datetime, zone: tzinfo) -> datetime:
    """The first instant at which clocks in `zone` show `wall`, or the end of the gap that swallows it."""
    first, second = _offsets(wall, zone)
    if first >= second:
        return (wall - first).replace(tzinfo=UTC)
    return _transition(zone, (wall - second).replace(tzinfo=UTC), (wall - first).replace(tzinfo=UTC))


def next_instant(walls: Walls, zone: tzinfo, rule: Rule, instant: datetime) -> datetime | None:
    """The first instant strictly after `instant` that `walls` name in `zone` under `rule`."""
    instant = max(as_utc(instant), EARLIEST)
    if instant >= LATEST:
        return None
    if zone is UTC:
        nominal = walls.after(instant.replace(tzinfo=None))
        return nominal.replace(tzinfo=UTC) if nominal is not None and nominal <= _LATEST_WALL else None
    local = instant.astimezone(zone)
    wall = local.replace(tzinfo=None, fold=0)
    nominal = walls.after(wall)
    if rule is Rule.FOLLOW and not local.fold:
        offset, later = _offsets(wall, zone)
        if offset > later:
            # Clocks go back within `offset - later` and then show walls up to this one a second time.
            turn = _transition(zone, instant, instant + (offset - later))
            if nominal is not None and nominal < _wall(turn, offset):
                return (nominal - offset).replace(tzinfo=UTC)
            nominal = walls.after(_wall(turn, later) - _TICK)
    horizon = _LATEST_WALL if wall >= _LATEST_WALL - _CYCLE else wall + _CYCLE
    while nominal is not None and nominal <= horizon:
        found = _project(nominal, zone, rule)
        for candidate in found:
            if candidate > instant:
                return candidate
        nominal = walls.after(nominal if found else _gap_end(nominal, zone) - _TICK)
    return None


def last_instant(walls: Walls, zone: tzinfo, rule: Rule, instant: datetime) -> datetime | None:
    """The latest instant not after `instant` that `walls` name in `zone` under `rule`."""
    instant = min(as_utc(instant), LATEST)
    if instant < EARLIEST:
        return None
    if zone is UTC:
        nominal = walls.until(instant.replace(tzinfo=None))
        return nominal.replace(tzinfo=UTC) if nominal is not None and nominal >= _EARLIEST_WALL else None
    local = instant.astimezone(zone)
    wall = local.replace(tzinfo=None, fold=0)
    if not local.fold:
        nominal = walls.until(wall)
    else:
        earlier, offset = _offsets(wall, zone)
        turn = _transition(zone, instant - (earlier - offset), instant)
        first_pass_end = _wall(turn, earlier) - _TICK
        if rule is not Rule.FOLLOW:
            nominal = walls.until(first_pass_end)
        else:
            nominal = walls.until(wall)
            if nominal is None or nominal < _wall(turn, offset):
                nominal = walls.until(first_pass_end)
    while nominal is not None and nominal >= _EARLIEST_WALL:
        for candidate in reversed(_project(nominal, zone, rule)):
            if candidate <= instant:
                return candidate
        nominal = walls.until(nominal - _TICK)
    return None


def count_instants(walls: Walls, zone: tzinfo, rule: Rule, after: datetime, until: datetime) -> int | None:
    """How many instants of `(after, until]` `walls` name in `zone` under `rule`; None when that is not cheap.

    The range is cut where the offset changes (looked for once a day, so that two changes within one day that
    cancel each other are not seen), and the walls of each piece are counted without walking them.
    """
    after, until = max(as_utc(after), EARLIEST), min(as_utc(until), LATEST)
    if until <= after:
        return 0
    if zone is UTC:
        return walls.count(after.replace(tzinfo=None), until.replace(tzinfo=None))
    if until - after > _PROBED_DAYS * _DAY:
        return None
    total = 0
    offset = _offset(after, zone)
    seen = _wall(after, offset)  # everything up to and including this wall has been counted
    if rule is not Rule.FOLLOW:
        seen = max(seen, _last_wall(after, zone))
    cursor = after
    while cursor < until:
        probe = min(cursor + _DAY, until)
        changed = _offset(probe, zone)
        if changed != offset:
            turn = _transition(zone, cursor, probe)
            changed = _offset(turn, zone)
            end, start = _wall(turn, offset) - _TICK, _wall(turn, changed)
            total += max(0, walls.count(seen, end))
            if rule is Rule.FOLLOW:
                seen = start - _TICK
            else:
                seen = max(seen, end)
                if rule is Rule.RUN and start > end and walls.count(end, start):
                    total += 1
                    seen = start
                elif start > end:
                    seen = start - _TICK
            offset, probe = changed, turn
        cursor = probe
    return total + max(0, walls.count(seen, _wall(until, offset)))


def skipped_wall(walls: Walls, zone: tzinfo, rule: Rule, instant: datetime) -> datetime | None:
    """The latest wall named by `walls` in the gap that ends exactly at `instant`, when `rule` moved it there."""
    if rule is not Rule.RUN or zone is UTC:
        return None
    instant = as_utc(instant)
    if not EARLIEST < instant <= LATEST:
        return None
    before, offset = _offset(instant - _TICK, zone), _offset(instant, zone)
    if offset <= before:
        return None
    wall = walls.until(_wall(instant, offset) - _TICK)
    return wall if wall is not None and wall >= _wall(instant, before) else None


def _last_wall(instant: datetime, zone: tzinfo) -> datetime:
    """The latest wall that clocks have shown up to `instant`, when they have just gone back."""
    local = instant.astimezone(zone)
    wall = local.replace(tzinfo=None, fold=0)
    if not local.fold:
        return wall
    earlier, offset = _offsets(wall, zone)
    return _wall(_transition(zone, instant - (earlier - offset), instant), earlier) - _TICK


def _gap_end(wall: datetime, zone: tzinfo) -> datetime:
    """The first wall after the gap in which `wall` lies."""
    return first_valid(wall, zone).astimezone(zone).replace(tzinfo=None, fold=0)


def _project(wall: datetime, zone: tzinfo, rule: Rule) -> tuple[datetime, ...]:
    found = occurrences(wall, zone)
    if rule is Rule.FOLLOW:
        return found
    if found or rule is Rule.SKIP:
        return found[:1]
    return (first_valid(wall, zone),)


def _offsets(wall: datetime, zone: tzinfo) -> tuple[timedelta, timedelta]:
    """The offsets of both readings of `wall` (PEP 495): equal, falling when repeated, rising when absent."""
    first, second = zone.utcoffset(wall), zone.utcoffset(wall.replace(fold=1))
    return cast(timedelta, first), cast(timedelta, second)


def _offset(instant: datetime, zone: tzinfo) -> timedelta:
    return cast(timedelta, instant.astimezone(zone).utcoffset())


def _wall(instant: datetime, offset: timedelta) -> datetime:
    return instant.replace(tzinfo=None) + offset


def _transition(zone: tzinfo, before: datetime, after: datetime) -> datetime:
    """The instant in `(before, after]` at which the offset changes; zone data has whole seconds."""
    offset = _offset(before, zone)
    low, high = before.replace(microsecond=0), after.replace(microsecond=0)
    while high - low > _SECOND:
        middle = low + (high - low) // 2
        middle = middle.replace(microsecond=0)
        if _offset(middle, zone) == offset:
            low = middle
        else:
            high = middle
    return high
