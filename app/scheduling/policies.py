"""What to do with the ticks that have come: catch-up, overlap, retry back-off. Pure: no clock, no database.

`fire` is called by a beat that holds the schedule's row locked, with the database's clock as `now`; its answer
accounts for every tick of `[next_run_at, now]` exactly once, either one by one (`Firing.ticks`) or as a range
(`Firing.missed`). Policy names are Temporal's where it has them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import blake2b
from itertools import chain
from uuid import UUID

from app.scheduling.timing import Timing

# Ticks older than this when they are decided are subject to catch-up; younger ones all fire.
CATCH_UP_AFTER = timedelta(seconds=10)

_JUST_BEFORE = timedelta(microseconds=1)


class Overlap(StrEnum):
    """What happens to a tick while a scheduled run of the same schedule is active."""

    SKIP = "skip"
    ALLOW_ALL = "allow_all"


class CatchUp(StrEnum):
    """Which of the ticks that passed unnoticed fire afterwards."""

    NONE = "none"
    LATEST = "latest"
    ALL = "all"


class Reason(StrEnum):
    """Why a tick or a run did not execute, or did not end by itself: the answer to "why didn't it run?"."""

    # Decided when the tick was fired.
    OVERLAP = "overlap"
    """An earlier run of the schedule was active, or `max_concurrent` of them were."""
    PAUSED = "paused"
    """The schedule was paused when the tick passed."""
    CALENDAR = "calendar"
    """The date is excluded by one of the schedule's calendars."""
    BUFFER_FULL = "buffer_full"
    """As many ticks as the overlap policy keeps were already waiting."""
    LIMIT_REACHED = "limit_reached"
    """The schedule had used up its `max_runs`."""
    MISSED = "missed"
    """Passed unnoticed, and catch-up is `none`, or `latest` and a newer tick stands for it."""
    CATCHUP_WINDOW = "catchup_window"
    """Passed unnoticed, and was older than `catchup_window` when that was seen."""
    CATCHUP_LIMIT = "catchup_limit"
    """Passed unnoticed, and `max_catchup_runs` newer ticks were caught up with."""

    # Decided while the run was waiting.
    DEADLINE = "deadline"
    """Not started within the start deadline."""
    TASK_NOT_REGISTERED = "task_not_registered"
    """No worker knows a task of this name."""
    TASK_NOT_SCHEDULABLE = "task_not_schedulable"
    """The task says `schedulable=False`."""
    INVALID_ARGUMENTS = "invalid_arguments"
    """The arguments do not fit the task's signature."""
    CANCELLED_BY_USER = "cancelled_by_user"
    """Somebody cancelled it."""
    PURGED = "purged"
    """Its queue was purged."""
    UPSTREAM_FAILED = "upstream_failed"
    """A run that it was to follow, in a chain or chord, did not succeed."""

    # Decided while it was running.
    WORKER_LOST = "worker_lost"
    """Its worker died or lost contact, and no attempt was left."""
    HARD_LIMIT = "hard_limit"
    """It ran past its hard time limit."""
    REPLACED = "replaced"
    """The task put another one in its place, which goes on under its Celery id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """The policies of one schedule. Raises ValueError for values that make no sense.

    `max_concurrent` concerns `allow_all` only; None is no limit. `start_deadline` counts from when a run becomes
    eligible; None is no deadline.
    """

    overlap: Overlap = Overlap.SKIP
    max_concurrent: int | None = None
    catch_up: CatchUp = CatchUp.LATEST
    catchup_window: timedelta = timedelta(hours=1)
    max_catchup_runs: int = 100
    start_deadline: timedelta | None = timedelta(hours=1)

    def __post_init__(self) -> None:
        if self.max_concurrent is not None and self.max_concurrent < 1:
            raise ValueError("max_concurrent must be at least 1; leave it out for no limit")
        if self.catchup_window < timedelta(0):
            raise ValueError(
                "catchup_window must not be negative; use catch_up none to catch up with nothing"
            )
        if self.max_catchup_runs < 1:
            raise ValueError(
                "max_catchup_runs must be at least 1; use catch_up none to catch up with nothing"
            )
        if self.start_deadline is not None and self.start_deadline <= timedelta(0):
            raise ValueError("start_deadline must be positive; leave it out for none")


@dataclass(frozen=True, slots=True)
class Tick:
    """One decided tick: it runs when `reason` is None, and is recorded as skipped otherwise."""

    scheduled_for: datetime
    reason: Reason | None


@dataclass(frozen=True, slots=True)
class MissedRange:
    """The ticks from `first` to `last`, both inclusive and both ticks, that nobody decided one by one.

    `count` is None when counting them would cost too much.
    """

    first: datetime
    last: datetime
    count: int | None
    reason: Reason


@dataclass(frozen=True, slots=True)
class Firing:
    """What becomes of the ticks of `[next_run_at, now]`, and the new `next_run_at`.

    `next_run_at` is None when no tick will ever follow. It is not later than `now` only when `limit` was reached:
    it is then the first undecided tick.
    """

    ticks: tuple[Tick, ...]
    missed: tuple[MissedRange, ...]
    next_run_at: datetime | None


def fire(
    timing: Timing, policies: Policies, *, next_run_at: datetime, now: datetime, active: int, limit: int = 100
) -> Firing:
    """Decides every tick in `[next_run_at, now]`.

    `next_run_at` counts as a tick whatever `timing` says of it. `active` is the number of scheduled runs of this
    schedule that are queued, running or awaiting a retry. At most `limit` ticks are decided one by one; the cost
    depends on these, not on how many were missed. All instants are aware.
    """
    if next_run_at > now:
        return Firing((), (), next_run_at)
    missed, decided = _catch_up(timing, policies, next_run_at, now)
    running = 0
    ticks: list[Tick] = []
    for tick in decided:
        if len(ticks) >= limit:
            return Firing(tuple(ticks), missed, tick)
        blocked = _overlaps(policies, active + running)
        running += not blocked
        ticks.append(Tick(tick, Reason.OVERLAP if blocked else None))
    return Firing(tuple(ticks), missed, timing.next_after(now))


def _overlaps(policies: Policies, active: int) -> bool:
    if policies.overlap is Overlap.SKIP:
        return active > 0
    return policies.max_concurrent is not None and active >= policies.max_concurrent


def _catch_up(
    timing: Timing, policies: Policies, first: datetime, now: datetime
) -> tuple[tuple[MissedRange, ...], Iterator[datetime]]:
    """The missed ranges, and the ticks that fire (lazily), both ascending."""
    threshold = now - CATCH_UP_AFTER
    if first >= threshold:
        return (), chain((first,), timing.ticks(first, now))
    past = _Past(timing, first)
    newest = past.before(threshold) or first
    young = timing.ticks(newest, now)
    if policies.catch_up is CatchUp.NONE:
        return (past.missed(first, newest, Reason.MISSED),), young
    if now - newest > policies.catchup_window:
        return (past.missed(first, newest, Reason.CATCHUP_WINDOW),), young
    wanted = 1 if policies.catch_up is CatchUp.LATEST else policies.max_catchup_runs
    oldest, behind = newest, past.before(newest)
    kept = [oldest]
    while behind is not None and len(kept) < wanted and now - behind <= policies.catchup_window:
        kept.append(behind)
        behind = past.before(behind)
    kept.reverse()
    if behind is None:
        return (), chain(kept, young)
    if policies.catch_up is CatchUp.LATEST:
        return (past.missed(first, behind, Reason.MISSED),), chain(kept, young)
    return past.beyond(behind, now - policies.catchup_window), chain(kept, young)


@dataclass(frozen=True, slots=True)
class _Past:
    """The ticks from `first` on, which counts as one even if `timing` no longer names it."""

    timing: Timing
    first: datetime

    def before(self, instant: datetime) -> datetime | None:
        """The latest tick strictly before `instant`."""
        if instant <= self.first:
            return None
        tick = self.timing.last_until(instant - _JUST_BEFORE)
        return self.first if tick is None or tick < self.first else tick

    def missed(self, first: datetime, last: datetime, reason: Reason) -> MissedRange:
        more = self.timing.count(first, last)
        return MissedRange(first, last, None if more is None else more + 1, reason)

    def beyond(self, last: datetime, window: datetime) -> tuple[MissedRange, ...]:
        """The ticks up to `last`: those before `window` were too old, the others too many."""
        too_old = self.before(window)
        if too_old is None:
            return (self.missed(self.first, last, Reason.CATCHUP_LIMIT),)
        if too_old >= last:
            return (self.missed(self.first, last, Reason.CATCHUP_WINDOW),)
        too_many = self.timing.next_after(too_old) or last
        return (
            self.missed(self.first, too_old, Reason.CATCHUP_WINDOW),
            self.missed(too_many, last, Reason.CATCHUP_LIMIT),
        )


@dataclass(frozen=True, slots=True)
class Retry:
    """Exponential back-off: attempt n is followed by `base × factor^(n - 1)`, at most `cap`, less some jitter.

    `jitter` is the share of the delay that may be taken off, 0 to 1, so a delay never exceeds `cap`.
    Raises ValueError for values that make no sense.
    """

    max_attempts: int = 1
    base: timedelta = timedelta(seconds=10)
    factor: float = 2.0
    cap: timedelta = timedelta(minutes=10)
    jitter: float = 0.1

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ValueError("max_attempts must be at least 1; the first try counts")
        if self.base < timedelta(0) or self.cap < timedelta(0):
            raise ValueError("base and cap must not be negative")
        if not 1 <= self.factor < float("inf"):
            raise ValueError("factor must be a finite number, at least 1")
        if not 0 <= self.jitter <= 1:
            raise ValueError("jitter must be between 0 and 1")

    def delay(self, attempt: int, seed: bytes | UUID) -> timedelta:
        """The wait between `attempt` (from 1) and the next; the same `seed` and attempt give the same delay."""
        if attempt < 1:
            raise ValueError("attempts are numbered from 1")
        try:
            nominal = min(self.base.total_seconds() * self.factor ** (attempt - 1), self.cap.total_seconds())
        except OverflowError:
            nominal = self.cap.total_seconds() if self.base else 0.0
        key = seed.bytes if isinstance(seed, UUID) else seed
        digest = blake2b(key + attempt.to_bytes(8, "big"), digest_size=8).digest()
        share = int.from_bytes(digest, "big") / 2**64
        return timedelta(seconds=nominal * (1 - self.jitter * share))
