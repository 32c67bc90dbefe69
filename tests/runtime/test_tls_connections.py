"""What TLS connections leave behind, and what is said of those that never came about."""

from __future__ import annotations

import gc
import ssl
import weakref
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from marketfeed.runtime.tls import tls_endpoint
from tests.certificates import Authority
from tests.conftest import LogCapture

AUTHORITY = Authority()


class Guest(Protocol):
    """The server's side, which holds what a client's connection holds: a producer that knows the transport."""

    lost: Failure | None = None

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.registerProducer(Producer(self.transport), True)  # type: ignore[arg-type]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason


@implementer(IPushProducer)
class Producer:
    def __init__(self, transport: Any) -> None:
        self.transport = transport

    def pauseProducing(self) -> None: ...

    def resumeProducing(self) -> None: ...

    def stopProducing(self) -> None: ...


class Guests(Factory):
    noisy = False
    protocol = Guest


class Port:
    """A port in memory, and the time there."""

    def __init__(self, directory: Path) -> None:
        certificate, key = AUTHORITY.issue("localhost").write(directory)
        self.reactor: Any = MemoryReactorClock()
        tls_endpoint(self.reactor, f"ssl:8443:privateKey={key}:certKey={certificate}").listen(Guests())
        self._factory = self.reactor.tcpServers[0][1]

    def stop(self) -> None:
        self._factory.doStart()
        self._factory.doStop()
        assert not self.reactor.getDelayedCalls()

    def connection(self) -> tuple[Any, StringTransport]:
        """A connection on which nothing has been said yet: its server's side, and the transport."""
        server, transport = self._factory.buildProtocol(None), StringTransport()
        server.makeConnection(transport)
        return server, transport


class Peer:
    """A client. `alpn`: the protocols that it offers."""

    def __init__(self, port: Port, authority: Authority = AUTHORITY, alpn: tuple[str, ...] = ()) -> None:
        self._port = port
        self.server, self._transport = port.connection()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=authority.certificate.public_bytes(Encoding.DER))
        if alpn:
            context.set_alpn_protocols(list(alpn))
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")

    def step(self) -> None:
        """Go on with the handshake, as far as that goes without an answer."""
        try:
            self.tls.do_handshake()
        except ssl.SSLError:
            pass
        self.exchange()

    def exchange(self) -> None:
        sent = self._outgoing.read()
        if sent:
            self.server.dataReceived(sent)
        self._port.reactor.advance(0)
        self._incoming.write(self._transport.value())
        self._transport.clear()

    def handshake(self) -> Peer:
        """The whole of it."""
        for _ in range(3):
            self.step()
        return self

    def close(self) -> None:
        """Say that this is the end."""
        with pytest.raises(ssl.SSLWantReadError):
            self.tls.unwrap()
        self.exchange()

    def gone(self, reason: BaseException | None = None) -> None:
        """The TCP connection is no more, and its transport lets go of the producer."""
        if self._transport.producer is not None:
            self._transport.unregisterProducer()
        self.server.connectionLost(Failure(reason or ConnectionDone()))


@pytest.fixture
def port(tmp_path: Path) -> Port:
    return Port(tmp_path)


def said(logged: LogCapture) -> list[str]:
    return [event["log_format"].format(**event) for event in logged.events if "TLS" in str(event.get("log_format"))]


class TestFailures:
    def test_who_does_not_trust_the_certificate(self, port: Port, logged: LogCapture) -> None:
        """Says so, and so does the log."""
        peer = Peer(port, Authority()).handshake()
        peer.gone()
        (line,) = said(logged)
        assert line.startswith("TLS: the handshake with 192.168.1.1:54321 failed: ")
        assert line.endswith(" (1 since the start)")
        assert "alert" in line

    def test_who_speaks_other_protocols_only(self, port: Port, logged: LogCapture) -> None:
        """Which are no secret."""
        Peer(port, alpn=("h2", "smtp")).handshake().gone()
        assert said(logged) == [
            "TLS: the handshake with 192.168.1.1:54321 failed: no application protocol; expected http/1.1 among those "
            "offered, or none (1 since the start)"
        ]

    def test_who_does_not_speak_tls(self, port: Port, logged: LogCapture) -> None:
        """Plain HTTP, most likely."""
        server, _ = port.connection()
        server.dataReceived(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        server.connectionLost(Failure(ConnectionDone()))
        (line,) = said(logged)
        assert "failed: http request (1 since the start)" in line

    def test_who_hangs_up_in_between(self, port: Port, logged: LogCapture) -> None:
        """Has failed."""
        peer = Peer(port)
        peer.step()
        peer.gone()
        (line,) = said(logged)
        assert "failed: the client hung up (1 since the start)" in line

    def test_who_says_nothing_has_not_failed(self, port: Port, logged: LogCapture) -> None:
        """Load balancers look like that whether a port is open."""
        server, _ = port.connection()
        server.connectionLost(Failure(ConnectionDone()))
        assert said(logged) == []

    @pytest.mark.parametrize("reason", [ConnectionDone(), ConnectionLost()])
    def test_who_goes_later_has_not_failed(self, reason: Exception, port: Port, logged: LogCapture) -> None:
        """However it goes."""
        Peer(port).handshake().gone(reason)
        peer = Peer(port).handshake()
        peer.close()
        peer.gone(reason)
        assert said(logged) == []

    def test_a_flood_of_them_is_some_lines(self, port: Port, logged: LogCapture) -> None:
        """And all are counted."""
        for _ in range(300):
            Peer(port, alpn=("h2",)).handshake().gone()
        assert len(said(logged)) == 5
        port.reactor.advance(1)
        assert said(logged)[5:] == [
            "TLS: the handshake with 192.168.1.1:54321 failed: no application protocol; expected http/1.1 among those "
            "offered, or none (300 since the start) (the last of 295 within 1 s)"
        ]
        Peer(port, alpn=("h2",)).handshake().gone()
        port.stop()
        assert len(said(logged)) == 7


class TestLeftovers:
    """A connection that is gone is in no cycle of references: nobody looks for one, for as long as it takes."""

    def ends(self, port: Port, end: str) -> Peer:
        peer = Peer(port, alpn=("h2",) if end == "refused" else ())
        if end == "in the handshake":
            peer.step()
        elif end not in ("at once", "no TLS"):
            peer.handshake()
        if end == "no TLS":
            peer.server.dataReceived(b"GET / HTTP/1.1\r\n\r\n")
        elif end == "broken":
            peer.server.dataReceived(b"\x17\x03\x03\x00\x20" + 32 * b"x")
        elif end == "closed":
            peer.close()
        elif end == "lost":
            peer.server.loseConnection()
        elif end == "aborted":
            peer.server.abortConnection()
        return peer

    @pytest.mark.parametrize(
        "end",
        ["cut", "closed", "lost", "aborted", "broken", "refused", "at once", "in the handshake", "no TLS"],
    )
    def test_nothing(self, end: str, port: Port) -> None:
        """The peer's own end is the one that matters most."""
        gc.collect()
        gc.disable()
        try:
            peer = self.ends(port, end)
            left = [weakref.ref(peer.server), weakref.ref(peer.server.wrappedProtocol)]
            peer.gone()
            del peer
            assert [each() for each in left] == [None, None]
        finally:
            gc.enable()

    def test_the_reason_is_told_all_the_same(self, port: Port) -> None:
        """Without where in the code it came from."""
        peer = Peer(port).handshake()
        guest = peer.server.wrappedProtocol
        peer.gone()
        assert guest.lost.check(ConnectionLost)
        assert guest.lost.value.__traceback__ is None
