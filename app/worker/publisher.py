"""Wake-ups as Celery messages: prepared protocol-2 envelopes, pushed many at a time.

The envelope is what a stock `apply_async` sends, without arguments; a stock worker consumes it. Made
by hand, and pushed through kombu's own client, it costs a fiftieth of one.
"""

import base64
import json
import logging
import time
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from typing import Any
from uuid import UUID, uuid4

from celery.utils.nodenames import anon_nodename

from app import failpoints
from app.scheduling import tally
from app.scheduling.messages import QUEUES, BrokerUnavailable, Kind, RunMessage, Survey
from app.worker.broker import BrokerClient

logger = logging.getLogger(__name__)

BATCH = 500
MARK = "upbeat:mark"
_NO_RUN = UUID(int=0)

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
        if not messages:
            return
        try:
            self._broker.use(lambda client: self._push(client, messages))
        except BrokerUnavailable:
            tally.count("publish_failed", len(messages))
            raise

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

    def survey(self) -> Survey:
        """Look at the queues, and leave a mark if there is none.

        Raises:
            BrokerUnavailable: there was no answer.
        """
        answers = self._broker.use(_survey)
        return Survey(dict(zip(QUEUES, answers[2:], strict=True)), answers[1].decode())

    def discard(self, queues: Sequence[str]) -> int:
        """Drop the messages that lie in these queues; answers how many there were.

        Raises:
            BrokerUnavailable: some or all were not dropped.
        """
        answers = self._broker.use(lambda client: _discard(client, queues))
        return sum(answers[::2])

    def close(self) -> None:
        """Give the connection up; the next call makes a new one."""
        self._broker.close()

    def _push(self, client: Any, messages: Sequence[RunMessage]) -> None:
        origin = anon_nodename()
        for first in range(0, len(messages), BATCH):
            batch = messages[first : first + BATCH]
            values: dict[str, list[str]] = defaultdict(list)
            for message, stored in zip(batch, envelopes(batch, time.time(), origin), strict=True):
                values[message.kind.queue].append(stored)
            with client.pipeline(transaction=False) as pipeline:
                for queue, pushed in values.items():
                    pipeline.lpush(queue, *pushed)
                pipeline.execute()
            failpoints.reach("publish.pushed")


def _survey(client: Any) -> list[Any]:
    with client.pipeline(transaction=False) as pipeline:
        pipeline.set(MARK, uuid4().hex, nx=True)
        pipeline.get(MARK)
        for queue in QUEUES:
            pipeline.llen(queue)
        return pipeline.execute()  # type: ignore[no-any-return]


def _discard(client: Any, queues: Sequence[str]) -> list[int]:
    with client.pipeline(transaction=True) as pipeline:
        for queue in queues:
            pipeline.llen(queue)
            pipeline.delete(queue)
        return pipeline.execute()  # type: ignore[no-any-return]


def envelopes(messages: Sequence[RunMessage], published_at: float, origin: str) -> list[str]:
    """`envelope` of each as JSON, from templates, at a fifth of the cost.

    Delivery tags look like UUIDs: what is random in them is shared by one call, the rest counts.
    """
    at, tag = repr(published_at), str(uuid4())[:24]
    return [
        _traced(
            _template(kind, origin) % {"run": str(run_id), "at": at, "tag": f"{tag}{number:012x}"},
            traceparent,
        )
        for number, (run_id, kind, traceparent) in enumerate(messages)
    ]


def _traced(stored: str, traceparent: str | None) -> str:
    """With the header that OpenTelemetry's instrumentation of Celery would have added when publishing."""
    if traceparent is None:
        return stored
    return stored.replace('"headers": {', f'"headers": {{"traceparent": {json.dumps(traceparent)}, ', 1)


@lru_cache(maxsize=1024)
def _template(kind: Kind, origin: str) -> str:
    """`envelope` with places for what differs from message to message of a kind."""
    stored = envelope(RunMessage(_NO_RUN, kind), 0.0, origin)
    # No task, queue or host has NUL in its name.
    stored["headers"] |= {"id": "\0run", "root_id": "\0run", "upbeat_published_at": "\0at"}
    stored["properties"] |= {"correlation_id": "\0run", "delivery_tag": "\0tag"}
    text = json.dumps(stored).replace("%", "%%")
    for mark, place in (("\0run", '"%(run)s"'), ("\0at", "%(at)s"), ("\0tag", '"%(tag)s"')):
        text = text.replace(json.dumps(mark), place)
    return text


def envelope(message: RunMessage, published_at: float, origin: str) -> dict[str, Any]:
    """The stored form of one message, as a stock `apply_async` makes it.

    ``published_at`` is in seconds since the epoch; the worker records it with the start.
    """
    run_id, kind = str(message.run_id), message.kind
    return {
        "body": BODY,
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {
            "lang": "py",
            "task": kind.task,
            "id": run_id,
            "shadow": None,
            "eta": None,
            "expires": None,
            "group": None,
            "group_index": None,
            "retries": kind.attempt - 1,
            "timelimit": [kind.time_limit, kind.soft_time_limit],
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
            **({"upbeat_restartable": True} if kind.restartable else {}),
        },
        "properties": {
            "correlation_id": run_id,
            "reply_to": "",
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": kind.queue},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": str(uuid4()),
        },
    }
