"""Users and login sessions. A session's token is stored only as a hash."""

from datetime import date, datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, LargeBinary, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, PrimaryId
from app.scheduling.models import NOW


class User(Base):
    """A person who may log in."""

    __tablename__ = "users"
    __table_args__ = (CheckConstraint("role IN ('viewer', 'operator', 'admin')", name="role"),)

    id: Mapped[PrimaryId]
    username: Mapped[str] = mapped_column(unique=True)
    password_hash: Mapped[str]
    role: Mapped[str]
    active: Mapped[bool] = mapped_column(server_default="true")
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)


class LoginSession(Base):
    """One login: opaque to the client, found by the hash of its token."""

    __tablename__ = "user_sessions"
    __table_args__ = (
        Index(None, "expires_at"),
        Index(None, "revoked_at", postgresql_where=text("revoked_at IS NOT NULL")),
    )

    id: Mapped[PrimaryId]
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    token_hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]


class SessionStatisticsRow(Base):
    """How many login sessions there were when they were last counted on a day (UTC)."""

    __tablename__ = "user_session_statistics"

    day: Mapped[date] = mapped_column(primary_key=True)
    taken_at: Mapped[datetime]
    total: Mapped[int]
    active: Mapped[int]
    expired: Mapped[int]
    revoked: Mapped[int]
    users: Mapped[int]
