"""Agents, what they used on each day, and what was said."""

from datetime import date, datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, LargeBinary, SmallInteger
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, PrimaryId
from app.scheduling.models import NOW


class AgentRow(Base):
    """An HTTP endpoint that does work on demand."""

    __tablename__ = "agents"
    __table_args__ = (
        CheckConstraint("kind IN ('chat', 'webhook')", name="kind"),
        CheckConstraint("health IN ('unknown', 'healthy', 'unhealthy')", name="health"),
    )

    id: Mapped[PrimaryId]
    name: Mapped[str] = mapped_column(unique=True)
    version: Mapped[int] = mapped_column(server_default="1")
    kind: Mapped[str]
    url: Mapped[str]
    health_url: Mapped[str | None]
    description: Mapped[str | None]
    enabled: Mapped[bool] = mapped_column(server_default="true")
    model: Mapped[str | None]
    system_prompt: Mapped[str | None]
    prompt_template: Mapped[str | None]
    max_tokens: Mapped[int | None]
    time_limit: Mapped[float]
    credential: Mapped[bytes | None] = mapped_column(LargeBinary)
    credential_header: Mapped[str]
    credential_set_at: Mapped[datetime | None]
    daily_calls: Mapped[int | None]
    daily_tokens: Mapped[int | None] = mapped_column(BigInteger)
    # The day (UTC) on which the budget did not suffice.
    exhausted_on: Mapped[date | None]
    health: Mapped[str] = mapped_column(server_default="unknown")
    failures_allowed: Mapped[int]
    consecutive_failures: Mapped[int] = mapped_column(server_default="0")
    last_error: Mapped[str | None]
    last_checked_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    updated_at: Mapped[datetime] = mapped_column(server_default=NOW)


class AgentUsageRow(Base):
    """What an agent used on one day (UTC), with what is reserved for calls under way."""

    __tablename__ = "agent_usage"

    agent_id: Mapped[UUID] = mapped_column(ForeignKey("agents.id", ondelete="CASCADE"), primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    calls: Mapped[int]
    tokens: Mapped[int] = mapped_column(BigInteger)


class AgentCallRow(Base):
    """One request to an agent and what came of it. Outlives the agent, so it has no foreign key.

    `state` is `sent` until the outcome is known, and stays so if the worker died meanwhile.
    """

    __tablename__ = "agent_calls"
    __table_args__ = (
        Index(None, "agent_id", "id"),
        CheckConstraint("state IN ('sent', 'succeeded', 'failed')", name="state"),
    )

    id: Mapped[PrimaryId]
    agent_id: Mapped[UUID]
    agent_name: Mapped[str]
    run_id: Mapped[UUID | None]
    attempt: Mapped[int] = mapped_column(SmallInteger)
    state: Mapped[str]
    status: Mapped[int | None] = mapped_column(SmallInteger)
    error: Mapped[str | None]
    request: Mapped[str]
    reply: Mapped[str | None]
    prompt_tokens: Mapped[int | None]
    completion_tokens: Mapped[int | None]
    reserved_tokens: Mapped[int] = mapped_column(BigInteger)
    duration: Mapped[float | None]
    called_at: Mapped[datetime] = mapped_column(server_default=NOW)
