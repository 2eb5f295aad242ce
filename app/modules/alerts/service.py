"""The face of this module: alerts as a resource, and the facts that others make deliveries of."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from app.db.clearing import BATCH, delete_some
from app.db.companions import unit
from app.errors import Conflict, NotFound
from app.modules.alerts import statements
from app.modules.alerts.models import AlertRow, FactRow
from app.modules.alerts.watching import Watch, alone, emit, open_alert
from app.modules.alerts.words import OPENED_BY, TEST, AlertKind, FactType, message_of
from app.scheduling.schedules import database_time

__all__ = [
    "TEST",
    "AlertKind",
    "Alerts",
    "FactRow",
    "FactType",
    "Standing",
    "Watch",
    "alone",
    "emit",
    "forget_old",
    "take",
]

Standing = Literal["open", "acknowledged", "closed"]


class Alerts:
    """Alerts, as methods."""

    def __init__(self, sessions: async_sessionmaker[AsyncSession]) -> None:
        self._sessions = sessions

    async def page(
        self,
        *,
        limit: int,
        before: UUID | None = None,
        standing: Standing | None = None,
        kind: AlertKind | None = None,
        schedule_id: UUID | None = None,
    ) -> list[AlertRow]:
        """Up to ``limit`` alerts, the youngest first; `open` are those that nobody has acknowledged."""
        query = select(AlertRow).order_by(AlertRow.id.desc()).limit(limit)
        if before is not None:
            query = query.where(AlertRow.id < before)
        if standing is not None:
            query = query.where(
                AlertRow.closed_at.is_not(None) if standing == "closed" else AlertRow.closed_at.is_(None)
            )
        if standing in ("open", "acknowledged"):
            query = query.where((AlertRow.acknowledged_at.is_not(None)) == (standing == "acknowledged"))
        if kind is not None:
            query = query.where(AlertRow.kind == kind)
        if schedule_id is not None:
            query = query.where(AlertRow.schedule_id == schedule_id)
        async with self._sessions() as session:
            return list(await session.scalars(query))

    async def get(self, alert_id: UUID) -> AlertRow:
        """One alert; raises NotFound."""
        async with self._sessions() as session:
            return _found(await session.get(AlertRow, alert_id))

    async def acknowledge(self, alert_id: UUID, *, actor: str, note: str | None) -> AlertRow:
        """Somebody has seen it. Again, it gets the new name and note.

        Raises:
            NotFound: there is none with this id.
            Conflict: it is closed.
        """

        def work(session: Session) -> AlertRow:
            row = _found(session.get(AlertRow, alert_id, with_for_update=True))
            if row.closed_at is not None:
                raise Conflict("The alert is closed: what it told of is over.")
            row.acknowledged_at, row.acknowledged_by, row.note = database_time(session), actor, note
            return row

        return await unit(self._sessions, work)


def take(session: Session, limit: int) -> Sequence[Any]:
    """The oldest facts of which nothing was made yet, now taken; alerts that they open are opened.

    Each has the attributes of `FactRow`. The caller makes the rest of them in the same transaction.
    """
    facts = session.execute(statements.TAKE, {"limit": limit}).all()
    for fact in facts:
        kind = OPENED_BY.get(fact.type)
        if kind is not None and fact.schedule_id is not None:
            about = {"schedule_id": fact.schedule_id, "run_id": fact.run_id, "at": fact.at}
            open_alert(session, kind, str(fact.schedule_id), message_of(fact.type, fact.data), **about)
    if facts:
        session.execute(statements.TAKEN, {"ids": [fact.id for fact in facts]})
    return facts


async def forget_old(
    sessions: async_sessionmaker[AsyncSession],
    *,
    facts: timedelta,
    alerts: timedelta,
    needed: ColumnElement[bool],
) -> bool:
    """Delete some facts, with their deliveries, and closed alerts, that are older than this; True if there may be more.

    Facts for which ``needed`` holds stay.
    """
    old_facts = FactRow.at < select(func.clock_timestamp() - facts).scalar_subquery()
    old_alerts = AlertRow.closed_at < select(func.clock_timestamp() - alerts).scalar_subquery()
    deleted = [
        await delete_some(sessions, FactRow, old_facts & ~needed),
        await delete_some(sessions, AlertRow, old_alerts),
    ]
    return max(deleted) == BATCH


def _found(row: AlertRow | None) -> AlertRow:
    if row is None:
        raise NotFound("There is no alert with this id. GET /api/v1/alerts lists them.")
    return row
