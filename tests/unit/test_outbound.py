"""Which addresses may be reached: judged by address, whatever it is called."""

from collections.abc import Sequence
from datetime import UTC, datetime
from ipaddress import ip_address

import pytest

from app.errors import ConfigurationError, InvalidInput
from app.outbound import OutboundPolicy, OutboundRefused, check_url, retry_after

NOTHING_ALLOWED = OutboundPolicy()

INSIDE = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:c0a8:101::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%1",
    "fec0::1",
    "ff02::1",
]

OUTSIDE = [
    "1.1.1.1",
    "93.184.215.14",
    "172.32.0.1",
    "2606:4700:4700::1111",
    "::ffff:1.1.1.1",
    "64:ff9b::101:101",
    "2002:101:101::1",
]


@pytest.mark.parametrize("address", INSIDE)
def test_an_address_inside_is_refused(address: str) -> None:
    assert not NOTHING_ALLOWED.permits(ip_address(address))


@pytest.mark.parametrize("address", OUTSIDE)
def test_an_address_outside_is_reached(address: str) -> None:
    assert NOTHING_ALLOWED.permits(ip_address(address))


def test_what_is_allowed_by_range_is_reached_also_as_mapped_address() -> None:
    policy = OutboundPolicy.parse(["10.1.0.0/16", "::1"])
    assert policy.permits(ip_address("10.1.2.3"))
    assert policy.permits(ip_address("::ffff:10.1.2.3"))
    assert policy.permits(ip_address("::1"))
    assert not policy.permits(ip_address("10.2.0.1"))
    assert not policy.permits(ip_address("127.0.0.1"))


def _answering(*addresses: str, hosts: Sequence[str] = ()) -> OutboundPolicy:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return addresses

    return OutboundPolicy(frozenset(hosts), resolve=resolve)


async def test_one_address_inside_among_others_refuses_the_name() -> None:
    with pytest.raises(OutboundRefused, match="UPBEAT_OUTBOUND_ALLOW"):
        await _answering("1.1.1.1", "127.0.0.1").addresses("models.example.com", 443)


async def test_addresses_outside_are_given_back() -> None:
    policy = _answering("1.1.1.1", "2606:4700:4700::1111")
    assert await policy.addresses("models.example.com", 443) == ["1.1.1.1", "2606:4700:4700::1111"]


@pytest.mark.parametrize("name", ["models.internal", "MODELS.internal", "models.internal."])
async def test_an_allowed_name_is_reached_whatever_its_address(name: str) -> None:
    policy = _answering("10.0.0.1", hosts=["models.internal"])
    assert await policy.addresses(name, 443) == ["10.0.0.1"]


async def test_a_name_that_only_ends_like_an_allowed_one_is_refused() -> None:
    policy = _answering("10.0.0.1", hosts=["models.internal"])
    with pytest.raises(OutboundRefused):
        await policy.addresses("evil-models.internal", 443)


async def test_a_name_without_addresses_is_an_error() -> None:
    with pytest.raises(OSError, match="no address"):
        await _answering().addresses("models.example.com", 443)


@pytest.mark.parametrize("entry", ["10.0.0.1/8", "a/b", "http://x", "localhost:8080", "a b", "[::1]"])
def test_an_entry_that_is_neither_name_nor_range_is_named(entry: str) -> None:
    with pytest.raises(ConfigurationError, match="UPBEAT_OUTBOUND_ALLOW"):
        OutboundPolicy.parse([entry])


@pytest.mark.parametrize(
    "url",
    [
        "https://models.example.com/v1",
        "http://1.1.1.1:8080/hook?x=1",
        "https://[2606:4700:4700::1111]/",
        "https://模型.example.com/",
    ],
)
def test_an_address_that_will_do(url: str) -> None:
    check_url(url, NOTHING_ALLOWED, "url")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "models.example.com",
        "ftp://models.example.com/",
        "file:///etc/passwd",
        "gopher://127.0.0.1:6379/_x",
        "https://",
        "https:///path",
        "https://user@models.example.com/",
        "https://user:secret@models.example.com/",
        "https://models.example.com@127.0.0.1/",
        "http://127.0.0.1\\@models.example.com/",
        "https://models.example.com/#part",
        "https://models.example.com:99999/",
        "https://models.example.com:0/",
        "https://models.example.com/\n",
        "https://models.example.com/" + "x" * 2000,
        "http://[::1",
        "http://127.0.0.1/",
        "http://127。0。0。1/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://0.0.0.0:8000/",
    ],
)
def test_an_address_that_will_not_do_is_refused_at_once(url: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_url(url, NOTHING_ALLOWED, "url")
    assert [error.field for error in refused.value.errors] == ["url"]
    assert "secret" not in str(refused.value)


def test_a_literal_address_that_is_allowed_will_do() -> None:
    check_url("http://127.0.0.1:9/", OutboundPolicy.parse(["127.0.0.0/8"]), "url")


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120),
        (" 0 ", 0),
        ("Sun, 01 Mar 2026 12:01:30 GMT", 90),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0),
        ("9" * 5000, 999_999_999),
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("Sun, 01 Mar 2026 12:00:00 +99999999999999999999", None),
        ("1.5", None),
        ("٣", None),
    ],
)
def test_what_retry_after_asks_for(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, datetime(2026, 3, 1, 12, tzinfo=UTC)) == seconds
