"""How to connect to a Redis server: where, whom to trust, and who we are, by real handshakes in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock, StringTransport

from marketfeed.redis.address import RedisAddress, SentinelAddress, parse_redis_url
from marketfeed.redis.endpoint import check_files, redis_endpoint, redis_endpoints
from marketfeed.redis.tls import RedisTls
from tests.certificates import Authority, ServerCertificate
from tests.conftest import LogCapture

ROOT = Authority()
BELOW = Authority(ROOT)
ADDRESS = RedisAddress(host="127.0.0.1", tls=True)


class World:
    """A client of a server on 127.0.0.1, whose certificate is shown when it is asked for."""

    def __init__(self) -> None:
        ROOT.write(Path("ca.pem"))
        self.reactor: Any = MemoryReactorClock()
        self._endpoint = redis_endpoint(self.reactor, ADDRESS, RedisTls("ca.pem", "server.pem", "server.key"))

    def shown(self) -> list[x509.Certificate]:
        """Connect; the chain that the client has shown."""
        factory = Factory.forProtocol(Protocol)
        factory.noisy = False
        self._endpoint.connect(factory)
        ours, transport = self.reactor.tcpClients[-1][2].buildProtocol(None), StringTransport()
        ours.makeConnection(transport)
        server = SSL.Connection(self._context(), None)
        server.set_accept_state()
        for _ in range(4):
            server.bio_write(transport.value() or b"")
            transport.clear()
            try:
                server.do_handshake()
            except SSL.WantReadError:
                pass
            else:
                break
            ours.dataReceived(server.bio_read(1 << 16))
        shown = [server.get_peer_certificate(), *(server.get_peer_cert_chain() or ())]
        return [each.to_cryptography() for each in shown if each is not None]

    def _context(self) -> SSL.Context:
        context = ROOT.issue("127.0.0.1").context()
        context.get_cert_store().add_cert(X509.from_cryptography(ROOT.certificate))  # type: ignore[union-attr]
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *arguments: bool(arguments[-1]))
        return context


def chain(of: ServerCertificate) -> Sequence[x509.Certificate]:
    return [of.certificate, *of.between]


def lines(logged: LogCapture) -> list[str]:
    found = [event["log_format"].format(**event) for event in logged.events if "name" in event]
    return [line for line in found if "certificate" in line]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Paths are relative to a directory of the test's own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def certificate(here: Path) -> ServerCertificate:
    """What is in the files at first, of an authority that the server does not know itself."""
    issued = BELOW.issue("feed")
    issued.write(here)
    return issued


def test_the_server_sees_who_we_are(certificate: ServerCertificate) -> None:
    """With those that vouch for it."""
    assert World().shown() == chain(certificate)


def test_a_renewed_certificate_is_shown_from_the_next_connection_on(
    certificate: ServerCertificate, here: Path, monkeypatch: pytest.MonkeyPatch, logged: LogCapture
) -> None:
    """Wherever the process has gone meanwhile, as twistd does with --rundir."""
    world = World()
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    renewed = BELOW.issue("feed")
    renewed.write(here)
    world.reactor.advance(2)
    assert world.shown() == chain(renewed)
    (line,) = lines(logged)
    assert line.startswith("redis: new connections get the renewed certificate, valid until 20")
    world.reactor.advance(2)
    assert world.shown() == chain(renewed)
    assert len(lines(logged)) == 1


def test_files_can_be_looked_at_before(certificate: ServerCertificate) -> None:
    """By who will connect by other means. A server without TLS needs none."""
    ROOT.write(Path("ca.pem"))
    check_files(ADDRESS, RedisTls("ca.pem", "server.pem", "server.key"))
    check_files(RedisAddress(), RedisTls("none.pem"))
    for tls, line in (
        (RedisTls("none.pem"), "--redis-ca: none.pem: No such file or directory"),
        (RedisTls("ca.pem", "server.pem", "none.key"), "--redis-key: none.key: No such file or directory; expected "),
        (RedisTls(None, "ca.pem", "server.key"), "--redis-certificate: ca.pem: its first certificate is not of the "),
    ):
        with pytest.raises(ValueError, match=r".") as caught:
            check_files(ADDRESS, tls)
        assert str(caught.value).startswith(line)


def test_the_address_says_where_to_connect_to() -> None:
    """A path is a Unix socket, for which no file is looked at; anything else TCP. Both within ten seconds."""
    reactor = MemoryReactorClock()
    for url in ("unix:///run/redis.sock", "redis://127.0.0.1:7000"):
        endpoint = redis_endpoint(reactor, parse_redis_url(url), RedisTls("none.pem"))
        attempt = endpoint.connect(Factory.forProtocol(Protocol))
        attempt.addErrback(lambda _: None)
        attempt.cancel()
    ((path, _, unix_timeout, _),) = reactor.unixClients
    ((host, port, _, tcp_timeout, _),) = reactor.tcpClients
    assert (path, unix_timeout, host, port, tcp_timeout) == ("/run/redis.sock", 10.0, "127.0.0.1", 7000, 10.0)


def test_the_files_for_several_servers_are_read_once(here: Path) -> None:
    """A server that comes later is connected to with what was read at the start."""
    ROOT.write(here / "ca.pem")
    address = parse_redis_url("rediss-sentinel://a,b/feed")
    make = redis_endpoints(MemoryReactorClock(), address, RedisTls("ca.pem"))
    (here / "ca.pem").unlink()
    assert isinstance(address, SentinelAddress)
    make(address.server("c", 7))
    with pytest.raises(ValueError, match=r"^--redis-ca: ca\.pem: No such file"):
        redis_endpoints(MemoryReactorClock(), address, RedisTls("ca.pem"))


def trust(path: Path) -> None:
    """Make an endpoint that trusts the certificates of a file."""
    redis_endpoint(MemoryReactorClock(), ADDRESS, RedisTls(str(path)))


def test_a_file_of_certificates_may_hold_several(here: Path) -> None:
    """With words between them, as operating systems ship theirs."""
    ROOT.write(here / "ca.pem")
    one = (here / "ca.pem").read_text()
    (here / "ca.pem").write_text(f"# the old one\n{one}\n# the new one\n{one}\n")
    trust(here / "ca.pem")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"junk",
        b"-----BEGIN CERTIFICATE-----\nnot base64\n-----END CERTIFICATE-----\n",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        b"\xff\xfe-----END CERTIFICATE-----",
        b"-----END CERTIFICATE-----",
        ROOT.issue("x").pem + b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ],
)
def test_a_file_that_holds_no_certificates_is_refused(text: bytes, here: Path) -> None:
    """One that is broken among good ones, too. The start ends with one line that names the file."""
    (here / "ca.pem").write_bytes(text)
    with pytest.raises(ValueError, match=r"ca\.pem: expected certificates in PEM format$"):
        trust(here / "ca.pem")
