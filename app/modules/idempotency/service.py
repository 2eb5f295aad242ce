"""Claiming a key with the effect that it stands for, and finding what it did.

A key is claimed in the transaction of the effect, at its end: a process that dies in between leaves both or neither.
Two requests with one key meet at the primary key: the second waits for the first one's commit, and is rolled back.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from app.db.clearing import BATCH, delete_all
from app.errors import Conflict
from app.modules.idempotency.models import IdempotencyKey

KEPT: Final = timedelta(hours=24)
_NOW = func.clock_timestamp()
_TAKEN: Final = "Another request with this Idempotency-Key is under way. Repeat this one in a moment."
_CLAIM_MANY = text("""
INSERT INTO idempotency_keys AS k (caller, key, fingerprint, status, headers, body, created_at, expires_at)
SELECT caller, key, fingerprint, status, CAST(headers AS jsonb), body, clock_timestamp(),
       clock_timestamp() + make_interval(secs => :kept)
FROM unnest(
    CAST(:caller AS text[]), CAST(:key AS text[]), CAST(:fingerprint AS bytea[]), CAST(:status AS int[]),
    CAST(:headers AS text[]), CAST(:body AS text[])
) AS u (caller, key, fingerprint, status, headers, body)
ON CONFLICT (caller, key) DO UPDATE
SET fingerprint = EXCLUDED.fingerprint, status = EXCLUDED.status, headers = EXCLUDED.headers, body = EXCLUDED.body,
    created_at = EXCLUDED.created_at, expires_at = EXCLUDED.expires_at
WHERE k.expires_at <= clock_timestamp()
RETURNING k.key
""")


class KeyTaken(Conflict):
    """Another request with this key is ahead; nothing was changed by this one."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A caller's key, and the fingerprint of the request that it belongs to."""

    caller: str
    key: str
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, as it is sent again."""

    status: int
    headers: Mapping[str, str]
    body: str


@dataclass(frozen=True, slots=True)
class Known:
    """What a key stands for; ``answer`` is None when the effect is there and its answer was lost."""

    fingerprint: bytes
    answer: Answer | None


def claim(session: Session, made: Claim, answer: Answer | None) -> None:
    """Take the key, with the answer if it is known by now.

    Raises:
        KeyTaken: it is taken.
    """
    values: dict[str, Any] = {
        "fingerprint": made.fingerprint,
        "expires_at": _NOW + KEPT,
        "created_at": _NOW,
        **_columns(answer),
    }
    taken = session.execute(
        insert(IdempotencyKey)
        .values(caller=made.caller, key=made.key, **values)
        .on_conflict_do_update(
            index_elements=[IdempotencyKey.caller, IdempotencyKey.key],
            set_=values,
            where=IdempotencyKey.expires_at <= _NOW,
        )
        .returning(IdempotencyKey.key)
    ).one_or_none()
    if taken is None:
        raise KeyTaken(_TAKEN)


def claim_many(session: Session, made: Sequence[tuple[Claim, Answer | None]]) -> None:
    """As `claim`, in one statement: all of them, or none.

    Raises:
        KeyTaken: one is taken, or occurs twice.
    """
    # In one order, so that two who claim the same keys take turns.
    ordered = sorted(made, key=lambda each: (each[0].caller, each[0].key))
    columns = [_columns(answer) for _, answer in ordered]
    values = {
        "caller": [each.caller for each, _ in ordered],
        "key": [each.key for each, _ in ordered],
        "fingerprint": [each.fingerprint for each, _ in ordered],
        "status": [each["status"] for each in columns],
        "headers": [None if each["headers"] is None else json.dumps(each["headers"]) for each in columns],
        "body": [each["body"] for each in columns],
        "kept": KEPT.total_seconds(),
    }
    distinct = len({(each.caller, each.key) for each, _ in ordered})
    if distinct < len(ordered) or len(session.execute(_CLAIM_MANY, values).all()) < len(ordered):
        raise KeyTaken(_TAKEN)


async def known(sessions: async_sessionmaker[AsyncSession], caller: str, key: str) -> Known | None:
    """What was done under this key within the last day."""
    async with sessions() as session:
        row = await session.scalar(
            select(IdempotencyKey).where(
                IdempotencyKey.caller == caller, IdempotencyKey.key == key, IdempotencyKey.expires_at > _NOW
            )
        )
    if row is None:
        return None
    answer = None if row.status is None else Answer(row.status, row.headers or {}, row.body or "")
    return Known(row.fingerprint, answer)


async def keep_answer(sessions: async_sessionmaker[AsyncSession], made: Claim, answer: Answer) -> None:
    """Store the answer of an effect whose unit of work did not say what it made."""
    async with sessions.begin() as session:
        await session.execute(
            update(IdempotencyKey)
            .where(IdempotencyKey.caller == made.caller, IdempotencyKey.key == made.key)
            .values(**_columns(answer))
        )


async def delete_expired(sessions: async_sessionmaker[AsyncSession], *, batch: int = BATCH) -> int:
    """Delete the keys that are older than a day; answers how many."""
    old = IdempotencyKey.expires_at <= select(_NOW).scalar_subquery()
    return await delete_all(sessions, IdempotencyKey, old, batch=batch)


def _columns(answer: Answer | None) -> dict[str, Any]:
    return {
        "status": answer.status if answer else None,
        "headers": dict(answer.headers) if answer else None,
        "body": answer.body if answer else None,
    }
