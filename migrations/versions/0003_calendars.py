"""Calendars, and a small index of the schedules that name one.

Revision: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

CONFIGS = "celery_periodic_task_configs"
INDEX = "ix_celery_periodic_task_configs_calendars"
NOW = sa.text("clock_timestamp()")


def upgrade() -> None:
    op.create_table(
        "calendars",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sa.Column("version", sa.Integer, nullable=False, server_default="1"),
        sa.Column("description", sa.Text),
        sa.Column("dates", sa.ARRAY(sa.Date), nullable=False),
        sa.Column("country", sa.Text),
        sa.Column("subdivision", sa.Text),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=NOW),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=NOW),
    )
    op.create_index(INDEX, CONFIGS, ["id"], postgresql_where=sa.text("task_extra_config ? 'calendars'"))


def downgrade() -> None:
    op.drop_index(INDEX, CONFIGS)
    op.drop_table("calendars")
