"""Connections on real sockets: no spelling, no redirect and no change of mind reaches loopback."""

import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from app import outbound
from app.outbound import OutboundPolicy, OutboundRefused
from support.peer import Answer, Peer, running_peer


@pytest.fixture
def peer(shared_peer: Peer) -> Peer:
    shared_peer.forget()
    shared_peer.answer("/", Answer(body=b"inside"))
    return shared_peer


async def _get(policy: OutboundPolicy, url: str) -> httpx.Response:
    async with outbound.client(policy, timeout=3) as client:
        return await client.get(url)


SPELLINGS = [
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "127.000.000.001",
    "2130706433",
    "0x7f000001",
    "0x7f.0x0.0x0.0x1",
    "0x7F.1",
    "0177.0.0.1",
    "0177.1",
    "017700000001",
    "127.0.0.1.",
    "127。0。0。1",
    "127%2e0%2e0%2e1",
    "0",
    "0.0.0.0",
    "00000.0",
    "127.127.127.127",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:127.0.0.1]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "[::1%25lo]",
    "user@127.0.0.1",
    "1.1.1.1@127.0.0.1",
    "1.1.1.1:80@127.0.0.1",
]


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_no_spelling_reaches_loopback(peer: Peer, spelling: str) -> None:
    port = peer.url.rpartition(":")[2]
    with pytest.raises((OutboundRefused, httpx.ConnectError, httpx.InvalidURL)):
        await _get(OutboundPolicy(), f"http://{spelling}:{port}/")
    assert peer.requests == []


LINK_LOCAL = [
    "169.254.169.254",
    "169.254.43518",
    "169.16689662",
    "2852039166",
    "0xa9fea9fe",
    "0xa9.0xfe.0xa9.0xfe",
    "0251.0376.0251.0376",
    "025177524776",
    "169。254。169。254",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[64:ff9b::a9fe:a9fe]",
    "[2002:a9fe:a9fe::]",
    "[fe80::1]",
    "[fd00:ec2::254]",
]


@pytest.mark.parametrize("spelling", LINK_LOCAL)
async def test_no_spelling_reaches_the_metadata_of_a_cloud(spelling: str) -> None:
    """Refused for its address, and not because nobody answers there on this machine."""
    with pytest.raises((OutboundRefused, httpx.InvalidURL)):
        await _get(OutboundPolicy(), f"http://{spelling}/latest/meta-data/")


@pytest.mark.parametrize("spelling", ["127.0.0.1", "2130706433", "0x7f.1", "0177.1", "localhost", "0.0.0.0"])
async def test_these_spellings_would_reach_it(peer: Peer, spelling: str) -> None:
    """What the test above refuses is a danger indeed."""
    port = peer.url.rpartition(":")[2]
    answer = await _get(OutboundPolicy.parse(["0.0.0.0/0", "::/0"]), f"http://{spelling}:{port}/")
    assert answer.text == "inside"


async def test_an_allowed_range_is_reached(peer: Peer) -> None:
    answer = await _get(OutboundPolicy.parse(["127.0.0.0/8"]), f"{peer.url}/")
    assert (answer.status_code, answer.text) == (200, "inside")


async def test_an_allowed_name_is_reached_and_sent_as_host(peer: Peer) -> None:
    port = peer.url.rpartition(":")[2]

    async def resolve(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    policy = OutboundPolicy(frozenset({"agent.internal"}), resolve=resolve)
    answer = await _get(policy, f"http://agent.internal:{port}/")
    assert answer.text == "inside"
    assert peer.requests[0].headers["host"] == f"agent.internal:{port}"


async def test_a_redirect_is_given_back_and_not_followed(peer: Peer) -> None:
    peer.answer("/away", Answer(302, headers={"Location": f"{peer.url}/"}))
    answer = await _get(OutboundPolicy.parse(["127.0.0.1"]), f"{peer.url}/away")
    assert answer.status_code == 302
    assert [request.path for request in peer.requests] == ["/away"]


async def test_a_name_that_changes_its_address_is_resolved_once(peer: Peer) -> None:
    """Public at the first look, loopback at the second: only the first look counts."""
    looks = 0

    async def rebinding(host: str, port: int) -> Sequence[str]:
        nonlocal looks
        looks += 1
        # Reserved for documentation, so nothing answers; allowed here to stand for a public one.
        return ["192.0.2.1"] if looks == 1 else ["127.0.0.1"]

    policy = OutboundPolicy(networks=OutboundPolicy.parse(["192.0.2.0/24"]).networks, resolve=rebinding)
    port = peer.url.rpartition(":")[2]
    async with outbound.client(policy, timeout=0.3) as client:
        with pytest.raises((httpx.ConnectTimeout, httpx.ConnectError)):
            await client.get(f"http://rebinding.test:{port}/")
        assert looks == 1
        with pytest.raises(OutboundRefused):
            await client.get(f"http://rebinding.test:{port}/")
    assert peer.requests == []


async def test_proxies_of_the_environment_are_not_used(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, peer.url)

    async def resolve(host: str, port: int) -> Sequence[str]:
        return ["10.0.0.1"]

    with pytest.raises(OutboundRefused):
        await _get(OutboundPolicy(resolve=resolve), "http://models.example.com/")
    assert peer.requests == []


async def test_the_next_address_is_tried_when_the_first_does_not_answer(peer: Peer) -> None:
    port = int(peer.url.rpartition(":")[2])

    async def resolve(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.2", "127.0.0.1"]

    policy = OutboundPolicy(frozenset({"agent.internal"}), resolve=resolve)
    assert (await _get(policy, f"http://agent.internal:{port}/")).text == "inside"


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for agent.internal that signed itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "agent.internal")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("agent.internal")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "certificate.pem"
    file.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + made.public_bytes(Encoding.PEM)
    )
    return file


async def test_a_certificate_is_checked_against_the_name_although_the_address_is_connected_to(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    policy = OutboundPolicy(frozenset({"agent.internal", "other.internal"}), resolve=resolve)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    with running_peer(tls) as secure:
        port = secure.url.rpartition(":")[2]
        secure.answer("/", Answer(body=b"inside"))
        with pytest.raises(httpx.ConnectError, match="self-signed"):
            await _get(policy, f"https://agent.internal:{port}/")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        outbound._tls.cache_clear()
        try:
            assert (await _get(policy, f"https://agent.internal:{port}/")).text == "inside"
            with pytest.raises(httpx.ConnectError, match=r"other\.internal"):
                await _get(policy, f"https://other.internal:{port}/")
        finally:
            outbound._tls.cache_clear()


async def test_a_socket_in_the_file_system_is_not_reached() -> None:
    with pytest.raises(OutboundRefused):
        await outbound.GuardedBackend(OutboundPolicy()).connect_unix_socket("/var/run/docker.sock")
