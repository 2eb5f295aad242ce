"""Limits by key, across all workers: how many runs at once, and how many starts in a period.

A run whose options name a limit has a key (its own `concurrency_key`, else its task's name). Whether
it may start is decided in the transaction that starts it, while the key's lock is held; a run over a
limit stays queued, with `concurrency_limit` or `rate_limit` as its reason. Whoever ends a run of the
key holds the lock too, and then wakes those that its slot can serve: so either the one sees the slot
free, or the other sees the run waiting. Locks are taken in the order schedule, key, run.

A rate gives each waiting run a start of its own, in order: nobody is woken in vain. A reserved start
that was missed by more than `SLACK` (workers were down) is reserved anew, so that a backlog is not
let loose at once.
"""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
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
SELECT limit_key, options, limit_slot_at
FROM celery_task_runs
WHERE id = :id AND attempt = :attempt AND state = 'queued' AND limit_key IS NOT NULL AND blocked_by IS NULL
  AND due_at <= clock_timestamp() AND (start_deadline IS NULL OR start_deadline > clock_timestamp())
  AND {statements.NOT_PAUSED}
""")
_RUNNING = text("SELECT count(*) FROM celery_task_runs WHERE limit_key = :key AND state = 'running'")
_NOW_AND_FREE = text("""
SELECT clock_timestamp() AS now, (SELECT next_free_at FROM celery_task_limits WHERE key = :key) AS free_at
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

_HELD = text("""
SELECT id, (options ->> 'concurrency_limit')::int AS most
FROM celery_task_runs
WHERE limit_key = :key AND state = 'queued' AND reason = 'concurrency_limit'
ORDER BY due_at, id
LIMIT 100
""")
_WAKE = text("""
UPDATE celery_task_runs SET next_dispatch_at = clock_timestamp(), reason = NULL
WHERE id = ANY(CAST(:ids AS uuid[])) AND state = 'queued'
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
        slot = _reserve(session, found.limit_key, spacing(rate), found.limit_slot_at)
        if slot is not None:
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
    held = session.execute(_HELD, {"key": key}).all()
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


def _reserve(session: Session, key: str, gap: timedelta, slot: datetime | None) -> datetime | None:
    """None if the run may start now; else the start that is reserved for it."""
    now, free_at = session.execute(_NOW_AND_FREE, {"key": key}).one()
    slack = max(gap, SLACK)
    if slot is not None and now - slack < slot <= now:
        return None
    if free_at is None or free_at <= now:
        session.execute(_TAKE, {"key": key, "free_at": now + gap})
        return None
    if slot is not None and slot > now:
        # A wake-up that came too early, a duplicate for example: its start stays reserved.
        return slot
    session.execute(_TAKE, {"key": key, "free_at": free_at + gap})
    reserved: datetime = free_at
    if reserved - now < SOON:
        session.execute(statements.NOTIFY_BEATS)
    return reserved
