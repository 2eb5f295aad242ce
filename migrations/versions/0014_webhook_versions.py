"""A webhook has a version, so that who edits it can say which one they have seen.

Revision: 0014
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("webhooks", sa.Column("version", sa.Integer, server_default="1", nullable=False))


def downgrade() -> None:
    op.drop_column("webhooks", "version")
