"""Webhooks, and what is delivered to each."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    LargeBinary,
    SmallInteger,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, PrimaryId
from app.scheduling.models import NOW


class WebhookRow(Base):
    """An address that is told of facts: of these types and, if named, of these schedules, tasks or tags only.

    Secrets are sealed. The previous one signs too until ``previous_until``, so that receivers can change theirs.
    """

    __tablename__ = "webhooks"

    id: Mapped[PrimaryId]
    version: Mapped[int] = mapped_column(server_default="1")
    name: Mapped[str] = mapped_column(unique=True)
    url: Mapped[str]
    description: Mapped[str | None]
    enabled: Mapped[bool] = mapped_column(server_default="true")
    event_types: Mapped[list[str]] = mapped_column(ARRAY(Text))
    schedule_ids: Mapped[list[UUID] | None] = mapped_column(ARRAY(Uuid))
    tasks: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    tags: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    secret: Mapped[bytes] = mapped_column(LargeBinary)
    previous_secret: Mapped[bytes | None] = mapped_column(LargeBinary)
    previous_until: Mapped[datetime | None]
    secret_set_at: Mapped[datetime] = mapped_column(server_default=NOW)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    updated_at: Mapped[datetime] = mapped_column(server_default=NOW)


class DeliveryRow(Base):
    """One fact on its way to one webhook; its id is what receivers know repeats by.

    While it is pending, ``next_attempt_at`` is when it is due (again); whoever attempts it moves that into the future
    first, so that a process that dies leaves it to others.
    """

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        UniqueConstraint("fact_id", "webhook_id"),
        CheckConstraint("state IN ('pending', 'delivered', 'failed')", name="state"),
        Index(None, "webhook_id", "id"),
        Index(
            "ix_webhook_deliveries_due",
            "webhook_id",
            "next_attempt_at",
            postgresql_where=text("next_attempt_at IS NOT NULL"),
        ),
    )

    id: Mapped[PrimaryId]
    webhook_id: Mapped[UUID] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    fact_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("facts.id", ondelete="CASCADE"))
    type: Mapped[str]
    state: Mapped[str] = mapped_column(server_default="pending")
    attempts: Mapped[int] = mapped_column(server_default="0")
    tries_left: Mapped[int]
    next_attempt_at: Mapped[datetime | None]
    status: Mapped[int | None] = mapped_column(SmallInteger)
    error: Mapped[str | None]
    duration: Mapped[float | None]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    last_attempt_at: Mapped[datetime | None]
    delivered_at: Mapped[datetime | None]
