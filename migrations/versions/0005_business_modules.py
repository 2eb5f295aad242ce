"""Business modules: agents with their usage and calls, statistics of login sessions by day.

Revision: 0005
"""

from datetime import datetime

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

NOW = sa.text("clock_timestamp()")


def instant(name: str, **options: object) -> sa.Column[datetime]:
    return sa.Column(name, sa.DateTime(timezone=True), **options)  # type: ignore[arg-type]


def sessions() -> None:
    op.create_index(None, "user_sessions", ["revoked_at"], postgresql_where=sa.text("revoked_at IS NOT NULL"))
    op.create_table(
        "user_session_statistics",
        sa.Column("day", sa.Date, primary_key=True),
        instant("taken_at", nullable=False),
        *(
            sa.Column(name, sa.Integer, nullable=False)
            for name in ("total", "active", "expired", "revoked", "users")
        ),
    )


def agents() -> None:
    op.create_table(
        "agents",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("kind", "url")),
        *(sa.Column(name, sa.Text) for name in ("health_url", "description")),
        sa.Column("enabled", sa.Boolean, nullable=False, server_default="true"),
        *(sa.Column(name, sa.Text) for name in ("model", "system_prompt", "prompt_template")),
        sa.Column("max_tokens", sa.Integer),
        sa.Column("time_limit", sa.Float, nullable=False),
        sa.Column("credential", sa.LargeBinary),
        sa.Column("credential_header", sa.Text, nullable=False),
        instant("credential_set_at"),
        sa.Column("daily_calls", sa.Integer),
        sa.Column("daily_tokens", sa.BigInteger),
        sa.Column("exhausted_on", sa.Date),
        sa.Column("health", sa.Text, nullable=False, server_default="unknown"),
        sa.Column("failures_allowed", sa.Integer, nullable=False),
        sa.Column("consecutive_failures", sa.Integer, nullable=False, server_default="0"),
        sa.Column("last_error", sa.Text),
        instant("last_checked_at"),
        instant("created_at", nullable=False, server_default=NOW),
        instant("updated_at", nullable=False, server_default=NOW),
        sa.CheckConstraint("kind IN ('chat', 'webhook')", name="kind"),
        sa.CheckConstraint("health IN ('unknown', 'healthy', 'unhealthy')", name="health"),
    )
    op.create_table(
        "agent_usage",
        sa.Column("agent_id", sa.Uuid, sa.ForeignKey("agents.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("calls", sa.Integer, nullable=False),
        sa.Column("tokens", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "agent_calls",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("agent_id", sa.Uuid, nullable=False),
        sa.Column("agent_name", sa.Text, nullable=False),
        sa.Column("run_id", sa.Uuid),
        sa.Column("attempt", sa.SmallInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("status", sa.SmallInteger),
        sa.Column("error", sa.Text),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("reply", sa.Text),
        *(sa.Column(name, sa.Integer) for name in ("prompt_tokens", "completion_tokens")),
        sa.Column("reserved_tokens", sa.BigInteger, nullable=False),
        sa.Column("duration", sa.Float),
        instant("called_at", nullable=False, server_default=NOW),
        sa.CheckConstraint("state IN ('sent', 'succeeded', 'failed')", name="state"),
    )
    op.create_index(None, "agent_calls", ["agent_id", "id"])


def upgrade() -> None:
    op.create_index(
        None,
        "celery_periodic_task_configs",
        ["paused_by"],
        postgresql_where=sa.text("paused_by IS NOT NULL"),
    )
    sessions()
    agents()


def downgrade() -> None:
    for table in ("agent_calls", "agent_usage", "agents", "user_session_statistics"):
        op.drop_table(table)
    op.drop_index("ix_user_sessions_revoked_at", "user_sessions")
    op.drop_index("ix_celery_periodic_task_configs_paused_by", "celery_periodic_task_configs")
