"""What is left open of connections to Redis that were cut, without waiting for the collector: nothing."""

import gc
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection, Consumer, Exchange, Queue
from kombu.exceptions import OperationalError

from app.scheduling.messages import BrokerUnavailable
from app.settings import Settings
from app.worker import broker, celery_app
from app.worker.transport import Channel, Transport
from support.calling import calling
from support.polling import eventually
from support.proxy import Mode, Proxy
from support.servers import Servers, settings_for

CUTS = 3


@pytest.fixture
def proxy(servers: Servers) -> Iterator[Proxy]:
    with Proxy(servers.redis.port) as running:
        yield running


@pytest.fixture
def url(proxy: Proxy, servers: Servers, redis_url: str) -> str:
    return redis_url.replace(f":{servers.redis.port}/", f":{proxy.port}/")


@pytest.fixture
def _uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def _open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def _listening(url: str, number: int) -> tuple[Connection, Channel]:
    """As a worker listens to the events of others: with a queue that ends with it."""
    connection = Connection(url, transport=Transport, transport_options={"socket_timeout": 2.0})
    channel = connection.channel()
    exchange = Exchange("heard", type="fanout", durable=False)
    Consumer(channel, [Queue(f"heard.{number}", exchange, auto_delete=True)], no_ack=True).consume()
    # What is read first is that it is subscribed.
    connection.drain_events(timeout=5)
    return connection, channel


def test_a_channel_that_cannot_take_its_leave_is_gone_all_the_same(proxy: Proxy, url: str) -> None:
    """It has a queue in Redis, which cannot be removed now, and messages that might have to be given back."""
    channels: list[weakref.ref[Channel]] = []
    opened = _open_files()
    for number in range(CUTS):
        connection, channel = _listening(url, number)
        proxy.set(Mode.REFUSE)
        # As Celery does with a connection that was lost.
        connection.collect(socket_timeout=0.2)
        proxy.set(Mode.PASS)
        channels.append(weakref.ref(channel))
        del connection, channel
    eventually(lambda: _open_files() == opened, 5, "the connections to be closed")
    gc.collect()
    assert [each() for each in channels] == [None] * CUTS


@pytest.mark.usefixtures("_uncollected")
def test_a_client_that_is_cut_off_again_and_again_opens_nothing_more(
    proxy: Proxy, url: str, servers: Servers, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker, "OPEN_FIRST", 0.0)

    def ping() -> Any:
        return client.use(lambda redis: redis.ping())

    with calling(settings_for(servers.postgres.url, settings.database.name, url)):
        client = broker.BrokerClient(celery_app)
        before = _open_files()
        assert ping()
        opened = _open_files()
        for _ in range(CUTS):
            proxy.set(Mode.REFUSE)
            with pytest.raises(BrokerUnavailable):
                ping()
            proxy.set(Mode.PASS)
            assert ping()
        eventually(lambda: _open_files() <= opened, 5, "the connections before to be closed")
        client.close()
        eventually(lambda: _open_files() == before, 5, "all connections to be closed")


def test_a_connection_may_be_tried_for_longer_than_there_are_numbers_of_channels(
    proxy: Proxy, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever watches the main loop is told of each try, or the worker would end in the middle of a long one."""
    tries: list[float] = []
    monkeypatch.setattr(Transport, "trying", staticmethod(lambda: tries.append(time.monotonic())))
    proxy.set(Mode.REFUSE)
    with Connection(url, transport=Transport) as connection:
        for _ in range(CUTS):
            with pytest.raises(OperationalError):
                connection.ensure_connection(max_retries=1, interval_start=0.0, interval_step=0.0)
        assert not connection.transport._used_channel_ids
    assert len(tries) >= CUTS
