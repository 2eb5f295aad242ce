"""Writing and reading the record of changes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

from sqlalchemy import insert, select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from app.modules.audit.models import AuditRow
from app.scheduling.ids import id_at, new_id

# Ids are made by the hosts' clocks, `at` by the database's: ids only say where to look.
SKEW: Final = timedelta(days=1)
LONGEST_VALUE: Final = 2_000
LONGEST_CHANGES: Final = 32_000
_SECRET: Final = ("hash", "password", "secret", "token", "credential", "sealed", "ciphertext")

_RECORD_MANY = text("""
INSERT INTO audit_log
    (id, actor, action, means, outcome, actor_id, credential_id, object_type, object_id, request_id, address, changes)
SELECT id, actor, action, means, outcome, actor_id, credential_id, object_type, object_id, request_id, address,
       changes
FROM json_to_recordset(CAST(:entries AS json)) AS told (
    id uuid, actor text, action text, means text, outcome text, actor_id uuid, credential_id uuid, object_type text,
    object_id text, request_id text, address text, changes jsonb
)
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Who did what, and how; `AuditRow` says what each field means."""

    actor: str
    action: str
    means: str
    outcome: str = "done"
    actor_id: UUID | None = None
    credential_id: UUID | None = None
    object_type: str | None = None
    object_id: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    request_id: str | None = None
    address: str | None = None


@dataclass(frozen=True, slots=True)
class Filters:
    """Which entries; None leaves a question open."""

    actor: str | None = None
    action: str | None = None
    object_type: str | None = None
    object_id: str | None = None
    outcome: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def record(session: Session, entry: Entry) -> None:
    """Add an entry to the transaction of the change that it tells of."""
    values = {name: getattr(entry, name) for name in Entry.__slots__ if name != "changes"}
    session.execute(insert(AuditRow).values(id=new_id(), **values, changes=presentable(entry.changes)))


def record_many(session: Session, entries: Sequence[Entry]) -> None:
    """As `record`, in one statement."""
    told = [
        {
            "id": str(new_id()),
            "actor": entry.actor,
            "action": entry.action,
            "means": entry.means,
            "outcome": entry.outcome,
            "actor_id": _text(entry.actor_id),
            "credential_id": _text(entry.credential_id),
            "object_type": entry.object_type,
            "object_id": entry.object_id,
            "request_id": entry.request_id,
            "address": entry.address,
            "changes": presentable(entry.changes) if entry.changes else {},
        }
        for entry in entries
    ]
    session.execute(_RECORD_MANY, {"entries": json.dumps(told)})


async def record_apart(sessions: async_sessionmaker[AsyncSession], entry: Entry) -> None:
    """An entry in a transaction of its own, for what changes nothing in the database."""
    async with sessions.begin() as session:
        await session.run_sync(record, entry)


async def entries(
    sessions: async_sessionmaker[AsyncSession], filters: Filters, *, limit: int, before: UUID | None
) -> tuple[list[AuditRow], UUID | None]:
    """Entries, newest first, and the id to go on before."""
    query = select(AuditRow).order_by(AuditRow.id.desc()).limit(limit + 1)
    for name in ("actor", "action", "object_type", "object_id", "outcome"):
        if (value := getattr(filters, name)) is not None:
            query = query.where(getattr(AuditRow, name) == value)
    if filters.since is not None:
        query = query.where(AuditRow.id >= id_at(filters.since - SKEW), AuditRow.at >= filters.since)
    if filters.until is not None:
        query = query.where(AuditRow.id < id_at(filters.until + SKEW), AuditRow.at < filters.until)
    if before is not None:
        query = query.where(AuditRow.id < before)
    async with sessions() as session:
        found = list(await session.scalars(query))
    return found[:limit], found[limit - 1].id if len(found) > limit else None


def id_of(result: object) -> UUID | None:
    """The id of what a unit of work made: a row's, or that of a view's row."""
    found = getattr(getattr(result, "row", result), "id", None)
    return found if isinstance(found, UUID) else None


def presentable(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The changes as they may be kept: secrets not at all, long values as digests, all of it bounded."""
    shown = {
        key: {
            column: {side: _shown(column, value) for side, value in sides.items()}
            for column, sides in columns.items()
        }
        for key, columns in changes.items()
    }
    stored = json.dumps(shown, ensure_ascii=False)
    return shown if len(stored) <= LONGEST_CHANGES else {"digest": _digest(stored), "objects": len(shown)}


def _text(identifier: UUID | None) -> str | None:
    return None if identifier is None else str(identifier)


def _shown(column: str, value: object) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    if any(mark in column for mark in _SECRET):
        return "(secret)"
    if isinstance(value, bytes):
        return "(bytes)"
    plain = value if isinstance(value, str | list | dict) else str(value)
    stored = json.dumps(plain, ensure_ascii=False, default=str, sort_keys=True)
    return json.loads(stored) if len(stored) <= LONGEST_VALUE else _digest(stored)


def _digest(stored: str) -> str:
    return f"sha256:{sha256(stored.encode()).hexdigest()}"
