"""What a run tells while it runs, which limits it obeys, and what workers say of themselves.

Revision: 0007
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

RUNS, WORKERS, BEATS, LIMITS = "celery_task_runs", "celery_workers", "celery_beats", "celery_task_limits"


def added() -> dict[str, list[sa.Column[Any]]]:
    """The new columns by table, made anew for each use."""
    return {
        RUNS: [
            sa.Column("progress", JSONB),
            sa.Column("streamed_until", sa.DateTime(timezone=True)),
            sa.Column("limit_key", sa.Text, sa.Computed("options ->> 'concurrency_key'", persisted=True)),
            sa.Column("limit_slot_at", sa.DateTime(timezone=True)),
            sa.Column("traceparent", sa.Text),
        ],
        WORKERS: [
            sa.Column("state", sa.Text, nullable=False, server_default="ready"),
            sa.Column("pool", sa.Text),
            sa.Column("concurrency", sa.Integer),
            sa.Column("version", sa.Text),
        ],
        BEATS: [sa.Column("version", sa.Text)],
    }


def upgrade() -> None:
    for table, columns in added().items():
        for column in columns:
            op.add_column(table, column)
    op.create_index(
        "ix_celery_task_runs_limited",
        RUNS,
        ["limit_key"],
        postgresql_where=sa.text("limit_key IS NOT NULL AND state = 'running'"),
    )
    op.create_index(
        "ix_celery_task_runs_held",
        RUNS,
        ["limit_key", "due_at"],
        postgresql_where=sa.text("state = 'queued' AND reason = 'concurrency_limit'"),
    )
    op.create_table(
        LIMITS,
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("next_free_at", sa.DateTime(timezone=True), nullable=False),
    )


def downgrade() -> None:
    op.drop_table(LIMITS)
    op.drop_index("ix_celery_task_runs_held", RUNS)
    op.drop_index("ix_celery_task_runs_limited", RUNS)
    for table, columns in added().items():
        for column in reversed(columns):
            op.drop_column(table, column.name)
