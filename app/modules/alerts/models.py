"""Facts, each written in the transaction that makes it one, and alerts, open until their condition is over."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, Identity, Index, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, PrimaryId
from app.scheduling.models import NOW


class FactRow(Base):
    """Something worth telling. Triggers write most of them (migration 0012), `watching` the rest.

    ``data`` is what receivers are sent. ``taken_at`` is set when alerts and deliveries have been made of it.
    """

    __tablename__ = "facts"
    __table_args__ = (
        Index("ix_facts_untaken", "id", postgresql_where=text("taken_at IS NULL")),
        Index(None, "at"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    type: Mapped[str]
    at: Mapped[datetime] = mapped_column(server_default=NOW)
    schedule_id: Mapped[UUID | None]
    run_id: Mapped[UUID | None]
    task: Mapped[str | None]
    tags: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default="{}")
    data: Mapped[dict[str, Any]]
    taken_at: Mapped[datetime | None]


class AlertRow(Base):
    """A condition that somebody should know of. At most one of a kind is open for a subject.

    ``subject`` is a schedule's id, a queue's name, or `beats`; ``count`` how often it was seen while open, ``last_at``
    when last.
    """

    __tablename__ = "alerts"
    __table_args__ = (
        Index(
            "uq_alerts_open",
            "kind",
            "subject",
            unique=True,
            postgresql_where=text("closed_at IS NULL"),
        ),
        Index(None, "schedule_id", "id"),
        Index(None, "closed_at"),
    )

    id: Mapped[PrimaryId]
    kind: Mapped[str]
    subject: Mapped[str]
    schedule_id: Mapped[UUID | None]
    run_id: Mapped[UUID | None]
    message: Mapped[str]
    count: Mapped[int] = mapped_column(server_default="1")
    opened_at: Mapped[datetime] = mapped_column(server_default=NOW)
    last_at: Mapped[datetime] = mapped_column(server_default=NOW)
    acknowledged_at: Mapped[datetime | None]
    acknowledged_by: Mapped[str | None]
    note: Mapped[str | None]
    closed_at: Mapped[datetime | None]
