"""Paused queues, wishes to workers, reasons of changes, versions of agents and users.

Revision: 0011
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "celery_queue_pauses",
        sa.Column("queue", sa.Text, primary_key=True),
        sa.Column(
            "paused_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.text("clock_timestamp()"),
        ),
        sa.Column("paused_by", sa.Text, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
    )
    op.add_column("celery_workers", sa.Column("drain_requested_at", sa.DateTime(timezone=True)))
    op.add_column("celery_workers", sa.Column("concurrency_wanted", sa.Integer))
    op.add_column("celery_workers", sa.Column("wish_refused", sa.Text))
    op.add_column("celery_periodic_task_config_versions", sa.Column("reason", sa.Text))
    for table in ("users", "agents"):
        op.add_column(table, sa.Column("version", sa.Integer, nullable=False, server_default="1"))


def downgrade() -> None:
    for table in ("agents", "users"):
        op.drop_column(table, "version")
    op.drop_column("celery_periodic_task_config_versions", "reason")
    for column in ("wish_refused", "concurrency_wanted", "drain_requested_at"):
        op.drop_column("celery_workers", column)
    op.drop_table("celery_queue_pauses")
