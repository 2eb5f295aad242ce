"""The ticks of a schedule: crontab, interval and one-off. Pure: no clock, no database.

`parse` turns the object stored as `schedule` into a frozen value whose ticks can be asked for:

    >>> timing = parse({"type": "crontab", "expression": "30 2 * * *", "timezone": "Europe/Berlin"})
    >>> timing.next_after(datetime(2026, 3, 29, 0, tzinfo=UTC)).isoformat()
    '2026-03-29T01:00:00+00:00'

Every instant that comes out is a UTC-aware datetime of whole seconds (a fixed delay's is exact); every instant that goes in must be aware
(ValueError otherwise). Crontab follows Vixie and Debian cron, intervals the phase of Temporal and the anchor of
Prefect: an anchor only fixes the phase, it is neither a start nor an end.
"""

# ruff: noqa: DTZ001 (a wall is naive: that is what tells it from an instant)

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Any, Literal, cast, get_args
from zoneinfo import ZoneInfo

from app.scheduling.crontab import DayMatch, Pattern, canonical, pattern
from app.scheduling.keys import bounded, choice, flag, instant_at, iso, moment_at, required, shown, zone_name
from app.scheduling.walltime import (
    LATEST,
    Periods,
    Rule,
    Ticks,
    TimingError,
    as_utc,
    count_instants,
    first_valid,
    last_instant,
    load_zone,
    next_instant,
    occurrences,
    skipped_wall,
)

__all__ = ["Crontab", "Interval", "OneOff", "Timing", "TimingError", "parse", "parse_cached", "refuse_past"]

DstGap = Literal["run", "skip"]
Unit = Literal["seconds", "minutes", "hours", "days", "weeks"]

MAX_PERIOD = timedelta(days=3653)

_SECONDS = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86_400, "weeks": 604_800}
_EPOCH = datetime(1970, 1, 1)
# Zone data has no rule beyond its last listed change (2087 today) but those that hold for ever.
_FOR_EVER = datetime(2100, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Crontab(Ticks):
    """Wall times named by a five-field cron expression in a zone.

    `expression` is canonical (five upper-case fields, single spaces). `day_match` says whether day-of-month and
    day-of-week must both match (`and`) or follow Vixie's rule (`or`: either one, when neither starts with `*`).
    `dst_gap` says whether a fixed wall time inside a DST gap runs at the gap's end or not at all.
    """

    expression: str
    timezone: str = "UTC"
    day_match: DayMatch = "or"
    dst_gap: DstGap = "run"
    _walls: Pattern = field(init=False, repr=False, compare=False)
    _zone: tzinfo = field(init=False, repr=False, compare=False)
    _rule: Rule = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "expression", canonical(self.expression))
        object.__setattr__(self, "_walls", pattern(self.expression, self.day_match))
        object.__setattr__(self, "_zone", UTC if self.timezone == "UTC" else load_zone(self.timezone))
        fixed = Rule.RUN if self.dst_gap == "run" else Rule.SKIP
        object.__setattr__(self, "_rule", Rule.FOLLOW if self._walls.wildcard else fixed)
        if self._rule is not Rule.RUN and self.next_after(_FOR_EVER) is None:
            raise TimingError(
                "expression",
                f"never matches: clocks in {self.timezone} always skip this time; choose a time outside the DST gap, "
                'or fixed hours and minutes with dst_gap "run"',
            )

    def next_after(self, instant: datetime) -> datetime | None:
        return next_instant(self._walls, self._zone, self._rule, instant)

    def last_until(self, instant: datetime) -> datetime | None:
        return last_instant(self._walls, self._zone, self._rule, instant)

    def count(self, after: datetime, until: datetime) -> int | None:
        """How many ticks lie in `(after, until]`; None for ranges too long to count cheaply (400 days)."""
        return count_instants(self._walls, self._zone, self._rule, after, until)

    @property
    def follows_real_time(self) -> bool:
        """Whether minute or hour starts with `*`: absent times are skipped then, and repeated ones run again."""
        return self._walls.wildcard

    def skipped_wall(self, tick: datetime) -> datetime | None:
        """The local time, absent that day, for which `tick` at the end of its DST gap stands; None for others."""
        return skipped_wall(self._walls, self._zone, self._rule, tick)

    def as_dict(self) -> dict[str, Any]:
        return {
            "type": "crontab",
            "expression": self.expression,
            "timezone": self.timezone,
            "day_match": self.day_match,
            "dst_gap": self.dst_gap,
        }


@dataclass(frozen=True, slots=True)
class Interval(Ticks):
    """`anchor + n × every` for every whole n, negative ones too.

    Up to hours, time elapses; days and weeks keep the anchor's wall time in `timezone`, where an absent wall time
    counts at the end of its gap and a repeated one at its first occurrence. `anchor` is in UTC, whole seconds.

    With `fixed_delay` the next tick is known only when the run before has ended: `after_end` names it, exactly
    `every` later. The delay is elapsed time in every unit (a day is 24 hours) and has no anchor. Such an interval
    has no ticks of its own to look back on: `last_until` is None, `count` 0 and `ticks` empty, while `next_after`
    answers `instant + every`, which is the first tick of a new schedule and an estimate of any later one.
    """

    every: int
    unit: Unit
    anchor: datetime
    timezone: str = "UTC"
    fixed_delay: bool = False
    _zone: tzinfo = field(init=False, repr=False, compare=False)
    _walls: Periods = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        keeps_wall_time = self.unit in ("days", "weeks") and self.timezone != "UTC"
        zone = load_zone(self.timezone) if keeps_wall_time else UTC
        anchor = self.anchor.astimezone(zone).replace(tzinfo=None, fold=0)
        object.__setattr__(self, "_zone", zone)
        object.__setattr__(self, "_walls", Periods(anchor, self.delay))

    @property
    def delay(self) -> timedelta:
        """`every` as elapsed time."""
        return timedelta(seconds=self.every * _SECONDS[self.unit])

    def after_end(self, ended_at: datetime) -> datetime:
        """The tick of a fixed delay that follows a run which ended at `ended_at`: exactly `every` later, in UTC."""
        return as_utc(ended_at) + self.delay

    def next_after(self, instant: datetime) -> datetime | None:
        if self.fixed_delay:
            return self.after_end(instant) if as_utc(instant) <= LATEST - self.delay else None
        return next_instant(self._walls, self._zone, Rule.RUN, instant)

    def last_until(self, instant: datetime) -> datetime | None:
        if self.fixed_delay:
            as_utc(instant)
            return None
        return last_instant(self._walls, self._zone, Rule.RUN, instant)

    def count(self, after: datetime, until: datetime) -> int | None:
        """How many ticks lie in `(after, until]`; None for wall-time ranges of more than 400 days."""
        if self.fixed_delay:
            return 0
        return count_instants(self._walls, self._zone, Rule.RUN, after, until)

    def ticks(self, after: datetime, until: datetime) -> Iterator[datetime]:
        return iter(()) if self.fixed_delay else Ticks.ticks(self, after, until)

    def skipped_wall(self, tick: datetime) -> datetime | None:
        """The local time, absent that day, for which `tick` at the end of its DST gap stands; None for others."""
        return None if self.fixed_delay else skipped_wall(self._walls, self._zone, Rule.RUN, tick)

    def as_dict(self) -> dict[str, Any]:
        stored = {"type": "interval", "every": self.every, "unit": self.unit}
        phase = {"fixed_delay": True} if self.fixed_delay else {"anchor": iso(self.anchor)}
        return {**stored, **phase, "timezone": self.timezone}


@dataclass(frozen=True, slots=True)
class OneOff(Ticks):
    """A single instant, `at`, in UTC and whole seconds.

    `timezone` is the zone in which it was asked for, kept for display. `run_if_past` allows it to lie in the past
    when it is saved (see `refuse_past`).
    """

    at: datetime
    timezone: str | None = None
    run_if_past: bool = False

    def next_after(self, instant: datetime) -> datetime | None:
        return self.at if self.at > as_utc(instant) else None

    def last_until(self, instant: datetime) -> datetime | None:
        return self.at if self.at <= as_utc(instant) else None

    def count(self, after: datetime, until: datetime) -> int | None:
        return int(as_utc(after) < self.at <= as_utc(until))

    def skipped_wall(self, tick: datetime) -> datetime | None:
        """None: a local time that does not exist is no one-off."""
        return None

    def as_dict(self) -> dict[str, Any]:
        stored: dict[str, Any] = {"type": "one_off", "at": iso(self.at)}
        if self.timezone is not None:
            stored["timezone"] = self.timezone
        if self.run_if_past:
            stored["run_if_past"] = True
        return stored


Timing = Crontab | Interval | OneOff


def parse(schedule: Mapping[str, Any]) -> Timing:
    """The timing that a `schedule` object, as sent or as stored, describes.

    `{"type": "crontab", "expression", "timezone"?, "day_match"?: "or" | "and", "dst_gap"?: "run" | "skip"}`
    `{"type": "interval", "every": int >= 1, "unit": "seconds" … "weeks", "anchor"?, "timezone"?}`
    `{"type": "interval", "every": int >= 1, "unit": …, "fixed_delay": true, "timezone"?}`
    `{"type": "one_off", "at", "timezone"?, "run_if_past"?: bool}`

    Raises TimingError, which names the key, for anything unknown, missing, mistyped or impossible.
    """
    if not isinstance(schedule, Mapping):
        raise TimingError("schedule", 'must be an object with a "type": "crontab", "interval" or "one_off"')
    kind = schedule.get("type")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise TimingError(
            "type", f"{shown(kind)} is not a kind of schedule; use crontab, interval or one_off"
        )
    build, keys = _KINDS[kind]
    for key in schedule:
        if key != "type" and key not in keys:
            raise TimingError(
                str(key)[:80],
                f"is not a key of a schedule of type {kind}; remove it, or use one of {', '.join(keys)}",
            )
    return build(schedule)


@lru_cache(maxsize=4096)
def parse_cached(text: str) -> Timing:
    """`parse` of a JSON text. Timings are immutable, so all schedules of equal text share one.

    Raises TimingError, for text that is not JSON too; errors are not cached.
    """
    try:
        schedule = json.loads(text)
    except (ValueError, RecursionError):
        raise TimingError("schedule", "is not valid JSON; send an object such as parse() describes") from None
    return parse(schedule)


def refuse_past(timing: Timing, now: datetime) -> None:
    """Raises TimingError("at") for a one-off that would never fire at `now`, unless it says `run_if_past`."""
    if isinstance(timing, OneOff) and not timing.run_if_past and timing.at <= as_utc(now):
        raise TimingError(
            "at", f"{iso(timing.at)} is in the past; give a later time, or set run_if_past to true"
        )


def _crontab(schedule: Mapping[str, Any]) -> Crontab:
    return Crontab(
        expression=canonical(required(schedule, "expression", "five fields such as 0 */2 * * *")),
        timezone=zone_name(schedule),
        day_match=choice(schedule, "day_match", get_args(DayMatch), "or"),
        dst_gap=choice(schedule, "dst_gap", get_args(DstGap), "run"),
    )


def _interval(schedule: Mapping[str, Any]) -> Interval:
    every = required(schedule, "every", "a whole number")
    if not isinstance(every, int) or isinstance(every, bool) or every < 1:
        raise TimingError("every", f"{shown(every)} is not a whole number from 1 up; give one, with its unit")
    required(schedule, "unit", f"one of {', '.join(_SECONDS)}")
    unit = cast(Unit, choice(schedule, "unit", _SECONDS, ""))
    if every > MAX_PERIOD // timedelta(seconds=_SECONDS[unit]):
        raise TimingError(
            "every", f"is longer than {MAX_PERIOD.days} days; give a shorter period, or use a crontab"
        )
    timezone, fixed_delay = zone_name(schedule), flag(schedule, "fixed_delay")
    given = schedule.get("anchor")
    if fixed_delay:
        if given is not None:
            raise TimingError(
                "anchor", "means nothing to a fixed delay, which counts from each run's end; remove it"
            )
        anchor = _EPOCH.replace(tzinfo=UTC)
    elif given is not None:
        anchor = moment_at(given, "anchor")
        if anchor.tzinfo is None:
            raise TimingError("anchor", 'has no offset; add "Z" or one such as "+01:00"')
        anchor = instant_at(anchor, "anchor")
    elif unit in ("days", "weeks"):
        anchor = first_valid(_EPOCH, load_zone(timezone))
    else:
        anchor = _EPOCH.replace(tzinfo=UTC)
    return Interval(
        every=every,
        unit=unit,
        anchor=anchor.replace(microsecond=0),
        timezone=timezone,
        fixed_delay=fixed_delay,
    )


def _one_off(schedule: Mapping[str, Any]) -> OneOff:
    at = moment_at(required(schedule, "at", "the time at which to run"), "at")
    timezone = schedule.get("timezone")
    zone = None if timezone is None else load_zone(timezone)
    run_if_past = flag(schedule, "run_if_past")
    if at.tzinfo is not None:
        instant = instant_at(at, "at")
    elif zone is None:
        raise TimingError(
            "at", 'has neither offset nor timezone; add "Z", an offset such as "+01:00", or a timezone'
        )
    else:
        instant = _local_instant(at, zone)
    if instant.microsecond:
        # Never early: a fraction waits for the next whole second.
        instant = instant.replace(microsecond=0) + timedelta(seconds=1)
    return OneOff(at=instant, timezone=timezone, run_if_past=run_if_past)


def _local_instant(at: datetime, zone: ZoneInfo) -> datetime:
    bounded(at.replace(tzinfo=UTC), "at")
    found = occurrences(at, zone)
    if not found:
        later = first_valid(at, zone).astimezone(zone)
        raise TimingError(
            "at",
            f"{at.isoformat()} does not exist in {zone.key}, where clocks go forward; the first valid time after it "
            f"is {later.isoformat()}",
        )
    if len(found) == 2:
        choices = " or ".join(instant.astimezone(zone).isoformat() for instant in found)
        raise TimingError(
            "at", f"{at.isoformat()} happens twice in {zone.key}; say which with an offset: {choices}"
        )
    return found[0]


_KINDS: dict[str, tuple[Callable[[Mapping[str, Any]], Timing], tuple[str, ...]]] = {
    "crontab": (_crontab, ("expression", "timezone", "day_match", "dst_gap")),
    "interval": (_interval, ("every", "unit", "anchor", "timezone", "fixed_delay")),
    "one_off": (_one_off, ("at", "timezone", "run_if_past")),
}
