"""Connections to addresses that users name: checked at the moment of connecting.

A name is resolved once, every address that it has is judged, and the connection goes to an address
that was judged; a name that changes its address in between gains nothing. The decision is made on
the address, so no spelling of it matters (2130706433, 0x7f.1, ::ffff:127.0.0.1, 127.0.0.1.nip.io).
Allowed is what the public internet routes, and what `UPBEAT_OUTBOUND_ALLOW` names.

Redirects are never followed, and the environment's proxies are not used: both would connect
somewhere else than was judged. No log has these addresses, whose paths are secrets at times.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

import httpcore
import httpx

from app.errors import ConfigurationError, FieldError, InvalidInput, UpbeatError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolver = Callable[[str, int], Awaitable[Sequence[str]]]

LONGEST_URL = 2000
LONGEST_NUMBER = 9
_ROUTED_IPV6 = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
# Protocol assignments and 6to4 relays, parts of which count as global.
_SPECIAL_IPV4 = (IPv4Network("192.0.0.0/24"), IPv4Network("192.88.99.0/24"))


_unsaid: ContextVar[bool] = ContextVar("unsaid", default=False)


class Discretion(logging.Filter):
    """httpx logs the whole address of each request; that of one that was made here is left out, once."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it may be logged."""
        ours = _unsaid.get()
        _unsaid.set(False)
        return not ours


logging.getLogger("httpx").addFilter(Discretion())


class OutboundRefused(UpbeatError):
    """The address is not one that this service may connect to."""

    code = "outbound_refused"
    status = 422
    title = "The address may not be reached"
    retryable = False


@dataclass(frozen=True, slots=True)
class OutboundPolicy:
    """Which addresses besides the public ones may be reached, and by which names."""

    hosts: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()
    resolve: Resolver = field(default_factory=lambda: resolve, compare=False)

    @classmethod
    def parse(cls, entries: Iterable[str]) -> "OutboundPolicy":
        """From host names, addresses and CIDR ranges.

        Raises:
            ConfigurationError: an entry is neither.
        """
        hosts, networks = set(), []
        for entry in entries:
            try:
                networks.append(ip_network(entry))
            except ValueError:
                if "/" in entry or ":" in entry or not _is_name(entry):
                    raise ConfigurationError(
                        f"UPBEAT_OUTBOUND_ALLOW: {entry!r} is neither a host name nor an address range such"
                        " as 10.1.0.0/16 (whose bits behind the slash must be zero); it takes no port."
                    ) from None
                hosts.add(_plain(entry))
        return cls(frozenset(hosts), tuple(networks))

    def permits_host(self, host: str) -> bool:
        """Whether this name is allowed whatever its addresses are."""
        return _plain(host) in self.hosts

    def permits(self, address: Address) -> bool:
        """Whether this address may be reached."""
        judged = _unwrapped(address)
        if any(each in network for each in (address, judged) for network in self.networks):
            return True
        return _is_public(judged)

    async def addresses(self, host: str, port: int) -> list[str]:
        """Where to connect for this host, resolved once; all addresses have been judged.

        Raises:
            OutboundRefused: one of them may not be reached.
            OSError: the name cannot be resolved.
        """
        found = [ip_address(text) for text in await self.resolve(host, port)]
        if not found:
            raise OSError(f"{host} has no address")
        if not self.permits_host(host) and not all(self.permits(address) for address in found):
            raise OutboundRefused(
                f"{host} leads to an address inside the network, which is not allowed."
                " Use a public address, or have an administrator add it to UPBEAT_OUTBOUND_ALLOW."
            )
        return [str(address) for address in found]


def check_url(url: str, policy: OutboundPolicy, field_name: str) -> None:
    """Refuse early what would be refused at every connection.

    Raises:
        InvalidInput: not an http or https address, or one with a user, a fragment, or a literal
            address that may not be reached.
    """
    try:
        parsed = httpx.URL(url)
        host = parsed.host
    except httpx.InvalidURL:
        raise _wrong(field_name, "Must be an address such as https://models.example.com/v1.") from None
    port = 443 if parsed.port is None else parsed.port
    if parsed.scheme not in ("http", "https") or not host or not 1 <= port <= 65535:
        raise _wrong(field_name, "Must be an address such as https://models.example.com/v1.")
    if len(url) > LONGEST_URL or not url.isprintable():
        raise _wrong(field_name, f"Must have at most {LONGEST_URL} printable characters.")
    if parsed.userinfo or parsed.fragment:
        raise _wrong(field_name, "Must have no user, no password and no fragment; set a credential instead.")
    try:
        literal = ip_address(host)
    except ValueError:
        return
    if not (policy.permits_host(host) or policy.permits(literal)):
        raise _wrong(field_name, "This address is inside the network and not in UPBEAT_OUTBOUND_ALLOW.")


def client(policy: OutboundPolicy, *, timeout: float) -> httpx.AsyncClient:
    """An HTTP client that connects only where the policy allows; ``timeout`` in seconds, per step."""
    return httpx.AsyncClient(
        transport=GuardedTransport(policy),
        follow_redirects=False,
        trust_env=False,
        timeout=timeout,
    )


class GuardedTransport(httpx.AsyncHTTPTransport):
    """httpx's own transport, on connections that are made by `GuardedBackend`."""

    def __init__(self, policy: OutboundPolicy) -> None:
        super().__init__(verify=_tls(), trust_env=False)
        # httpx has no parameter for it; tests/unit/test_outbound.py notices when this is not enough.
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=_tls(), network_backend=GuardedBackend(policy), max_connections=10
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """As httpx's own; the line that httpx logs next is not logged."""
        response = await super().handle_async_request(request)
        _unsaid.set(True)
        return response


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Opens connections to judged addresses only."""

    def __init__(self, policy: OutboundPolicy) -> None:
        self._policy = policy
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature of httpcore
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """A connection to the first address of ``host`` that answers.

        Raises:
            OutboundRefused: an address of the host may not be reached.
            httpcore.ConnectError, httpcore.ConnectTimeout: none answers.
        """
        try:
            async with asyncio.timeout(timeout):
                addresses = await self._policy.addresses(host, port)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(f"{host} was not resolved in time") from error
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host} cannot be resolved") from error
        failure: Exception | None = None
        for address in addresses:
            try:
                return await self._backend.connect_tcp(
                    address, port, timeout=timeout, local_address=local_address, socket_options=socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure or httpcore.ConnectError(f"{host} has no address")

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature of httpcore
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Never.

        Raises:
            OutboundRefused: always.
        """
        raise OutboundRefused("Sockets in the file system are not reached.")

    async def sleep(self, seconds: float) -> None:
        """Between httpcore's own tries."""
        await self._backend.sleep(seconds)


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host, as the operating system resolves them."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


def retry_after(header: str | None, now: datetime) -> float | None:
    """The seconds that a `Retry-After` header asks for (a number of them, or an HTTP date), from ``now`` on."""
    text = (header or "").strip()
    if text.isascii() and text.isdecimal():
        return float(text[:LONGEST_NUMBER])
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds())


def _unwrapped(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, if it stands for one."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return IPv4Address(address.packed[-4:]) if address in _NAT64 else address


def _is_public(address: Address) -> bool:
    if not address.is_global or address.is_multicast or address.is_reserved:
        return False
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _SPECIAL_IPV4)
    # What is tunnelled to an IPv4 address (6to4) is judged by that one.
    if address.sixtofour is not None:
        return _is_public(address.sixtofour)
    return address in _ROUTED_IPV6


def _is_name(text: str) -> bool:
    return 0 < len(text) <= 253 and all(mark.isalnum() or mark in "-._" for mark in text)


def _plain(host: str) -> str:
    name = host.rstrip(".").lower()
    try:
        return name.encode("idna").decode()
    except UnicodeError:
        return name


def _wrong(field_name: str, message: str) -> InvalidInput:
    return InvalidInput(FieldError(field_name, message))


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    """One for the process: reading the certificates takes longer than a connection.

    `SSL_CERT_FILE` and `SSL_CERT_DIR` name the authorities of a private network.
    """
    return httpx.create_ssl_context(trust_env=True)
