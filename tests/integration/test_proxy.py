"""The fault tests' proxy does to connections what its modes say."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from app.cli.embedded import LOOPBACK
from support.polling import eventually
from support.proxy import Mode, Proxy


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """In front of a server that sends everything back."""
    with socket.create_server((LOOPBACK, 0)) as server:

        def echo(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                while data := connection.recv(1024):
                    connection.sendall(data)

        def serve() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=echo, args=server.accept()[:1], daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        with Proxy(server.getsockname()[1], delay=0.2) as proxy:
            yield proxy
        server.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def client(proxy: Proxy) -> Iterator[socket.socket]:
    with socket.create_connection((LOOPBACK, proxy.port), timeout=5) as connection:
        assert _asked(connection, b"hello") == b"hello"
        yield connection


def _asked(connection: socket.socket, text: bytes) -> bytes:
    connection.sendall(text)
    return connection.recv(1024)


def _is_refused(proxy: Proxy) -> bool:
    try:
        with socket.create_connection((LOOPBACK, proxy.port), timeout=5) as other:
            return _asked(other, b"x") == b""
    except ConnectionError:
        return True


def test_refused_connections_are_reset(proxy: Proxy, client: socket.socket) -> None:
    proxy.set(Mode.REFUSE)
    with pytest.raises(ConnectionError):
        client.recv(1)
    eventually(lambda: _is_refused(proxy))
    proxy.set(Mode.PASS)
    with socket.create_connection((LOOPBACK, proxy.port), timeout=5) as third:
        assert _asked(third, b"again") == b"again"


def test_a_blackhole_holds_what_was_sent(proxy: Proxy, client: socket.socket) -> None:
    proxy.set(Mode.BLACKHOLE)
    client.settimeout(0.2)
    with pytest.raises(TimeoutError):
        _asked(client, b"held")
    proxy.set(Mode.PASS)
    client.settimeout(5)
    assert client.recv(1024) == b"held"


def test_the_client_of_a_half_open_connection_hears_nothing(proxy: Proxy, client: socket.socket) -> None:
    proxy.set(Mode.HALF_OPEN)
    client.settimeout(0.2)
    with pytest.raises(TimeoutError):
        _asked(client, b"lost")
    proxy.set(Mode.PASS)
    client.settimeout(5)
    with pytest.raises(ConnectionError):
        client.recv(1)


def test_a_slow_connection_takes_its_time(proxy: Proxy, client: socket.socket) -> None:
    proxy.set(Mode.SLOW)
    client.settimeout(0.2)
    with pytest.raises(TimeoutError):
        _asked(client, b"slow")
    client.settimeout(5)
    assert client.recv(1024) == b"slow"


def test_a_reply_is_lost(proxy: Proxy, client: socket.socket) -> None:
    proxy.lose_replies(b"COMMIT", 1.0, seed=1)
    assert _asked(client, b"BEGIN") == b"BEGIN"
    with pytest.raises(ConnectionError):
        _asked(client, b"COMMIT")
    assert proxy.lost_replies == 1
