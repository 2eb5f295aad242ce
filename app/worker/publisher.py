"""Wake-ups as Celery messages: prepared protocol-2 envelopes, pushed many at a time.

The envelope is what a stock `apply_async` sends, without arguments; a stock worker consumes it. Made
by hand, and pushed through kombu's own client, it costs a fiftieth of one.
"""

import base64
import json
import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any
from uuid import uuid4

from celery.utils.nodenames import anon_nodename

from app.scheduling.messages import BrokerUnavailable, RunMessage
from app.worker.broker import BrokerClient

logger = logging.getLogger(__name__)

BATCH = 500

BODY = base64.b64encode(
    json.dumps([[], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]).encode()
).decode()


class CeleryPublisher:
    """Implements `app.scheduling.messages.Publisher`; may be shared by threads, and used after a fork."""

    def __init__(self, app: Any) -> None:
        self._broker = BrokerClient(app)

    def publish(self, messages: Sequence[RunMessage]) -> None:
        """Send all; blocks for a few socket timeouts at most.

        Raises:
            BrokerUnavailable: some or all were not sent; sending one twice does no harm.
        """
        if messages:
            self._broker.use(lambda client: self._push(client, messages))

    def try_publish(self, messages: Sequence[RunMessage]) -> None:
        """As `publish`; a broker that is away is logged, the runs stay queued and are sent later."""
        try:
            self.publish(messages)
        except BrokerUnavailable as error:
            logger.warning(
                "broker is away, %d runs wait: %s", len(messages), error, extra={"action": "publish_failed"}
            )

    def ping(self) -> None:
        """Ask the broker for an answer.

        Raises:
            BrokerUnavailable: there was none.
        """
        self._broker.use(lambda client: client.ping())

    def close(self) -> None:
        """Give the connection up; the next call makes a new one."""
        self._broker.close()

    def _push(self, client: Any, messages: Iterable[RunMessage]) -> None:
        remaining, origin = iter(messages), anon_nodename()
        while batch := list(islice(remaining, BATCH)):
            now = time.time()
            values: dict[str, list[str]] = defaultdict(list)
            for message in batch:
                values[message.queue].append(json.dumps(envelope(message, now, origin)))
            with client.pipeline(transaction=False) as pipeline:
                for queue, pushed in values.items():
                    pipeline.lpush(queue, *pushed)
                pipeline.execute()


def envelope(message: RunMessage, published_at: float, origin: str) -> dict[str, Any]:
    """The stored form of one message, as a stock `apply_async` makes it.

    ``published_at`` is in seconds since the epoch; the worker records it with the start.
    """
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
            "origin": origin,
            "ignore_result": False,
            "replaced_task_nesting": 0,
            "stamped_headers": None,
            "stamps": {},
            "upbeat_published_at": published_at,
            "upbeat_restartable": message.restartable,
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
