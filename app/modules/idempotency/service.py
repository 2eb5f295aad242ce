"""Claiming a key with the effect that it stands for, and finding what it did.

A key is claimed in the transaction of the effect, at its end: a process that dies in between leaves both or neither.
Two requests with one key meet at the primary key: the second waits for the first one's commit, and is rolled back.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from app.errors import Conflict
from app.modules.idempotency.models import IdempotencyKey

KEPT: Final = timedelta(hours=24)
_NOW = func.clock_timestamp()


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
        raise KeyTaken("Another request with this Idempotency-Key is under way. Repeat this one in a moment.")


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


async def delete_expired(session: AsyncSession) -> None:
    """Delete some keys that are older than a day."""
    old = (
        select(IdempotencyKey.caller, IdempotencyKey.key)
        .where(IdempotencyKey.expires_at <= select(_NOW).scalar_subquery())
        .limit(1000)
        .with_for_update(skip_locked=True)
        .subquery()
    )
    await session.execute(
        delete(IdempotencyKey)
        .where(IdempotencyKey.caller == old.c.caller, IdempotencyKey.key == old.c.key)
        .execution_options(synchronize_session=False)
    )


def _columns(answer: Answer | None) -> dict[str, Any]:
    return {
        "status": answer.status if answer else None,
        "headers": dict(answer.headers) if answer else None,
        "body": answer.body if answer else None,
    }
