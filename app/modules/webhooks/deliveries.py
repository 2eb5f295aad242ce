"""Deliveries as rows: made of facts, claimed for an attempt, ended or put off.

Several processes deliver at once. A claim moves ``next_attempt_at`` beyond the longest attempt and counts it, under the
row's lock; the outcome is written only by whoever made that claim. Each webhook has a few places, so one that does not
answer keeps no other from its deliveries.
"""

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.modules.alerts import service as alerts
from app.modules.webhooks.sending import Receipt
from app.scheduling.ids import new_id
from app.settings import WebhookSettings

TAKEN_AT_ONCE: Final = 200
FACTOR: Final = 4.0
JITTER: Final = 0.2
LEASE_MARGIN: Final = 30.0  # seconds beyond an attempt's timeout

# Whoever disables one waits for what is being made for it, or is waited for.
_ENABLED = text("""
SELECT id, event_types, schedule_ids, tasks, tags FROM webhooks WHERE enabled ORDER BY id FOR SHARE
""")

INSERT = text("""
INSERT INTO webhook_deliveries (id, webhook_id, fact_id, type, tries_left, next_attempt_at)
VALUES (:id, :webhook_id, :fact_id, :type, :tries, clock_timestamp())
ON CONFLICT (fact_id, webhook_id) DO NOTHING
""")

# A few of each webhook that has places left, earliest first; when there are too few places for all, each webhook has its
# first before any has its second, and who goes without is chance: several that never answer keep no other out.
_CLAIM = text("""
WITH ranked AS (
    SELECT d.id, w.busy + row_number() OVER (PARTITION BY w.id ORDER BY d.next_attempt_at) AS place
    FROM (SELECT id, COALESCE((CAST(:busy AS jsonb) ->> id::text)::int, 0) AS busy FROM webhooks) AS w
    CROSS JOIN LATERAL (
        SELECT id, next_attempt_at FROM webhook_deliveries
        WHERE webhook_id = w.id AND next_attempt_at <= (SELECT clock_timestamp())
        ORDER BY next_attempt_at
        LIMIT GREATEST(CAST(:each AS int) - w.busy, 0)
        FOR UPDATE SKIP LOCKED
    ) AS d
), due AS (
    SELECT id FROM ranked ORDER BY place, random() LIMIT CAST(:limit AS int)
), claimed AS (
    UPDATE webhook_deliveries d
    SET attempts = attempts + 1, tries_left = tries_left - 1, last_attempt_at = clock_timestamp(),
        next_attempt_at = clock_timestamp() + make_interval(secs => :lease)
    FROM due WHERE d.id = due.id
    RETURNING d.id, d.webhook_id, d.fact_id, d.type, d.attempts, d.tries_left
)
SELECT c.id, c.webhook_id, c.type, c.attempts, c.tries_left, f.at, f.data, w.url, w.secret,
       CASE WHEN w.previous_until > clock_timestamp() THEN w.previous_secret END AS previous_secret
FROM claimed c JOIN facts f ON f.id = c.fact_id JOIN webhooks w ON w.id = c.webhook_id
""")

_END = text("""
UPDATE webhook_deliveries
SET state = CAST(:state AS text), status = CAST(:status AS int), error = CAST(:error AS text),
    duration = CAST(:duration AS float),
    next_attempt_at = CASE WHEN CAST(:state AS text) = 'pending'
                           THEN clock_timestamp() + make_interval(secs => :delay) END,
    delivered_at = CASE WHEN CAST(:state AS text) = 'delivered' THEN clock_timestamp() END
WHERE id = :id AND attempts = :attempt AND state = 'pending'
""")

REPEAT = text("""
UPDATE webhook_deliveries
SET state = 'pending', tries_left = :tries, next_attempt_at = clock_timestamp(), delivered_at = NULL
WHERE id = :id AND webhook_id = :webhook_id AND state <> 'pending'
""")

GIVE_UP = text("""
UPDATE webhook_deliveries
SET state = 'failed', next_attempt_at = NULL, error = 'The webhook was disabled before it was delivered.'
WHERE webhook_id = :webhook_id AND state = 'pending'
""")


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery that this process attempts now; its secrets are sealed."""

    id: UUID
    webhook_id: UUID
    type: str
    attempt: int
    tries_left: int
    at: datetime
    data: Mapping[str, Any]
    url: str
    secret: bytes
    previous_secret: bytes | None


@dataclass(frozen=True, slots=True)
class Choice:
    """What a webhook wants to be told of; None leaves a question open."""

    event_types: Sequence[str]
    schedule_ids: Sequence[UUID] | None = None
    tasks: Sequence[str] | None = None
    tags: Sequence[str] | None = None

    def wants(self, kind: str, *, schedule_id: UUID | None, task: str | None, tags: Collection[str]) -> bool:
        """Whether a fact like this is for it."""
        return (
            kind in self.event_types
            and (self.schedule_ids is None or schedule_id in self.schedule_ids)
            and (self.tasks is None or task in self.tasks)
            and (self.tags is None or not set(self.tags).isdisjoint(tags))
        )


def make(session: Session, tries: int) -> int:
    """Make alerts and deliveries of the oldest facts that are left; answers how many facts there were.

    One process at a time does, so that alerts open in the order of their facts.
    """
    if not alerts.alone(session):
        return 0
    facts = alerts.take(session, TAKEN_AT_ONCE)
    if not facts:
        return 0
    choices = {
        row.id: Choice(row.event_types, row.schedule_ids, row.tasks, row.tags)
        for row in session.execute(_ENABLED)
    }
    rows = [
        {"id": new_id(), "webhook_id": webhook_id, "fact_id": fact.id, "type": fact.type, "tries": tries}
        for fact in facts
        for webhook_id, choice in choices.items()
        if choice.wants(fact.type, schedule_id=fact.schedule_id, task=fact.task, tags=fact.tags)
    ]
    if rows:
        session.execute(INSERT, rows)
    return len(facts)


def claim(
    session: Session, settings: WebhookSettings, *, limit: int, busy: Mapping[UUID, int]
) -> list[Claimed]:
    """Up to ``limit`` due deliveries, which nobody else attempts for now; ``busy`` counts those under way here."""
    values = {
        "busy": _counts(busy),
        "each": settings.at_once_each,
        "limit": limit,
        "lease": settings.timeout + LEASE_MARGIN,
    }
    return [
        Claimed(
            id=row.id,
            webhook_id=row.webhook_id,
            type=row.type,
            attempt=row.attempts,
            tries_left=row.tries_left,
            at=row.at,
            data=row.data,
            url=row.url,
            secret=row.secret,
            previous_secret=row.previous_secret,
        )
        for row in session.execute(_CLAIM, values)
    ]


def end(session: Session, claimed: Claimed, receipt: Receipt, settings: WebhookSettings) -> None:
    """Write what came of an attempt, unless somebody else has claimed the delivery since."""
    again = not receipt.received and claimed.tries_left > 0
    state = "delivered" if receipt.received else "pending" if again else "failed"
    values = {
        "id": claimed.id,
        "attempt": claimed.attempt,
        "state": state,
        "status": receipt.status,
        "error": receipt.error,
        "duration": receipt.duration,
        # A delivery that is repeated has all its attempts, and their pauses, once more.
        "delay": max(receipt.wait, _delay(settings.attempts - claimed.tries_left, settings))
        if again
        else 0.0,
    }
    session.execute(_END, values)


def _delay(attempt: int, settings: WebhookSettings) -> float:
    """Seconds until the attempt after this one: four times as long each time, spread, so that crowds part."""
    longest = min(settings.retry_base * FACTOR ** max(0, min(attempt - 1, 30)), settings.retry_cap)
    return longest * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - no secret


def _counts(busy: Mapping[UUID, int]) -> str:
    return "{" + ", ".join(f'"{webhook_id}": {number}' for webhook_id, number in busy.items()) + "}"


def grace(settings: WebhookSettings) -> timedelta:
    """How long a replaced secret goes on signing."""
    return timedelta(seconds=settings.rotation_grace)
