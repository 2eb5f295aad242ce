"""A connection that hears notifications, for a process that waits in `select`."""

import math
import select
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from psycopg import sql

from app.db.engines import psycopg_arguments
from app.settings import DatabaseSettings

SCHEDULES_CHANNEL = "upbeat_schedules"


class Listener:
    """LISTENs on one channel with a connection of its own, made when first needed.

    Every method may raise `psycopg.Error` when the database is away; the connection is then closed,
    and the next call makes a new one. What was notified in between is not heard: look at the tables
    after each `connect` before waiting.
    """

    def __init__(
        self, settings: DatabaseSettings, *, channel: str = SCHEDULES_CHANNEL, name: str = "upbeat-listen"
    ) -> None:
        self._settings = settings
        self._channel = channel
        self._name = name
        self._connection: psycopg.Connection | None = None

    def connect(self) -> bool:
        """Be connected; True if the connection was made by this call."""
        if self._connection is not None and not self._connection.closed:
            return False
        url = self._settings.product_url().render_as_string(hide_password=False)
        connect: Callable[..., psycopg.Connection] = psycopg.connect
        connection = connect(url, autocommit=True, **psycopg_arguments(self._settings, self._name))
        try:
            connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self._channel)))
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return True

    def fileno(self) -> int:
        """The socket that becomes readable when something was notified."""
        self.connect()
        if self._connection is None:
            raise psycopg.OperationalError("the connection was closed while it was being made")
        return self._connection.fileno()

    def drain(self) -> bool:
        """Take what has arrived, without waiting; True if there was a notification."""
        return bool(self.payloads())

    def payloads(self) -> list[str]:
        """As `drain`, but answers what the notifications say."""
        if self._connection is None:
            return []
        try:
            return [notification.payload for notification in self._connection.notifies(timeout=0)]
        except psycopg.Error:
            self.close()
            raise

    def close(self) -> None:
        """Give the connection up; safe to call twice."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def readable(watched: Sequence[Any], seconds: float) -> list[Any]:
    """Which of these files can be read from; waits for the first one, ``seconds`` at most.

    As `select.select`, which refuses what a process with more than 1024 open files may have.
    """
    poll, by_number = select.poll(), {}
    for each in watched:
        number = each if isinstance(each, int) else each.fileno()
        by_number[number] = each
        poll.register(number, select.POLLIN)
    return [by_number[number] for number, _ in poll.poll(math.ceil(max(0.0, seconds) * 1000))]
