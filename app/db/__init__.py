"""The database layer: base and column types, engines and session makers, migration, notification.

The only package that makes engines or connections.
"""

from app.db.autocommitting import Autocommitting, Lent
from app.db.base import Base
from app.db.engines import async_engine, async_sessions, sync_engine, sync_sessions
from app.db.single import execute_alone

__all__ = [
    "Autocommitting",
    "Base",
    "Lent",
    "async_engine",
    "async_sessions",
    "execute_alone",
    "sync_engine",
    "sync_sessions",
]
