"""kombu's Redis transport with a guarded reader.

A stock consumer ends with an unrecoverable error on a body that is not JSON, or on an envelope
without properties. Here such a message is counted, logged and removed, and reading goes on.
"""

import base64
import json
import logging
from collections.abc import Callable
from functools import lru_cache
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from kombu.transport import TRANSPORT_ALIASES, redis
from kombu.utils.scheduling import priority_cycle

from app.worker import counters

logger = logging.getLogger(__name__)

CONTROL_QUEUES = "pidbox"
LARGEST_MESSAGE = 1_048_576
LARGEST_KNOWN_BODY = 256

# What reading a malformed message raises; kombu takes some of these for a lost connection.
NONSENSE = (AttributeError, KeyError, TypeError, ValueError)

_OPTIONAL_TEXT = (
    *("lang", "shadow", "group", "root_id", "parent_id", "origin", "compression"),
    *("traceparent", "tracestate", "baggage"),
)


class Refused(ValueError):
    """A message that no worker can make sense of; says why in a few words."""


def read_envelope(item: bytes) -> dict[str, Any]:
    """The envelope of a task message.

    Raises:
        Refused: it is not a task message of Celery's protocol 2 in JSON.
    """
    if len(item) > LARGEST_MESSAGE:
        raise Refused("too large")
    envelope = _json(item, "not JSON")
    if not isinstance(envelope, dict):
        raise Refused("not an object")
    properties, headers = envelope.get("properties"), envelope.get("headers")
    if not isinstance(properties, dict) or not isinstance(properties.get("delivery_tag"), str):
        raise Refused("no properties")
    delivery = properties.get("delivery_info", {})
    if not isinstance(delivery, dict) or not all(
        isinstance(delivery.get(name), str | None) for name in ("exchange", "routing_key")
    ):
        raise Refused("no properties")
    if not isinstance(headers, dict):
        raise Refused("no headers")
    _check_headers(headers)
    if envelope.get("content-type") != "application/json":
        raise Refused("not JSON content")
    if str(envelope.get("content-encoding")).lower() not in ("utf-8", "utf8"):
        raise Refused("not JSON content")
    _check_body(envelope.get("body"), properties.get("body_encoding"))
    return envelope


def _check_headers(headers: dict[str, Any]) -> None:
    _check_texts(headers)
    if headers.get("stamped_headers"):
        raise Refused("has stamps")
    retries = headers.get("retries")
    if retries is not None and (type(retries) is not int or not 0 <= retries < 30_000):
        raise Refused("bad retries")
    limits = headers.get("timelimit")
    if limits is not None and not (
        isinstance(limits, list)
        and len(limits) == 2
        and all(limit is None or _is_number(limit, below=1e9) for limit in limits)
    ):
        raise Refused("bad timelimit")
    published = headers.get("upbeat_published_at")
    if published is not None and not _is_number(published, below=1e11):
        raise Refused("bad upbeat_published_at")
    if not isinstance(headers.get("upbeat_restartable"), bool | None):
        raise Refused("bad upbeat_restartable")


def _check_texts(headers: dict[str, Any]) -> None:
    for name in ("task", "id"):
        if not isinstance(headers.get(name), str) or not headers[name]:
            raise Refused(f"no {name}")
    for name in ("eta", "expires"):
        # Delays and deadlines are PostgreSQL's; a worker that kept them would act on the run by itself.
        if headers.get(name) is not None:
            raise Refused(f"has {name}")
    for name in _OPTIONAL_TEXT:
        if not isinstance(headers.get(name), str | None):
            raise Refused(f"bad {name}")


def _is_number(value: object, *, below: float) -> bool:
    return type(value) in (int, float) and 0 < float(value) < below  # type: ignore[arg-type]


def _check_body(body: object, encoding: object) -> None:
    if not isinstance(body, str):
        raise Refused("no body")
    if encoding != "base64":
        raise Refused("bad body encoding")
    if len(body) <= LARGEST_KNOWN_BODY:
        _check_known(body)
    else:
        _check_content(body)


def _check_content(body: str) -> None:
    try:
        raw = base64.b64decode(body, validate=True)
    except ValueError:
        raise Refused("bad base64") from None
    content = _json(raw, "body not JSON")
    if not (
        isinstance(content, list)
        and len(content) == 3
        and isinstance(content[0], list)
        and isinstance(content[1], dict)
        and isinstance(content[2], dict | None)
    ):
        raise Refused("bad body")


# Our own wake-ups all have the same body, which says nothing.
_check_known = lru_cache(maxsize=16)(_check_content)


def _json(raw: bytes, problem: str) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        raise Refused(problem) from None


class OpenQueues(priority_cycle):  # type: ignore[misc]
    """Queues in strict order, without those that are paused: one set for the process, replaced as a whole."""

    paused: ClassVar[frozenset[str]] = frozenset()

    def consume(self, n: int) -> list[str]:
        """The queues to wait for a message of."""
        return [queue for queue in super().consume(n) if queue not in self.paused]


class Channel(redis.Channel):  # type: ignore[misc]
    """Reads one message at a time, and outlives those that are rubbish."""

    def __init__(self, connection: Any, **kwargs: Any) -> None:
        # Where kombu has those of all transports that there were.
        self._fanout_queues = connection.fanout_queues
        try:
            super().__init__(connection, **kwargs)
        except BaseException:
            # Its number was taken before Redis was asked, and there are 65,535: enough for a day without Redis.
            connection.close_channel(self)
            raise
        self._queue_cycle = OpenQueues()

    @property
    def do_restore(self) -> bool:
        """Whether taken messages are given back at the end: not where the connection is lost, its address with it.

        kombu would try all the same, and the worker would end with an error that is no connection's.
        """
        return self.connection is not None and self.connection.client is not None

    def close(self) -> None:
        """Close, and keep no connection, also when the broker cannot be told.

        kombu (5.7) then stops half way: with its connections open, and in the registry of `multiprocessing.util`, where
        its messages are to be given back when the process ends (`kombu.transport.virtual.QoS`), it stays for good.
        """
        try:
            super().close()
        except Transport.connection_errors + Transport.channel_errors as error:
            logger.debug("channel given up: %s", error)
            self._give_up()

    def _give_up(self) -> None:
        """What `close` does without the broker."""
        self.closed = True
        self._disconnect_pools()
        self._close_clients()
        transport = self.connection
        if transport is not None:
            transport.cycle.discard(self)
            transport.close_channel(self)
        if self._qos is not None:
            # Has no effect without a transport, but for leaving the registry.
            self._qos.restore_unacked_once()

    def _brpop_read(self, **options: Any) -> bool:
        # As the method that it replaces, with `read_envelope` where that one has `loads`.
        try:
            try:
                found = self.client.parse_response(self.client.connection, "BRPOP", **options)
            except self.connection_errors:
                self.client.connection.disconnect()
                raise
            if not found:
                raise redis.Empty
            key, item = found
            queue = key.decode().rsplit(self.sep, 1)[0]
            self._queue_cycle.rotate(queue)
            try:
                message = json.loads(item) if queue.endswith(CONTROL_QUEUES) else read_envelope(item)
            except ValueError as error:
                counters.refuse(str(error) if isinstance(error, Refused) else "not JSON", queue=queue)
            else:
                self.connection._deliver(message, queue)
            return True
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()

    def _receive_one(self, c: Any) -> bool:
        try:
            return bool(super()._receive_one(c))
        except RecursionError:
            counters.refuse("not a control message", queue="a control channel")
            raise redis.Empty from None

    def _deliver_fanout_message(self, message: Any, exchange: str) -> bool:
        try:
            return bool(super()._deliver_fanout_message(message, exchange))
        except NONSENSE:
            counters.refuse("not a control message", queue=exchange)
            return True


class Transport(redis.Transport):  # type: ignore[misc]
    """Redis, read with care, and forgotten when it is replaced."""

    Channel = Channel

    # Called before each try to connect: kombu may try for as long as Redis is away, and ask nobody.
    trying: ClassVar[Callable[[], object]] = staticmethod(lambda: None)

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        self.fanout_queues: dict[str, tuple[str, str]] = {}
        # An open file that kombu leaves to the collector.
        self._own_poller = self.cycle.poller

    def establish_connection(self) -> Any:
        """Try once."""
        type(self).trying()
        return super().establish_connection()

    def close_connection(self, connection: Any) -> None:
        """Close all channels; kombu makes another transport then."""
        super().close_connection(connection)
        self._own_poller.close()

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Be what the loop turns for, instead of the transport before.

        kombu leaves in the loop what each connection asked of its turns, and with it the connection: a worker that is
        reconnected for long would grow, and turn ever more slowly.
        """
        loop.on_tick.difference_update(_turning.get(loop, ()))
        others = set(loop.on_tick)
        super().register_with_event_loop(connection, loop)
        self._own_poller.close()
        _turning[loop] = loop.on_tick - others


# By loop, what the transport that it turns for asked of its turns.
_turning: WeakKeyDictionary[Any, set[Callable[[], object]]] = WeakKeyDictionary()


def register() -> None:
    """Make `redis://` and `rediss://` mean this transport."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:{Transport.__name__}"
