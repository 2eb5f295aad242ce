"""Foundation: schedules and their clocks, runs and their partitions, users and login sessions.

Revision: 0001
"""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from app.db.partitions import ensure_partitions

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

RUNS, ATTEMPTS, LOGS = "celery_task_runs", "celery_task_run_attempts", "celery_task_run_logs"
PARTITIONED = (RUNS, ATTEMPTS, LOGS)
NOW = sa.text("clock_timestamp()")


def instant(name: str, **options: object) -> sa.Column[datetime]:
    return sa.Column(name, sa.DateTime(timezone=True), **options)  # type: ignore[arg-type]


def schedules() -> None:
    op.create_table(
        "celery_periodic_task_configs",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
        *(
            sa.Column(name, sa.Text, nullable=False)
            for name in ("task_name", "task_path", "task", "task_type", "state")
        ),
        sa.Column("state_reason", sa.Text),
        *(
            sa.Column(name, JSONB, nullable=False)
            for name in ("schedule", "task_args", "task_kwargs", "task_extra_config")
        ),
        sa.Column("description", sa.Text),
        instant("created_at", nullable=False, server_default=NOW),
        instant("updated_at", nullable=False, server_default=NOW),
    )
    op.create_index(None, "celery_periodic_task_configs", ["task_name"])
    op.create_index(None, "celery_periodic_task_configs", ["task"])
    op.create_table(
        "celery_periodic_task_config_versions",
        sa.Column("schedule_id", sa.Uuid, primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("config", JSONB, nullable=False),
        sa.Column("author", sa.Text, nullable=False),
        instant("changed_at", nullable=False, server_default=NOW),
    )
    op.create_table(
        "celery_periodic_task_clocks",
        sa.Column(
            "schedule_id",
            sa.Uuid,
            sa.ForeignKey("celery_periodic_task_configs.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        instant("next_run_at"),
        postgresql_with={
            "fillfactor": "70",
            "autovacuum_vacuum_scale_factor": "0.01",
            "autovacuum_vacuum_threshold": "1000",
            "autovacuum_vacuum_cost_delay": "0",
        },
    )
    op.create_index(
        "ix_celery_periodic_task_clocks_due",
        "celery_periodic_task_clocks",
        ["next_run_at"],
        postgresql_where=sa.text("next_run_at IS NOT NULL"),
    )
    op.create_table(
        "celery_task_missed_ranges",
        sa.Column("schedule_id", sa.Uuid, primary_key=True),
        instant("first", primary_key=True),
        instant("last", primary_key=True),
        sa.Column("count", sa.Integer),
        sa.Column("reason", sa.Text, nullable=False),
        instant("recorded_at", nullable=False, server_default=NOW),
    )


def runs() -> None:
    op.create_table(
        RUNS,
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("origin", "task", "queue")),
        sa.Column("schedule_id", sa.Uuid),
        sa.Column("schedule_version", sa.Integer),
        instant("scheduled_for"),
        instant("due_at", nullable=False),
        *(instant(name) for name in ("start_deadline", "next_dispatch_at")),
        sa.Column("dispatches", sa.SmallInteger, nullable=False, server_default="0"),
        instant("published_at"),
        sa.Column("attempt", sa.SmallInteger, nullable=False, server_default="1"),
        sa.Column("worker", sa.Text),
        sa.Column("worker_id", sa.Uuid),
        sa.Column("start_token", sa.Uuid),
        *(instant(name) for name in ("started_at", "finished_at")),
        *(sa.Column(name, JSONB, nullable=False) for name in ("args", "kwargs", "options")),
        sa.Column("result", JSONB),
        sa.Column("error", JSONB),
        sa.Column("requested_by", sa.Text),
        sa.Column("replay_of", sa.Uuid),
        instant("created_at", nullable=False, server_default=NOW),
        postgresql_partition_by="RANGE (id)",
    )
    partial = {
        "dispatch": (["next_dispatch_at"], "next_dispatch_at IS NOT NULL"),
        "running": (["worker_id"], "state = 'running'"),
        "active": (["schedule_id"], "state IN ('queued', 'running') AND origin = 'schedule'"),
        "schedule": (["schedule_id", "id"], "schedule_id IS NOT NULL"),
    }
    for name, (columns, condition) in partial.items():
        op.create_index(f"ix_celery_task_runs_{name}", RUNS, columns, postgresql_where=sa.text(condition))
    op.create_table(
        ATTEMPTS,
        sa.Column("run_id", sa.Uuid, primary_key=True),
        sa.Column("attempt", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("worker", sa.Text),
        instant("started_at"),
        instant("finished_at", nullable=False),
        sa.Column("error", JSONB),
        postgresql_partition_by="RANGE (run_id)",
    )
    op.create_table(
        LOGS,
        sa.Column("run_id", sa.Uuid, primary_key=True),
        sa.Column("attempt", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        instant("logged_at", nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("level", "logger", "message")),
        postgresql_partition_by="RANGE (run_id)",
    )
    ensure_partitions(op.get_bind(), PARTITIONED, datetime.now(UTC))


def liveness() -> None:
    op.create_table(
        "celery_workers",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("queues", JSONB, nullable=False),
        instant("started_at", nullable=False, server_default=NOW),
        instant("lease_expires_at", nullable=False),
        instant("stopped_at"),
    )
    op.create_table(
        "celery_beats",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        instant("started_at", nullable=False, server_default=NOW),
        instant("last_pass_at", nullable=False),
    )


def identity() -> None:
    op.create_table(
        "users",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("username", sa.Text, nullable=False, unique=True),
        sa.Column("password_hash", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("active", sa.Boolean, nullable=False, server_default="true"),
        instant("created_at", nullable=False, server_default=NOW),
        sa.CheckConstraint("role IN ('viewer', 'operator', 'admin')", name="role"),
    )
    op.create_table(
        "user_sessions",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("user_id", sa.Uuid, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
        sa.Column("token_hash", sa.LargeBinary, nullable=False, unique=True),
        instant("created_at", nullable=False, server_default=NOW),
        instant("expires_at", nullable=False),
        instant("revoked_at"),
    )
    op.create_index(None, "user_sessions", ["expires_at"])
    op.create_index(None, "user_sessions", ["user_id"])


def upgrade() -> None:
    schedules()
    runs()
    liveness()
    identity()


def downgrade() -> None:
    for table in (
        "user_sessions",
        "users",
        "celery_beats",
        "celery_workers",
        LOGS,
        ATTEMPTS,
        RUNS,
        "celery_task_missed_ranges",
        "celery_periodic_task_clocks",
        "celery_periodic_task_config_versions",
        "celery_periodic_task_configs",
    ):
        op.drop_table(table)
