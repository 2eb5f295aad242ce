"""The plan of one schedule: its timing within limits, its calendars and its jitter. Pure.

This is the one evaluator: dispatch, preview, backfill and simulation all ask it, so that what a person is shown is
what will happen.

    >>> plan = Plan(timing=parse({"type": "crontab", "expression": "0 9 * * *"}), ends_at=datetime(2027, 1, 1, tzinfo=UTC))
    >>> plan.next_after(datetime(2026, 12, 31, 9, tzinfo=UTC)) is None
    True

Limits are inclusive and tested against nominal times. A tick that a calendar excludes remains a tick: it is decided
like any other, and recorded as skipped.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, tzinfo
from hashlib import blake2b
from typing import Protocol
from uuid import UUID

from app.scheduling.timing import Interval, OneOff, Timing
from app.scheduling.walltime import Ticks, TimingError, as_utc, load_zone

__all__ = ["Calendar", "Jitter", "Plan"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_NOTHING = timedelta(0)


class Calendar(Protocol):
    """A named set of excluded dates."""

    @property
    def name(self) -> str:
        """As schedules refer to it."""

    def excludes(self, day: date) -> bool:
        """Whether ticks of this local date are skipped."""


@dataclass(frozen=True, slots=True)
class Jitter:
    """How far ticks are spread: within `window`, or within a `share` of the distance to the next tick.

    Raises ValueError unless exactly one is given, `window` is positive and `share` lies between 0 and 1, both excluded.
    """

    window: timedelta | None = None
    share: float | None = None

    def __post_init__(self) -> None:
        if (self.window is None) == (self.share is None):
            raise ValueError("give either a window or a share")
        if self.window is not None and self.window <= _NOTHING:
            raise ValueError("the window must be positive; leave jitter out for none")
        if self.share is not None and not 0 < self.share < 1:
            raise ValueError("the share must lie between 0 and 1; leave jitter out for none")

    def width(self, distance: timedelta | None) -> timedelta:
        """The span over which ticks are spread, `distance` before the next tick; None when no tick follows."""
        if self.window is not None:
            return self.window if distance is None else min(self.window, distance)
        return _NOTHING if distance is None or self.share is None else distance * self.share


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan(Ticks):
    """When a schedule is to run. All instants are aware; `starts_at` and `ends_at` are inclusive, and nominal.

    Raises TimingError, which names the field, when `ends_at` lies before `starts_at`, when a limit is naive, or
    when a one-off, which has no period, has a jitter that is a share of it.
    """

    timing: Timing
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    calendars: tuple[Calendar, ...] = ()
    jitter: Jitter | None = None
    _zone: tzinfo = field(init=False, repr=False, compare=False)
    _unlimited: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        name = self.timing.timezone or "UTC"
        object.__setattr__(self, "_zone", UTC if name == "UTC" else load_zone(name))
        object.__setattr__(self, "_unlimited", self.starts_at is None and self.ends_at is None)
        for limit in ("starts_at", "ends_at"):
            given = getattr(self, limit)
            if given is not None:
                if given.tzinfo is None:
                    raise TimingError(limit, 'has no offset; add "Z" or one such as "+01:00"')
                object.__setattr__(self, limit, as_utc(given))
        if self.starts_at is not None and self.ends_at is not None and self.ends_at < self.starts_at:
            raise TimingError("ends_at", "lies before starts_at; give a later time, or an earlier starts_at")
        if isinstance(self.timing, OneOff) and self.jitter is not None and self.jitter.share is not None:
            raise TimingError("jitter", "a share needs a period, which a one-off does not have; give seconds")

    @property
    def zone(self) -> tzinfo:
        """The zone in which people read this plan: that of its timing, UTC where it has none."""
        return self._zone

    @property
    def estimated(self) -> bool:
        """Whether ticks beyond the next depend on when runs end, so that `next_after` can only estimate them."""
        return isinstance(self.timing, Interval) and self.timing.fixed_delay

    def next_after(self, instant: datetime) -> datetime | None:
        """The first tick strictly after `instant` within the limits; a fixed delay starts no earlier than they do."""
        if self._unlimited:
            return self.timing.next_after(instant)
        instant = as_utc(instant)
        if self.estimated or self.starts_at is None or self.starts_at <= instant:
            return self._limited(self.timing.next_after(instant))
        return self._limited(self.timing.next_after(self.starts_at - _MICROSECOND))

    def last_until(self, instant: datetime) -> datetime | None:
        """The latest tick not after `instant` within the limits; None for a fixed delay."""
        if self._unlimited:
            return self.timing.last_until(instant)
        until = as_utc(instant) if self.ends_at is None else min(as_utc(instant), self.ends_at)
        tick = self.timing.last_until(until)
        return None if tick is not None and self.starts_at is not None and tick < self.starts_at else tick

    def count(self, after: datetime, until: datetime) -> int | None:
        """How many ticks lie in `(after, until]`; None where the timing cannot say cheaply, 0 for a fixed delay."""
        if self._unlimited:
            return self.timing.count(after, until)
        after, until = self._within(after, until)
        return self.timing.count(after, until) if after < until else 0

    def ticks(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """The ticks of `(after, until]`, ascending; none for a fixed delay."""
        return self.timing.ticks(*self._within(after, until))

    def first_tick(self, now: datetime) -> datetime | None:
        """Where the clock of a schedule that is saved at `now` is set; None when no tick is left.

        A one-off that may run in the past (`run_if_past`) ticks at `now` then, if the limits allow that.
        """
        if isinstance(self.timing, OneOff) and self.timing.run_if_past and self.timing.at <= now:
            now = as_utc(now)
            early = self.starts_at is not None and now < self.starts_at
            return None if early or (self.ends_at is not None and now > self.ends_at) else now
        return self.next_after(now)

    def after_end(self, ended_at: datetime) -> datetime | None:
        """The tick of a fixed delay that follows a run which ended at `ended_at`; None beyond the limits.

        Raises ValueError for any other timing: its ticks do not depend on runs.
        """
        if not isinstance(self.timing, Interval) or not self.timing.fixed_delay:
            raise ValueError("only a fixed delay counts from the end of a run")
        return self._limited(self.timing.after_end(ended_at))

    def excluded_by(self, tick: datetime) -> str | None:
        """The name of the first calendar that excludes the tick's date, read in `zone`."""
        if not self.calendars:
            return None
        day = tick.astimezone(self._zone).date()
        return next((calendar.name for calendar in self.calendars if calendar.excludes(day)), None)

    def due_at(self, schedule_id: UUID, tick: datetime) -> datetime:
        """When the run of `tick` becomes eligible: the tick plus its jitter, always before the next tick.

        The offset is a function of schedule and tick, so every beat computes the same, before and after a crash.
        The tick that follows is the timing's own, so that it does not change when a limit is edited.
        """
        if self.jitter is None:
            return tick
        following = self.timing.next_after(tick)
        width = self.jitter.width(None if following is None else following - tick) // _MICROSECOND
        instant = (tick - _EPOCH) // _MICROSECOND
        key = schedule_id.bytes + instant.to_bytes(8, "big", signed=True)
        share = int.from_bytes(blake2b(key, digest_size=8, person=b"jitter").digest(), "big")
        return tick + (share * width >> 64) * _MICROSECOND

    def _within(self, after: datetime, until: datetime) -> tuple[datetime, datetime]:
        """The part of `(after, until]` that lies within the limits."""
        if self.starts_at is not None:
            after = max(as_utc(after), self.starts_at - _MICROSECOND)
        if self.ends_at is not None:
            until = min(as_utc(until), self.ends_at)
        return after, until

    def _limited(self, tick: datetime | None) -> datetime | None:
        if tick is not None and self.starts_at is not None and tick < self.starts_at:
            tick = self.starts_at  # only a fixed delay can be early: it begins when it may
        return None if tick is None or (self.ends_at is not None and tick > self.ends_at) else tick
