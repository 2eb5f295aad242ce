"""Readings and their sums by day.

Revision: readings_0001
"""

import sqlalchemy as sa
from alembic import op

revision = "readings_0001"
down_revision = None
branch_labels = ("readings",)
depends_on = "0001"


def upgrade() -> None:
    op.create_table(
        "readings",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("meter", sa.Text, nullable=False),
        sa.Column("value", sa.Float, nullable=False),
        sa.Column(
            "taken_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.text("clock_timestamp()"),
        ),
        sa.CheckConstraint("value >= 0", name="value"),
    )
    op.create_index(None, "readings", ["meter", "taken_at"])
    op.create_table(
        "readings_days",
        sa.Column("meter", sa.Text, primary_key=True),
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("total", sa.Float, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("readings_days")
    op.drop_table("readings")
