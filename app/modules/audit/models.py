"""The record of changes. A trigger refuses UPDATE, DELETE and TRUNCATE, whoever asks."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, PrimaryId
from app.scheduling.models import NOW


class AuditRow(Base):
    """One change, or one attempt that matters (a login that was refused).

    ``means`` is how: session, cookie, api_key or cli; ``credential_id`` is that session or key. ``changes`` maps
    ``table/id`` to the columns that changed, each with ``before`` and ``after``; secrets and long values stand there as
    digests. No foreign keys: the record outlives what it is about.
    """

    __tablename__ = "audit_log"
    __table_args__ = (Index(None, "actor", "id"), Index(None, "object_type", "object_id", "id"))

    id: Mapped[PrimaryId]
    at: Mapped[datetime] = mapped_column(server_default=NOW)
    actor: Mapped[str]
    actor_id: Mapped[UUID | None]
    means: Mapped[str]
    credential_id: Mapped[UUID | None]
    action: Mapped[str]
    outcome: Mapped[str] = mapped_column(server_default="done")
    object_type: Mapped[str | None]
    object_id: Mapped[str | None]
    changes: Mapped[dict[str, Any]]
    request_id: Mapped[str | None]
    address: Mapped[str | None]
