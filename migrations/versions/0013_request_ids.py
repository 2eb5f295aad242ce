"""A run knows the HTTP request that asked for it, so that its log lines can name it.

Revision: 0013
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("celery_task_runs", sa.Column("request_id", sa.Text))


def downgrade() -> None:
    op.drop_column("celery_task_runs", "request_id")
