"""Users, login sessions, API keys, and how often a login failed. Secrets are stored only as hashes."""

from datetime import date, datetime
from typing import Any
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
    version: Mapped[int] = mapped_column(server_default="1")
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    last_login_at: Mapped[datetime | None]


class LoginSession(Base):
    """One login: opaque to the client, found by the hash of its token.

    A token that was replaced (``previous_hash``) is good until ``previous_until``, for the requests that were under
    way. ``csrf_hash`` is what a browser's session has besides: its cookie alone changes nothing.
    """

    __tablename__ = "user_sessions"
    __table_args__ = (
        Index(None, "expires_at"),
        Index(None, "revoked_at", postgresql_where=text("revoked_at IS NOT NULL")),
    )

    id: Mapped[PrimaryId]
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    token_hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    previous_hash: Mapped[bytes | None] = mapped_column(LargeBinary, index=True)
    previous_until: Mapped[datetime | None]
    csrf_hash: Mapped[bytes | None] = mapped_column(LargeBinary)
    address: Mapped[str | None]
    user_agent: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    rotated_at: Mapped[datetime] = mapped_column(server_default=NOW)
    last_used_at: Mapped[datetime] = mapped_column(server_default=NOW)
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]


class ApiKey(Base):
    """A credential for programs: shown once, found by its hash. ``start`` tells its owner which one it is."""

    __tablename__ = "api_keys"

    id: Mapped[PrimaryId]
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    name: Mapped[str]
    start: Mapped[str]
    key_hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    scopes: Mapped[list[Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class LoginThrottle(Base):
    """Failed logins in a row of one user name or one address, and until when it has to wait.

    ``subject`` is a hash: what people type into the field of a user name is sometimes their password.
    """

    __tablename__ = "login_throttles"

    subject: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    failures: Mapped[int]
    last_failure_at: Mapped[datetime] = mapped_column(server_default=NOW, index=True)
    blocked_until: Mapped[datetime | None]


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
