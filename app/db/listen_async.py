"""A connection that hears notifications, for a process with an event loop."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import asyncpg  # type: ignore[import-untyped]

from app.settings import DatabaseSettings

CLOSE_PATIENCE = 2.0


class AsyncListener:
    """LISTENs on one channel with one connection. ``heard`` is called in the loop with each payload."""

    def __init__(
        self, settings: DatabaseSettings, channel: str, heard: Callable[[str], None], *, name: str
    ) -> None:
        self._settings = settings
        self._channel = channel
        self._heard = heard
        self._name = name
        self._connection: Any = None

    @property
    def connected(self) -> bool:
        """Whether notifications are heard, as far as is known."""
        return self._connection is not None and not self._connection.is_closed()

    async def connect(self) -> bool:
        """Be connected; True if the connection was made by this call. Raises as the driver does."""
        if self.connected:
            return False
        url = self._settings.product_url().set(drivername="postgresql")
        connection = await asyncpg.connect(
            url.render_as_string(hide_password=False),
            timeout=self._settings.connect_timeout,
            server_settings={"application_name": self._name},
        )
        try:
            await connection.add_listener(self._channel, self._on_notification)
        except BaseException:
            connection.terminate()
            raise
        self._connection = connection
        return True

    async def check(self) -> None:
        """Ask the server for an answer, since a connection that is dead says nothing. Raises when it is."""
        if self._connection is not None:
            await self._connection.execute("SELECT 1", timeout=self._settings.connect_timeout)

    async def close(self) -> None:
        """Give the connection up; safe to call twice."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                await asyncio.wait_for(connection.close(), CLOSE_PATIENCE)
            connection.terminate()

    def _on_notification(self, _connection: object, _pid: int, _channel: str, payload: str) -> None:
        self._heard(payload)
