"""The last start that a rate has reserved is found by its key.

Revision: 0015
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_celery_task_runs_reserved",
        "celery_task_runs",
        ["limit_key", "limit_slot_at"],
        postgresql_where=sa.text("state = 'queued' AND limit_slot_at IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_celery_task_runs_reserved", "celery_task_runs")
