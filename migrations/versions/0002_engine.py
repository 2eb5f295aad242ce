"""The engine: pauses, what a clock counts, runs that wait for others, cancellation.

Revision: 0002
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

CONFIGS, CLOCKS, RUNS = "celery_periodic_task_configs", "celery_periodic_task_clocks", "celery_task_runs"


def added() -> dict[str, list[sa.Column[Any]]]:
    """The new columns by table, made anew for each use."""
    return {
        CONFIGS: [
            sa.Column("paused_at", sa.DateTime(timezone=True)),
            sa.Column("paused_by", sa.Text),
            sa.Column("pause_note", sa.Text),
        ],
        CLOCKS: [
            sa.Column("run_count", sa.Integer, nullable=False, server_default="0"),
            sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
        ],
        RUNS: [
            sa.Column("blocked_by", sa.Uuid),
            sa.Column("settles", sa.Boolean, nullable=False, server_default="false"),
            sa.Column("cancel_requested_at", sa.DateTime(timezone=True)),
            sa.Column("cancel_reason", sa.Text),
        ],
    }


def upgrade() -> None:
    for table, columns in added().items():
        for column in columns:
            op.add_column(table, column)
    op.create_index(
        "ix_celery_task_runs_waiting",
        RUNS,
        ["blocked_by"],
        postgresql_where=sa.text("blocked_by IS NOT NULL"),
    )
    op.create_index(
        "ix_celery_task_runs_backfill",
        RUNS,
        ["schedule_id", "scheduled_for"],
        postgresql_where=sa.text("origin = 'backfill'"),
    )


def downgrade() -> None:
    op.drop_index("ix_celery_task_runs_backfill", RUNS)
    op.drop_index("ix_celery_task_runs_waiting", RUNS)
    for table, columns in added().items():
        for column in reversed(columns):
            op.drop_column(table, column.name)
