"""Alembic's environment: one migration at a time, with timeouts, on Upbeat's own database."""

from typing import Any

from alembic import context
from sqlalchemy import Connection, text

import app.modules
import app.scheduling.models
from app.db import locks
from app.db.base import Base
from app.db.engines import maintenance_engine
from app.db.migrate import LOCK_PATIENCE
from app.db.privileges import PARTITIONED
from app.settings import get_settings

app.modules.import_models()


def include_name(name: str | None, kind: str, parents: Any) -> bool:
    """Leave out partitions: they are made and dropped while the product runs."""
    return not (
        kind == "table"
        and name is not None
        and name.startswith(tuple(f"{parent}_2" for parent in PARTITIONED))
    )


def migrate(connection: Connection) -> None:
    """Run the migrations under the advisory lock, one transaction for each."""
    connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": locks.MIGRATION})
    connection.execute(text(f"SET lock_timeout = {int(LOCK_PATIENCE * 1000)}"))
    connection.execute(text("SET statement_timeout = '5min'"))
    connection.commit()
    try:
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            include_name=include_name,
            compare_type=True,
            compare_server_default=True,
            transaction_per_migration=True,
        )
        with context.begin_transaction():
            context.run_migrations()
    finally:
        connection.rollback()
        connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": locks.MIGRATION})
        connection.commit()


given = context.config.attributes.get("connection")
if given is not None:
    migrate(given)
else:
    engine = maintenance_engine(get_settings().database.product_url())
    with engine.connect().execution_options(isolation_level="READ COMMITTED") as own:
        migrate(own)
    engine.dispose()
