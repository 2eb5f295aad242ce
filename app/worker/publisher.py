"""Wake-ups as Celery messages: prepared protocol-2 envelopes, pushed many at a time.

The envelope is what a stock `apply_async` sends, without arguments; a stock worker consumes it. Made
by hand, and pushed through kombu's own client, it costs a fiftieth of one.
"""

import base64
import json
import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any
from uuid import uuid4

from celery.utils.nodenames import anon_nodename

from app.scheduling.messages import BrokerUnavailable, RunMessage
from app.worker import bookkeeping

BATCH = 500
OPEN_FIRST = 1.0
OPEN_LONGEST = 5.0

BODY = base64.b64encode(
    json.dumps([[], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]).encode()
).decode()


class Breaker:
    """After a failure, refuse at once for a while, so that an outage costs one timeout and not one a call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open_until = 0.0
        self._pause = 0.0
        self._cause = ""

    def check(self) -> None:
        """Raises BrokerUnavailable while it is open."""
        if time.monotonic() < self._open_until:
            raise BrokerUnavailable(f"not tried again yet after: {self._cause}")

    def failed(self, cause: str) -> None:
        with self._lock:
            self._cause = cause
            self._pause = min(OPEN_LONGEST, self._pause * 2) if self._pause else OPEN_FIRST
            self._open_until = time.monotonic() + self._pause

    def succeeded(self) -> None:
        if self._pause:
            with self._lock:
                self._pause = self._open_until = 0.0


class CeleryPublisher:
    """Implements `app.scheduling.messages.Publisher`; may be shared by threads and used after a fork."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._breaker = Breaker()
        self._channel: Any = None
        self._origin = anon_nodename()

    def publish(self, messages: Sequence[RunMessage]) -> None:
        """Send all; blocks for a few socket timeouts at most.

        Raises:
            BrokerUnavailable: some or all were not sent; sending one twice does no harm.
        """
        if not messages:
            return
        self._breaker.check()
        with self._lock:
            self._breaker.check()
            self._guarded(lambda client: self._push(client, messages))

    def ping(self) -> None:
        """Ask the broker for an answer.

        Raises:
            BrokerUnavailable: there was none.
        """
        self._breaker.check()
        with self._lock:
            self._breaker.check()
            self._guarded(lambda client: client.ping())

    def close(self) -> None:
        """Give the connection up; the next call makes a new one."""
        with self._lock:
            self._disconnect()

    def _guarded(self, work: Any) -> None:
        try:
            if self._channel is None:
                # Not through Connection.connect(), which tries twice with two seconds between.
                transport = self._app.connection_for_write().transport
                self._channel = transport.create_channel(transport.establish_connection())
            with self._channel.conn_or_acquire() as client:
                work(client)
        except Exception as error:
            self._disconnect()
            cause = f"{type(error).__name__}: {bookkeeping.first_line(error)}"
            self._breaker.failed(cause)
            raise BrokerUnavailable(cause) from error
        self._breaker.succeeded()

    def _disconnect(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel._disconnect_pools()

    def _push(self, client: Any, messages: Iterable[RunMessage]) -> None:
        remaining = iter(messages)
        while batch := list(islice(remaining, BATCH)):
            now = time.time()
            values: dict[str, list[str]] = defaultdict(list)
            for message in batch:
                values[message.queue].append(json.dumps(self.envelope(message, now)))
            with client.pipeline(transaction=False) as pipeline:
                for queue, pushed in values.items():
                    pipeline.lpush(queue, *pushed)
                pipeline.execute()

    def envelope(self, message: RunMessage, published_at: float) -> dict[str, Any]:
        """The stored form of one message; ``published_at`` in seconds since the epoch."""
        run_id = str(message.run_id)
        return {
            "body": BODY,
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {
                "lang": "py",
                "task": message.task,
                "id": run_id,
                "shadow": None,
                "eta": None,
                "expires": None,
                "group": None,
                "group_index": None,
                "retries": message.attempt - 1,
                "timelimit": [message.time_limit, message.soft_time_limit],
                "root_id": run_id,
                "parent_id": None,
                "argsrepr": "()",
                "kwargsrepr": "{}",
                "origin": self._origin,
                "ignore_result": False,
                "replaced_task_nesting": 0,
                "stamped_headers": None,
                "stamps": {},
                "upbeat_published_at": published_at,
            },
            "properties": {
                "correlation_id": run_id,
                "reply_to": "",
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": message.queue},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": str(uuid4()),
            },
        }
