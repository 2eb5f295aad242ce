"""What to do with the ticks that have come: catch-up, overlap, limits, retry back-off. Pure: no clock, no database.

`fire` is called by a beat that holds the schedule's row locked, with the database's clock as `now`; its answer
accounts for every tick of `[next_run_at, now]` exactly once, either one by one (`Firing.ticks`) or as a range
(`Firing.missed`). Policy names are Temporal's where it has them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import blake2b
from itertools import chain
from uuid import UUID

from app.scheduling.plan import Plan

# Ticks older than this when they are decided are subject to catch-up; younger ones all fire.
CATCH_UP_AFTER = timedelta(seconds=10)
# So many ticks wait at most under `buffer_all`.
MAX_WAITING = 100

# Why a schedule is completed that has ticks left.
LIMIT_REACHED = "max_runs was reached"

_JUST_BEFORE = timedelta(microseconds=1)


class Overlap(StrEnum):
    """What happens to a tick while a scheduled run of the same schedule is queued, running or to be retried."""

    SKIP = "skip"
    """It is recorded as skipped."""
    BUFFER_ONE = "buffer_one"
    """The first such tick waits, later ones are skipped."""
    BUFFER_LATEST = "buffer_latest"
    """The newest waits in place of the one before."""
    BUFFER_ALL = "buffer_all"
    """All wait, one after another, 100 at most."""
    CANCEL_OTHER = "cancel_other"
    """The active run is cancelled, and this one starts when it has ended."""
    ALLOW_ALL = "allow_all"
    """They run side by side, up to `max_concurrent` if that is set."""


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
    REPLACED = "replaced"
    """A newer tick took its place, as `buffer_latest` and `cancel_other` have it."""
    PAUSED = "paused"
    """The schedule was paused when the tick passed."""
    CALENDAR = "calendar"
    """The date is excluded by one of the schedule's calendars."""
    BUFFER_FULL = "buffer_full"
    """As many ticks as the overlap policy keeps were already waiting."""
    INVALID_SCHEDULE = "invalid_schedule"
    """Its schedule could not be understood, or did not fit its task, when it was due."""
    EDITED = "edited"
    """Its schedule was changed or disabled before anybody had decided it."""
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

    # Why a run is still waiting; never of a run that has ended.
    CONCURRENCY_LIMIT = "concurrency_limit"
    """As many runs of its key as its `concurrency_limit` allows are running; it starts when one ends."""
    RATE_LIMIT = "rate_limit"
    """Its key's `rate_limit` has reserved a later start for it, or has none left before its start deadline."""
    QUEUE_PAUSED = "queue_paused"
    """Its queue is paused; it starts when somebody resumes that."""

    # Decided while it was running.
    WORKER_LOST = "worker_lost"
    """Its worker died or lost contact, and no attempt was left."""
    HARD_LIMIT = "hard_limit"
    """It ran past its hard time limit."""
    TASK_REPLACED = "task_replaced"
    """The task put another one in its place, which goes on under its Celery id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """The policies of one schedule. Raises ValueError for values that make no sense.

    `max_concurrent` concerns `allow_all` only; None is no limit. `start_deadline` counts from when a run becomes
    eligible; None is no deadline. `max_runs` counts scheduled runs when they are fired; `pause_on_failure` is the
    number of consecutive failed runs that pauses the schedule. None is never.
    """

    overlap: Overlap = Overlap.SKIP
    max_concurrent: int | None = None
    catch_up: CatchUp = CatchUp.LATEST
    catchup_window: timedelta = timedelta(hours=1)
    max_catchup_runs: int = 100
    start_deadline: timedelta | None = timedelta(hours=1)
    max_runs: int | None = None
    pause_on_failure: int | None = None

    @property
    def follows_ends(self) -> bool:
        """Whether the end of a run changes what the schedule does next."""
        return (
            self.overlap not in (Overlap.SKIP, Overlap.ALLOW_ALL)
            or self.max_runs is not None
            or self.pause_on_failure is not None
        )

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
        for name in ("max_runs", "pause_on_failure"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1; leave it out for never")


@dataclass(frozen=True, slots=True)
class Tick:
    """One decided tick.

    It runs when `reason` is None, at once or, when `waits`, after the runs before it have ended; it is recorded
    as skipped otherwise.
    """

    scheduled_for: datetime
    reason: Reason | None
    waits: bool = False


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

    `next_run_at` is None when no tick follows: the schedule is `completed`, or, when it `awaits_end`, the next tick
    is counted from the end of the run. It is not later than `now` only when `limit` was reached: it is then the
    first undecided tick.

    `replaces_waiting`: the ticks that waited before this firing are skipped as replaced. `cancels_active`: the runs
    that are active are cancelled.
    """

    ticks: tuple[Tick, ...] = ()
    missed: tuple[MissedRange, ...] = ()
    next_run_at: datetime | None = None
    awaits_end: bool = False
    replaces_waiting: bool = False
    cancels_active: bool = False

    @property
    def runs(self) -> int:
        """How many of the ticks run, now or later: what `max_runs` counts."""
        return sum(tick.reason is None for tick in self.ticks)

    @property
    def completed(self) -> bool:
        """Whether no tick will ever follow."""
        return self.next_run_at is None and not self.awaits_end


def fire(
    plan: Plan,
    policies: Policies,
    *,
    next_run_at: datetime,
    now: datetime,
    active: int = 0,
    waiting: int = 0,
    remaining: int | None = None,
    limit: int = 100,
) -> Firing:
    """Decides every tick in `[next_run_at, now]`.

    `next_run_at` counts as a tick whatever `plan` says of it. `active` is the number of scheduled runs of this
    schedule that are queued, running or awaiting a retry, `waiting` the number of those that wait for their turn
    under a buffer policy; `remaining` is what is left of `max_runs`, None without that limit. At most `limit` ticks
    are decided one by one; the cost depends on these, not on how many were missed. All instants are aware.
    """
    if next_run_at > now:
        return Firing(next_run_at=next_run_at)
    if plan.estimated:
        missed, decided = _late_or_due(policies, next_run_at, now)
    else:
        missed, decided = _catch_up(plan, policies, next_run_at, now)
    crowd = _Crowd(policies, active, waiting)
    undecided: datetime | None = None
    for at in decided:
        if remaining is not None and crowd.admitted >= remaining:
            break
        if len(crowd.ticks) >= limit:
            undecided = at
            break
        if plan.excluded_by(at) is None:
            crowd.add(at)
        else:
            crowd.skip(at, Reason.CALENDAR)
    exhausted = remaining is not None and crowd.admitted >= remaining
    awaits_end = plan.estimated and not exhausted and crowd.admitted > 0
    upcoming = None if exhausted or awaits_end else undecided or plan.next_after(now)
    return Firing(
        tuple(crowd.ticks), missed, upcoming, awaits_end, crowd.replaces_waiting, crowd.cancels_active
    )


def with_room(plan: Plan, firing: Firing, now: datetime) -> Firing:
    """The same when runs that were cancelled for it had never started, and so do not count: `max_runs`, if that is
    what had ended the schedule, is not reached yet."""
    if not firing.completed:
        return firing
    if plan.estimated:
        return replace(firing, awaits_end=True)
    return replace(firing, next_run_at=plan.next_after(now))


def admit(policies: Policies, at: datetime, *, active: int, waiting: int) -> Firing:
    """What the overlap policy makes of a single run at `at`, on demand; counts as in `fire`."""
    crowd = _Crowd(policies, active, waiting)
    crowd.add(at)
    return Firing(
        tuple(crowd.ticks),
        awaits_end=True,
        replaces_waiting=crowd.replaces_waiting,
        cancels_active=crowd.cancels_active,
    )


_ROOM = {Overlap.BUFFER_ONE: 1, Overlap.BUFFER_ALL: MAX_WAITING}


class _Crowd:
    """The ticks of one firing, as they are added to the runs that are active or wait already."""

    def __init__(self, policies: Policies, active: int, waiting: int) -> None:
        self._policies = policies
        self._before = active
        self._active = active
        self._waiting = waiting
        self._replaceable = waiting
        self.ticks: list[Tick] = []
        self.replaces_waiting = False
        self.cancels_active = False

    @property
    def admitted(self) -> int:
        """How many run or wait more than before, which may be negative."""
        freed = self._replaceable if self.replaces_waiting else 0
        return sum(tick.reason is None for tick in self.ticks) - freed

    def skip(self, at: datetime, reason: Reason) -> None:
        """A tick that does not run."""
        self.ticks.append(Tick(at, reason))

    def add(self, at: datetime) -> None:
        """A tick that runs if the overlap policy lets it."""
        overlap = self._policies.overlap
        if overlap is Overlap.ALLOW_ALL:
            most = self._policies.max_concurrent
            if most is not None and self._active + self._waiting >= most:
                self.skip(at, Reason.OVERLAP)
            else:
                self._run(at)
        elif self._active + self._waiting == 0:
            self._run(at)
        elif overlap is Overlap.SKIP:
            self.skip(at, Reason.OVERLAP)
        elif overlap in _ROOM and self._waiting >= _ROOM[overlap]:
            self.skip(at, Reason.BUFFER_FULL)
        elif overlap is Overlap.CANCEL_OTHER:
            self._replace(lambda tick: tick.reason is None)
            self.cancels_active = self._before > 0
            self._active = self._before
            (self._wait if self._before else self._run)(at)
        else:
            if overlap is Overlap.BUFFER_LATEST:
                self._replace(lambda tick: tick.waits)
            self._wait(at)

    def _run(self, at: datetime) -> None:
        self._active += 1
        self.ticks.append(Tick(at, None))

    def _wait(self, at: datetime) -> None:
        self._waiting += 1
        self.ticks.append(Tick(at, None, waits=True))

    def _replace(self, older: Callable[[Tick], bool]) -> None:
        self.replaces_waiting = self._replaceable > 0
        self._waiting = 0
        self.ticks = [
            Tick(tick.scheduled_for, Reason.REPLACED) if older(tick) else tick for tick in self.ticks
        ]


def _late_or_due(
    policies: Policies, tick: datetime, now: datetime
) -> tuple[tuple[MissedRange, ...], Iterator[datetime]]:
    """The one tick of a fixed delay: late by more than catch-up allows, or due."""
    if now - tick <= CATCH_UP_AFTER:
        return (), iter((tick,))
    if policies.catch_up is CatchUp.NONE:
        return (MissedRange(tick, tick, 1, Reason.MISSED),), iter(())
    if now - tick > policies.catchup_window:
        return (MissedRange(tick, tick, 1, Reason.CATCHUP_WINDOW),), iter(())
    return (), iter((tick,))


def _catch_up(
    plan: Plan, policies: Policies, first: datetime, now: datetime
) -> tuple[tuple[MissedRange, ...], Iterator[datetime]]:
    """The missed ranges, and the ticks that fire (lazily), both ascending."""
    threshold = now - CATCH_UP_AFTER
    if first >= threshold:
        return (), chain((first,), plan.ticks(first, now))
    past = _Past(plan, first)
    newest = past.before(threshold) or first
    young = plan.ticks(newest, now)
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


def missed(plan: Plan, first: datetime, now: datetime, reason: Reason) -> MissedRange | None:
    """The ticks of `[first, now]` as one range; `first` counts as one. None when it lies ahead."""
    if first > now:
        return None
    past = _Past(plan, first)
    return past.missed(first, past.before(now + _JUST_BEFORE) or first, reason)


@dataclass(frozen=True, slots=True)
class _Past:
    """The ticks from `first` on, which counts as one even if `plan` no longer names it."""

    plan: Plan
    first: datetime

    def before(self, instant: datetime) -> datetime | None:
        """The latest tick strictly before `instant`."""
        if instant <= self.first:
            return None
        tick = self.plan.last_until(instant - _JUST_BEFORE)
        return self.first if tick is None or tick < self.first else tick

    def missed(self, first: datetime, last: datetime, reason: Reason) -> MissedRange:
        more = self.plan.count(first, last)
        return MissedRange(first, last, None if more is None else more + 1, reason)

    def beyond(self, last: datetime, window: datetime) -> tuple[MissedRange, ...]:
        """The ticks up to `last`: those before `window` were too old, the others too many."""
        too_old = self.before(window)
        if too_old is None:
            return (self.missed(self.first, last, Reason.CATCHUP_LIMIT),)
        if too_old >= last:
            return (self.missed(self.first, last, Reason.CATCHUP_WINDOW),)
        too_many = self.plan.next_after(too_old) or last
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
