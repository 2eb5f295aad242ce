"""This process's own way to Redis, beside Celery's: short waits, and none at all during an outage."""

import os
import threading
import time
from collections.abc import Callable
from typing import Any

from billiard.exceptions import SoftTimeLimitExceeded

from app.scheduling.messages import BrokerUnavailable

OPEN_FIRST = 1.0
OPEN_LONGEST = 2.0


class Breaker:
    """After a failure, refuse at once for a while, so that an outage costs one timeout and not one a call."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._open_until = 0.0
        self._pause = 0.0
        self._cause = ""

    def check(self) -> None:
        """Raises BrokerUnavailable while it is open."""
        if self._clock() < self._open_until:
            raise BrokerUnavailable(f"not tried again yet after {self._cause}")

    def failed(self, cause: str) -> None:
        """Open for 1 s, and for twice as long after each further failure, up to 2 s."""
        self._cause = cause
        self._pause = min(OPEN_LONGEST, self._pause * 2) if self._pause else OPEN_FIRST
        self._open_until = self._clock() + self._pause

    def succeeded(self) -> None:
        """Close."""
        self._pause = self._open_until = 0.0


class BrokerClient:
    """A Redis client on kombu's channel, for one caller at a time; a forked child makes its own."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._breaker = Breaker()
        self._channel: Any = None

    def use(self, work: Callable[[Any], Any]) -> Any:
        """Give a redis client to ``work``, and its answer back; blocks for a few socket timeouts at most.

        Raises:
            BrokerUnavailable: for whatever reason it could not be done.
        """
        self._breaker.check()
        with self._lock:
            # Whoever waited here for a call that failed need not find out for himself.
            self._breaker.check()
            try:
                with self._connected().conn_or_acquire() as client:
                    answer = work(client)
            except BaseException as error:
                # It may have been left in the middle of an answer.
                if self._channel is not None:
                    # It stays: what it was made of would be left to the collector, an open file with it.
                    self._channel._disconnect_pools()
                if not isinstance(error, Exception) or isinstance(error, SoftTimeLimitExceeded):
                    raise
                cause = f"{type(error).__name__}: {error}"
                self._breaker.failed(cause)
                raise BrokerUnavailable(cause) from error
            self._breaker.succeeded()
            return answer

    def close(self) -> None:
        """Give the connection up; the next use makes a new one."""
        with self._lock:
            channel, self._channel = self._channel, None
            if channel is not None:
                transport = channel.connection
                transport.close_connection(transport)

    def _connected(self) -> Any:
        if self._channel is None:
            connection = self._app.connection_for_write()
            try:
                # Not through Connection.connect(), which tries twice with two seconds between.
                transport = connection.transport
                self._channel = transport.create_channel(transport.establish_connection())
                # What it was tried with; nobody uses that again, or sees that it is cut.
                self._channel._disconnect_pools()
            except BaseException:
                connection.release()
                raise
        return self._channel
