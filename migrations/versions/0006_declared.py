"""Declared schedules, their owners, and what was last checked against the catalogue.

Revision: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

CONFIGS, INDEX = "celery_periodic_task_configs", "uq_celery_periodic_task_configs_owner"


def upgrade() -> None:
    op.add_column(CONFIGS, sa.Column("owner", sa.Text))
    op.add_column(CONFIGS, sa.Column("owner_key", sa.Text))
    op.add_column(CONFIGS, sa.Column("drifted", sa.Boolean, nullable=False, server_default="false"))
    op.create_index(
        INDEX, CONFIGS, ["owner", "owner_key"], unique=True, postgresql_where=sa.text("owner IS NOT NULL")
    )
    op.create_table(
        "celery_task_catalogues",
        sa.Column("fingerprint", sa.Text, primary_key=True),
        sa.Column(
            "checked_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.text("clock_timestamp()"),
        ),
    )


def downgrade() -> None:
    op.drop_table("celery_task_catalogues")
    op.drop_index(INDEX, CONFIGS)
    for column in ("drifted", "owner_key", "owner"):
        op.drop_column(CONFIGS, column)
