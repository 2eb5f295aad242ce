"""Whether a pooled asyncpg connection still lives, asked only when there is reason to doubt it.

A server that ends or restarts closes its connections, which the socket shows without a round trip. What closes
nothing, a network that has gone, is found by asking what was idle for longer than `IDLE` seconds.
"""

import select
import time
from typing import Any

from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine

IDLE = 5.0
_RETURNED = "upbeat_returned"


def watch(engine: AsyncEngine) -> None:
    """Replace dead connections of this engine when they are taken from its pool."""

    def taken(connection: Any, record: Any, _: object) -> None:
        returned = record.info.get(_RETURNED)
        if returned is None or not doubted(connection.driver_connection, returned):
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise DisconnectionError from error

    def returned(_: object, record: Any) -> None:
        record.info[_RETURNED] = time.monotonic()

    event.listen(engine.sync_engine, "checkout", taken)
    event.listen(engine.sync_engine, "checkin", returned)


def doubted(driver: Any, since: float) -> bool:
    """Whether a connection of asyncpg that nobody has used since then (monotonic) should be asked if it lives."""
    return time.monotonic() - since >= IDLE or _speaks(driver)


def _speaks(driver: Any) -> bool:
    """Whether the server has sent something that nobody asked for, such as the end."""
    if driver.is_closed():
        return True
    socket = driver._transport.get_extra_info("socket")  # noqa: SLF001 - asyncpg shows it nowhere else
    poll = select.poll()
    poll.register(socket.fileno(), select.POLLIN)
    return bool(poll.poll(0))
