"""Limits by key, across all workers: how many runs at once, and how many starts in a period.

A run whose options name a limit has a key (its own `concurrency_key`, else its task's name). Whether
it may start is decided in the transaction that starts it, while the key's lock is held; a run over a
limit stays queued, with `concurrency_limit` or `rate_limit` as its reason. Whoever ends a run of the
key holds the lock too, and then wakes those that its slot can serve: so either the one sees the slot
free, or the other sees the run waiting. Locks are taken in the order schedule, key, run.

A rate gives each waiting run a start of its own, in order: nobody is woken in vain. A reserved start
that was missed by more than `SLACK` (workers were down) is reserved anew, so that a backlog is not
let loose at once. Nothing is reserved beyond a run's start deadline, and what was reserved last is
free again when its run has ended without it: a backlog that is gone keeps nobody waiting.
"""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, TextClause, text
from sqlalchemy.orm import Session

from app.scheduling import statements
from app.scheduling.policies import Reason

RATE = r"^(?:[1-9]\d{0,5})/(?:s|m|h|d)$"
SLACK = timedelta(seconds=2)
# Held runs are woken when a slot is free; this is for a slot that nobody gave back.
LOOK_AGAIN = 300.0
# Sooner than this a beat may be asleep; it is told.
SOON = timedelta(seconds=5)
_PERIODS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

_LOCK_OF = text("""
SELECT limit_key, pg_advisory_xact_lock(hashtextextended(limit_key, 0))
FROM celery_task_runs
WHERE id = :id AND limit_key IS NOT NULL
""")
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))")

_ELIGIBLE = text(f"""
SELECT limit_key, options, limit_slot_at, start_deadline
FROM celery_task_runs
WHERE id = :id AND attempt = :attempt AND state = 'queued' AND limit_key IS NOT NULL AND blocked_by IS NULL
  AND due_at <= clock_timestamp() AND (start_deadline IS NULL OR start_deadline > clock_timestamp())
  AND {statements.NOT_PAUSED}
""")
_RUNNING = text("SELECT count(*) FROM celery_task_runs WHERE limit_key = :key AND state = 'running'")
_NOW_AND_FREE = text("""
SELECT clock_timestamp() AS now,
    (SELECT next_free_at FROM celery_task_limits WHERE key = :key) AS free_at,
    (SELECT max(limit_slot_at) FROM celery_task_runs
     WHERE limit_key = :key AND state = 'queued' AND limit_slot_at IS NOT NULL) AS last
""")
_TAKE = text("""
INSERT INTO celery_task_limits (key, next_free_at) VALUES (:key, :free_at)
ON CONFLICT (key) DO UPDATE SET next_free_at = EXCLUDED.next_free_at
""")

# Without dispatches, nobody takes the wake-up for lost.
_HOLD = text("""
UPDATE celery_task_runs
SET reason = :reason, dispatches = 0, limit_slot_at = :slot,
    next_dispatch_at = LEAST(
        COALESCE(CAST(:slot AS timestamptz), clock_timestamp() + make_interval(secs => :look)),
        start_deadline)
WHERE id = :id AND attempt = :attempt AND state = 'queued'
""")

# A free slot is nothing to those that may not start: it goes to the next one.
_HELD = f"""
SELECT id, (options ->> 'concurrency_limit')::int AS most
FROM celery_task_runs
WHERE limit_key = :key AND state = 'queued' AND reason = 'concurrency_limit' AND {statements.NOT_PAUSED}
ORDER BY due_at, id
LIMIT 100
"""
_HELD_BY_KEY, _HELD_AND_FREE = text(_HELD), text(f"{_HELD} FOR NO KEY UPDATE SKIP LOCKED")
_WAKE = text("""
UPDATE celery_task_runs SET next_dispatch_at = clock_timestamp(), reason = NULL
WHERE id = ANY(CAST(:ids AS uuid[])) AND state = 'queued'
""")
_KEYS_HELD_IN = text("""
SELECT DISTINCT limit_key
FROM celery_task_runs
WHERE state = 'queued' AND reason = 'concurrency_limit' AND queue = :queue
""")


def spacing(rate: str) -> timedelta:
    """The time between two starts of a rate such as ``10/m``.

    Raises:
        ValueError: it is not a rate.
    """
    if not re.match(RATE, rate):
        raise ValueError("a rate is a whole number and a period: 5/s, 10/m, 100/h, 1000/d")
    number, _, period = rate.partition("/")
    return timedelta(seconds=_PERIODS[period] / int(number))


def start(session: Session, values: Mapping[str, Any]) -> Row[Any] | Reason | None:
    """Start a limited run, or leave it queued and answer why; None if there is nothing to start.

    ``values`` are those of `statements.START_LIMITED`.
    """
    run = {"id": values["id"], "attempt": values["attempt"]}
    if not lock_key_of(session, values["id"]):
        return None
    found = session.execute(_ELIGIBLE, run).one_or_none()
    if found is None:
        return None
    most, rate = found.options.get("concurrency_limit"), found.options.get("rate_limit")
    if most is not None and session.execute(_RUNNING, {"key": found.limit_key}).scalar_one() >= most:
        session.execute(_HOLD, {**run, "reason": Reason.CONCURRENCY_LIMIT, "slot": None, "look": LOOK_AGAIN})
        return Reason.CONCURRENCY_LIMIT
    if rate is not None:
        starts, slot = _reserve(session, found, spacing(rate))
        if not starts:
            session.execute(_HOLD, {**run, "reason": Reason.RATE_LIMIT, "slot": slot, "look": LOOK_AGAIN})
            return Reason.RATE_LIMIT
    return session.execute(statements.START_LIMITED, values).one_or_none()


def lock(session: Session, key: str) -> None:
    """Hold the key until the end of the transaction."""
    session.execute(_LOCK, {"key": key})


def lock_key_of(session: Session, run_id: UUID) -> bool:
    """Hold the key of this run; False if it has none."""
    return session.execute(_LOCK_OF, {"id": run_id}).one_or_none() is not None


def release(session: Session, key: str) -> None:
    """A run of this key has ended or went back: wake those for which there is room. The key is held."""
    _wake(session, key, _HELD_BY_KEY)


def hand_on(session: Session, key: str) -> None:
    """A run that had been woken has ended without a start: as `release`, for whoever holds schedules and cannot wait
    for the key. No slot became free: it had been, so nobody can have looked in vain meanwhile."""
    _wake(session, key, _HELD_AND_FREE)


def release_queue(session: Session, queue: str) -> None:
    """The runs of this queue may start again: wake those that were passed over and for which there is room."""
    for key in sorted(session.scalars(_KEYS_HELD_IN, {"queue": queue})):
        lock(session, key)
        release(session, key)


def _wake(session: Session, key: str, held_runs: TextClause) -> None:
    held = session.execute(held_runs, {"key": key}).all()
    if not held:
        return
    running = session.execute(_RUNNING, {"key": key}).scalar_one()
    woken: list[UUID] = []
    for run_id, most in held:
        if most is None or running + len(woken) < most:
            woken.append(run_id)
    if woken:
        session.execute(_WAKE, {"ids": woken})
        session.execute(statements.NOTIFY_BEATS)


def _reserve(session: Session, run: Row[Any], gap: timedelta) -> tuple[bool, datetime | None]:
    """Whether the run may start now; else the start that is reserved for it, None if it has no time for one."""
    slot: datetime | None = run.limit_slot_at
    now, free_at, last = session.execute(_NOW_AND_FREE, {"key": run.limit_key}).one()
    slack = max(gap, SLACK)
    if slot is not None and now - slack < slot <= now:
        return True, None
    if slot is not None and slot > now:
        # A wake-up that came too early, a duplicate for example: its start stays reserved.
        return False, slot
    if free_at is None or free_at <= now:
        session.execute(_TAKE, {"key": run.limit_key, "free_at": now + gap})
        return True, None
    reserved: datetime = min(free_at, max(last or now, now) + gap)
    if run.start_deadline is not None and run.start_deadline <= reserved:
        return False, None
    session.execute(_TAKE, {"key": run.limit_key, "free_at": reserved + gap})
    if reserved - now < SOON:
        session.execute(statements.NOTIFY_BEATS)
    return False, reserved
