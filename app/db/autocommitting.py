"""Connections on which each statement is a transaction of its own, one of them kept at hand between two uses.

To take a connection from the pool and to give it back costs a process more than a statement does.
"""

import time
from types import TracebackType
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.db import freshness

_PING = text("SELECT 1")


class Autocommitting:
    """Gives out the connections of one engine, and keeps at most one; belongs to the engine's event loop."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._kept: tuple[AsyncConnection, Any, float] | None = None

    def one(self) -> "Lent":
        """A connection for the time of ``async with``."""
        return Lent(self)

    async def take(self) -> AsyncConnection:
        """The one at hand, or one from the pool. Raises DBAPIError when the database is away."""
        kept, self._kept = self._kept, None
        if kept is None:
            return await self._engine.connect()
        connection, driver, since = kept
        if freshness.doubted(driver, since):
            try:
                await connection.execute(_PING)
                await connection.rollback()
            except (DBAPIError, OSError):
                await connection.invalidate()
                await connection.close()
                return await self._engine.connect()
            except BaseException:
                await connection.__aexit__(None, None, None)
                raise
        return connection

    async def give_back(self, connection: AsyncConnection, *, sound: bool) -> None:
        """Keep a connection that is as it was, or give it to the pool."""
        sync = connection.sync_connection
        if (
            sound
            and self._kept is None
            and sync is not None
            and not (sync.closed or sync.invalidated)
            and sync.get_execution_options() == self._engine.sync_engine.get_execution_options()
        ):
            driver: Any = sync.connection.driver_connection
            if not driver.is_in_transaction():
                # Of what SQLAlchemy calls a transaction; nothing is sent.
                sync.rollback()
                self._kept = connection, driver, time.monotonic()
                return
            # Begun by a statement in words, and never ended: no pool would end it.
            await connection.invalidate()
        # In a task of its own: it goes on when this one is cancelled.
        await connection.__aexit__(None, None, None)

    async def close(self) -> None:
        """Give the one at hand to the pool."""
        kept, self._kept = self._kept, None
        if kept is not None:
            await kept[0].close()


class Lent:
    """``async with`` gives a connection; one that saw an error is not kept."""

    def __init__(self, connections: Autocommitting) -> None:
        self._connections = connections
        self._connection: AsyncConnection | None = None

    async def __aenter__(self) -> AsyncConnection:
        self._connection = await self._connections.take()
        return self._connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await self._connections.give_back(connection, sound=error is None)
