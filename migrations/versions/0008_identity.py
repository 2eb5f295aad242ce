"""Identity: rotating sessions, API keys, throttled logins, the audit, idempotency keys.

Revision: 0008
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

NOW = sa.text("clock_timestamp()")

APPEND_ONLY = """
CREATE FUNCTION upbeat_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$
"""


def instant(name: str, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), **options)


def session_columns() -> list[sa.Column[Any]]:
    """The new columns of sessions, made anew for each use."""
    return [
        sa.Column("previous_hash", sa.LargeBinary),
        instant("previous_until"),
        sa.Column("csrf_hash", sa.LargeBinary),
        sa.Column("address", sa.Text),
        sa.Column("user_agent", sa.Text),
        instant("rotated_at", nullable=False, server_default=NOW),
        instant("last_used_at", nullable=False, server_default=NOW),
    ]


def upgrade() -> None:
    op.add_column("users", instant("last_login_at"))
    for column in session_columns():
        op.add_column("user_sessions", column)
    op.create_index(None, "user_sessions", ["previous_hash"])
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("user_id", sa.Uuid, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("start", sa.Text, nullable=False),
        sa.Column("key_hash", sa.LargeBinary, nullable=False, unique=True),
        sa.Column("scopes", JSONB, nullable=False),
        instant("created_at", nullable=False, server_default=NOW),
        *(instant(name) for name in ("expires_at", "last_used_at", "revoked_at")),
    )
    op.create_index(None, "api_keys", ["user_id"])
    op.create_table(
        "login_throttles",
        sa.Column("subject", sa.LargeBinary, primary_key=True),
        sa.Column("failures", sa.Integer, nullable=False),
        instant("last_failure_at", nullable=False, server_default=NOW),
        instant("blocked_until"),
    )
    op.create_index(None, "login_throttles", ["last_failure_at"])
    op.create_table(
        "idempotency_keys",
        sa.Column("caller", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("fingerprint", sa.LargeBinary, nullable=False),
        sa.Column("status", sa.Integer),
        sa.Column("headers", JSONB),
        sa.Column("body", sa.Text),
        instant("created_at", nullable=False, server_default=NOW),
        instant("expires_at", nullable=False),
    )
    op.create_index(None, "idempotency_keys", ["expires_at"])
    audit()


def audit() -> None:
    op.create_table(
        "audit_log",
        sa.Column("id", sa.Uuid, primary_key=True),
        instant("at", nullable=False, server_default=NOW),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("actor_id", sa.Uuid),
        sa.Column("means", sa.Text, nullable=False),
        sa.Column("credential_id", sa.Uuid),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False, server_default="done"),
        sa.Column("object_type", sa.Text),
        sa.Column("object_id", sa.Text),
        sa.Column("changes", JSONB, nullable=False),
        sa.Column("request_id", sa.Text),
        sa.Column("address", sa.Text),
    )
    op.create_index(None, "audit_log", ["actor", "id"])
    op.create_index(None, "audit_log", ["object_type", "object_id", "id"])
    op.execute(APPEND_ONLY)
    op.execute(
        "CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log"
        " FOR EACH STATEMENT EXECUTE FUNCTION upbeat_append_only()"
    )


def downgrade() -> None:
    for table in ("audit_log", "idempotency_keys", "login_throttles", "api_keys"):
        op.drop_table(table)
    op.execute("DROP FUNCTION upbeat_append_only()")
    op.drop_index("ix_user_sessions_previous_hash", "user_sessions")
    for column in reversed(session_columns()):
        op.drop_column("user_sessions", column.name)
    op.drop_column("users", "last_login_at")
