"""Connections with TLS: their beginning, what is sent and read in whatever pieces, their end, and what they leave."""

from __future__ import annotations

import errno
import gc
import socket
import ssl
import weakref
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

import marketfeed.runtime.tls_connections as module
from marketfeed.boundaries import LONGEST_SEND
from marketfeed.runtime.connections import ReadByReactor
from marketfeed.runtime.tls_connections import OpenSsl, TlsConnection
from tests.certificates import Authority
from tests.conftest import LogCapture
from tests.strategies import machine_test
from tests.tls_port import SocketReactor, TlsClient, TlsPort

AUTHORITY = Authority()
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
HELLO_OF_HTTP = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


class Guest(Protocol):
    """The server's side, which holds what a client's connection holds: a producer that knows the transport."""

    lost: Failure | None = None

    def __init__(self) -> None:
        self.received = b""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.registerProducer(Producer(self.transport), True)  # type: ignore[arg-type]

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason
        self.transport = None


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


def description(directory: Path, before: str = "") -> str:
    certificate, key = AUTHORITY.issue("localhost").write(directory)
    return f"{before}ssl:8443:privateKey={key}:certKey={certificate}"


@pytest.fixture
def port(tmp_path: Path) -> Iterator[TlsPort]:
    port = TlsPort(description(tmp_path), Guests())
    yield port
    port.close()


@pytest.fixture
def proxied(tmp_path: Path) -> Iterator[TlsPort]:
    """Behind a proxy that says whose connections they are."""
    port = TlsPort(description(tmp_path, "haproxy:"), Guests())
    yield port
    port.close()


def trusting(authority: Authority = AUTHORITY, *offered: str) -> ssl.SSLContext:
    """A client that trusts this authority only, and offers these protocols."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=authority.certificate.public_bytes(Encoding.DER))
    if offered:
        context.set_alpn_protocols(list(offered))
    return context


def of_version(version: ssl.TLSVersion) -> ssl.SSLContext:
    context = trusting()
    context.minimum_version = context.maximum_version = version
    return context


def refused(port: TlsPort, context: ssl.SSLContext) -> TlsClient:
    """A client whose handshake fails, and whose connection is gone then."""
    client = TlsClient(port, context)
    with pytest.raises(ssl.SSLError):
        client.finish(client.tls.do_handshake)
    port.until(lambda: client.server.lost)
    return client


def said(logged: LogCapture) -> list[str]:
    """What the log says of TLS, without the client's port."""
    lines = [event["log_format"].format(**event) for event in logged.events if "TLS:" in str(event.get("log_format"))]
    return [line.replace(line.split("127.0.0.1:")[1].split(" ")[0], "PORT") for line in lines]


class TestFailures:
    def test_who_does_not_trust_the_certificate(self, port: TlsPort, logged: LogCapture) -> None:
        """Says so, and so does the log."""
        refused(port, trusting(Authority()))
        (line,) = said(logged)
        assert line.startswith("TLS: the handshake with 127.0.0.1:PORT failed: ")
        assert line.endswith(" (1 since the start)")
        assert "alert" in line

    def test_who_speaks_other_protocols_only(self, port: TlsPort, logged: LogCapture) -> None:
        """Which are no secret. What it has sent, and nobody has read, resets nothing behind the alert."""
        client = refused(port, trusting(AUTHORITY, "h2", "smtp"))
        while not client.is_over:
            client.take_in(20)
        assert client.error == 0
        assert said(logged) == [
            "TLS: the handshake with 127.0.0.1:PORT failed: no application protocol; expected http/1.1 among those "
            "offered, or none (1 since the start)"
        ]

    def test_who_does_not_speak_tls(self, port: TlsPort, logged: LogCapture) -> None:
        """Plain HTTP, most likely."""
        guest, _, client = port.accept()
        client.send(HELLO_OF_HTTP)
        port.until(lambda: guest.lost)
        (line,) = said(logged)
        assert "failed: http request (1 since the start)" in line

    @pytest.mark.parametrize("sent", [1, 100])
    def test_who_hangs_up_in_between(self, sent: int, port: TlsPort, logged: LogCapture) -> None:
        """Has failed, however little of a ClientHello has come."""
        client = TlsClient(port, trusting())
        with pytest.raises(ssl.SSLWantReadError):
            client.tls.do_handshake()
        client.send_out(sent)
        port.reactor.turn()
        client.socket.shutdown(socket.SHUT_WR)
        port.until(lambda: client.server.lost)
        (line,) = said(logged)
        assert "failed: the client hung up (1 since the start)" in line

    def test_who_resets_in_between(self, port: TlsPort, logged: LogCapture) -> None:
        """Has failed as well."""
        client = TlsClient(port, trusting())
        with pytest.raises(ssl.SSLWantReadError):
            client.tls.do_handshake()
        client.exchange()
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.socket.close()
        port.until(lambda: client.server.lost)
        (line,) = said(logged)
        assert "failed: the client hung up (1 since the start)" in line

    def test_who_is_ended_in_between(self, port: TlsPort, logged: LogCapture) -> None:
        """By a time-out, as of a request that does not come."""
        client = TlsClient(port, trusting())
        with pytest.raises(ssl.SSLWantReadError):
            client.tls.do_handshake()
        client.exchange()
        client.transport.abortConnection()
        port.until(lambda: client.server.lost)
        (line,) = said(logged)
        assert "failed: it took too long (1 since the start)" in line

    def test_who_says_nothing_has_not_failed(self, port: TlsPort, logged: LogCapture) -> None:
        """Load balancers look like that whether a port is open."""
        guest, _, client = port.accept()
        client.close()
        port.until(lambda: guest.lost)
        assert said(logged) == []

    def test_who_goes_later_has_not_failed(self, port: TlsPort, logged: LogCapture) -> None:
        """However it goes, which is told."""
        client = port.connect(trusting())
        client.socket.close()
        port.until(lambda: client.server.lost)
        assert client.server.lost.check(ConnectionLost)
        client = port.connect(trusting())
        client.good_bye()
        port.until(lambda: client.server.lost)
        assert client.server.lost.check(ConnectionDone)
        assert said(logged) == []

    def test_a_flood_of_them_is_some_lines(self, port: TlsPort, logged: LogCapture) -> None:
        """And all are counted."""
        for _ in range(50):
            refused(port, trusting(AUTHORITY, "h2"))
        assert len(said(logged)) == 5
        port.reactor.advance(1)
        assert said(logged)[5:] == [
            "TLS: the handshake with 127.0.0.1:PORT failed: no application protocol; expected http/1.1 among those "
            "offered, or none (50 since the start) (the last of 45 within 1 s)"
        ]
        refused(port, trusting(AUTHORITY, "h2"))
        port.factory.doStart()
        port.factory.doStop()
        assert not port.reactor.getDelayedCalls()
        assert len(said(logged)) == 7


class TestHandshake:
    @pytest.mark.parametrize("version", VERSIONS)
    @pytest.mark.parametrize("offered", [(), ("http/1.1",), ("h2", "http/1.1")])
    def test_byte_by_byte(self, version: ssl.TLSVersion, offered: tuple[str, ...], port: TlsPort) -> None:
        """It comes about, and while nothing comes nobody looks again and again."""
        context = of_version(version)
        if offered:
            context.set_alpn_protocols(list(offered))
        client = TlsClient(port, context)
        is_done = False
        while not is_done:
            try:
                client.tls.do_handshake()
                is_done = True
            except ssl.SSLWantReadError:
                pass
            while client.has_more_to_send:
                client.send_out(1)
                port.reactor.turn()
                looks = port.reactor.turns
                for _ in range(3):
                    port.reactor.turn()
                assert port.reactor.turns - looks <= 1
            if not is_done:
                client.take_in(20)
        client.tls.write(b"hello")
        client.send_out()
        port.until(lambda: client.server.received == b"hello")

    def test_who_offers_other_protocols_byte_by_byte(self, port: TlsPort, logged: LogCapture) -> None:
        """Is refused as well: what has come is looked at until it is enough, and not at every turn."""
        client = TlsClient(port, trusting(AUTHORITY, "h2"))
        with pytest.raises(ssl.SSLWantReadError):
            client.tls.do_handshake()
        while client.has_more_to_send:
            client.send_out(1)
            for _ in range(3):
                port.reactor.turn()
        port.until(lambda: client.server.lost)
        assert "no application protocol" in said(logged)[0]

    def test_nobody_negotiates_anew(self, port: TlsPort) -> None:
        """TLS 1.2 has room for it, and for attacks by it."""
        client = port.connect(of_version(ssl.TLSVersion.TLSv1_2))
        assert port.factory._context().options & ssl.OP_NO_RENEGOTIATION
        assert client.tls.version() == "TLSv1.2"

    def test_it_may_have_to_wait_for_the_socket(self, port: TlsPort) -> None:
        """Which is then asked whether it can be written to, and not whether there is something to be read."""
        guest, transport, client = port.accept()
        openssl = Scripted()
        openssl.handshake.extend([ssl.SSLWantWriteError, ssl.SSLWantReadError, ssl.SSLWantWriteError])
        transport._ssl = openssl
        client.send(b"\x16 and so on")
        transport._looked_at = len(b"\x16 and so on")  # all that will come
        port.until(lambda: len(openssl.handshake) == 2)
        assert transport in port.reactor.writers
        assert transport not in port.readers
        port.until(lambda: len(openssl.handshake) == 1)
        assert transport not in port.reactor.writers
        transport.write(b"later")
        port.until(lambda: transport._stage == module._OPEN and bytes(openssl.sent) == b"later")
        transport.abortConnection()
        port.until(lambda: guest.lost)

    def test_what_is_written_before_is_sent_behind_it(self, port: TlsPort) -> None:
        """And what ends the connection then ends it behind that."""
        client = TlsClient(port, trusting())
        client.transport.write(b"early")
        client.transport.loseConnection()
        for _ in range(3):
            port.reactor.turn()
        looks = port.reactor.turns
        port.reactor.turn()
        assert port.reactor.turns == looks, "nothing turns in circles"
        client.finish(client.tls.do_handshake)
        assert client.finish(lambda: client.tls.read(100)) == b"early"
        assert client.finish(lambda: client.tls.read(100)) == b""
        port.until(lambda: client.server.lost)
        assert client.server.lost.check(ConnectionDone)

    def test_nothing_to_be_sent_is_not_waited_for(self, port: TlsPort) -> None:
        client = TlsClient(port, trusting())
        client.transport.loseConnection()
        port.until(lambda: client.server.lost)
        assert client.server.lost.check(ConnectionDone)

    def test_who_encrypts_is_told_once(self, port: TlsPort, logged: LogCapture) -> None:
        for _ in range(2):
            port.connect(trusting())
        lines = [event["log_format"] for event in logged.events if "kTLS" in str(event.get("log_format"))]
        assert len(lines) == 1


class TestAsTwistedAccepts:
    """On ports that are not TCP's, and where there is no epoll."""

    def test_the_reactor_watches_each(self, port: TlsPort) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            client = socket.create_connection(listening.getsockname())
            skt, address = listening.accept()
        transport = port.factory.transport(skt, Guest(), address, port.reactor.port, 0, port.reactor)
        assert transport in port.reactor.readers
        assert not skt.getblocking()
        assert transport.getTcpNoDelay()
        client.close()

    def test_a_socket_that_is_not_tcps(self, port: TlsPort) -> None:
        ours, theirs = socket.socketpair()
        transport = port.factory.transport(ours, Guest(), ("", 0), port.reactor.port, 0, port.reactor)
        assert transport in port.reactor.readers
        assert not ours.getblocking()
        theirs.close()


class TestProxy:
    V1 = b"PROXY TCP4 203.0.113.7 192.0.2.1 5000 443\r\n"
    V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes([203, 0, 113, 7, 192, 0, 2, 1]) + b"\x13\x88\x01\xbb"

    @pytest.mark.parametrize("header", [V1, V2])
    @pytest.mark.parametrize("pieces", [1, 10_000])
    def test_it_comes_first(self, header: bytes, pieces: int, proxied: TlsPort) -> None:
        """And says where the client is, and where it has arrived."""
        client = TlsClient(proxied, trusting())
        for at in range(0, len(header), pieces):
            client.socket.send(header[at : at + pieces])
            proxied.reactor.turn()
        client.finish(client.tls.do_handshake)
        client.tls.write(b"hello")
        client.send_out()
        proxied.until(lambda: client.server.received == b"hello")
        peer, host = client.transport.getPeer(), client.transport.getHost()
        assert (peer.host, peer.port, host.host, host.port) == ("203.0.113.7", 5000, "192.0.2.1", 443)

    @pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", b"\r\n\r\n\0\r\nQUIT\n\x20\x00\0\x00"])
    def test_one_of_the_proxy_itself(self, header: bytes, proxied: TlsPort) -> None:
        """Names nobody."""
        client = TlsClient(proxied, trusting(), before=header)
        client.finish(client.tls.do_handshake)
        assert client.transport.getPeer().port == client.socket.getsockname()[1]

    @pytest.mark.parametrize("sent", [b"\x16\x03\x01", HELLO_OF_HTTP, b"PROXY nonsense\r\n", b"PROXY " + 200 * b"x"])
    def test_who_sends_none(self, sent: bytes, proxied: TlsPort, logged: LogCapture) -> None:
        """Has failed."""
        guest, _, client = proxied.accept()
        client.send(sent)
        proxied.until(lambda: guest.lost)
        assert "expected a header of the PROXY protocol first" in said(logged)[0]

    def test_one_that_does_not_end(self, proxied: TlsPort, logged: LogCapture) -> None:
        """Is not waited for when it is too long, or nothing more comes."""
        guest, _, client = proxied.accept()
        client.send(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff" + 20_000 * b"x")
        proxied.until(lambda: guest.lost)
        guest, _, client = proxied.accept()
        client.send(b"PROXY")
        client.shutdown(socket.SHUT_WR)
        proxied.until(lambda: guest.lost)
        assert ["PROXY header is too long" in said(logged)[0], "hung up" in said(logged)[1]] == [True, True]


class TestOpen:
    def test_a_peer_that_reads_late_gets_everything(self, port: TlsPort) -> None:
        """Megabytes, by whoever writes them, then the end."""
        client = port.connect(trusting())
        client.transport.unregisterProducer()
        sent = b"".join(b"%d," % number for number in range(500_000))
        for at in range(0, len(sent), 100_000):
            client.transport.write(sent[at : at + 100_000])
        client.transport.loseConnection()
        received = b""
        while data := client.finish(lambda: client.tls.read(1_000_000)):
            received += data
        assert received == sent
        port.until(lambda: client.server.lost)
        assert client.server.lost.check(ConnectionDone)

    def test_what_comes_is_read_to_the_last_byte(self, port: TlsPort, monkeypatch: pytest.MonkeyPatch) -> None:
        """Though the socket says nothing of what has been decrypted already."""
        client = port.connect(trusting())
        client.exchange()
        monkeypatch.setattr(module, "LONGEST_SEND", 10)
        client.tls.write(bytes(1000))
        client.send_out()
        port.until(lambda: client.server.received)
        assert client.server.received == bytes(1000)

    def test_a_pause_in_the_midst_of_a_record(self, port: TlsPort, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is left of it comes when reading goes on, without anything new on the socket."""
        client = port.connect(trusting())
        client.exchange()
        monkeypatch.setattr(module, "LONGEST_SEND", 10)
        received = []

        def once(data: bytes) -> None:
            received.append(data)
            client.transport.pauseProducing()

        client.server.dataReceived = once
        client.tls.write(bytes(30))
        client.send_out()
        port.until(lambda: received)
        port.reactor.turn()
        assert len(received) == 1
        for count in (2, 3):
            client.transport.resumeProducing()
            port.reactor.advance(0)
            assert len(received) == count
        client.transport.resumeProducing()
        assert not port.reactor.getDelayedCalls()

    def test_who_has_said_good_bye_is_answered(self, port: TlsPort) -> None:
        client = port.connect(trusting())
        client.good_bye()
        port.until(lambda: client.server.lost)

    def test_the_end_is_said(self, port: TlsPort) -> None:
        """And what has come by then does not reset the connection."""
        client = port.connect(trusting())
        client.transport.pauseProducing()
        for _ in range(5):
            client.tls.write(b"unread")
        client.send_out()
        client.transport.write(b"the last")
        client.transport.loseConnection()
        port.until(lambda: client.server.lost)
        assert client.finish(lambda: client.tls.read(100)) == b"the last"
        assert client.finish(lambda: client.tls.read(100)) == b"", "and no error"
        while not client.is_over:
            client.take_in(20)
        assert not client.was_reset
        assert client.error == 0, "a reset behind it: on a slow way it would have lost what was sent last"
        assert client.server.received == b""

    def test_who_is_aborted_is_reset(self, port: TlsPort) -> None:
        client = port.connect(trusting())
        client.transport.abortConnection()
        port.until(lambda: client.server.lost)
        assert client.server.lost.check(ConnectionAborted)
        assert client.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET

    def test_what_is_broken_on_the_way_ends_it(self, port: TlsPort) -> None:
        client = port.connect(trusting())
        client.socket.send(b"\x17\x03\x03\x00\x20" + 32 * b"x")
        port.until(lambda: client.server.lost)
        assert client.server.lost.check(ConnectionLost)

    @pytest.mark.parametrize("version", VERSIONS)
    def test_its_addresses(self, version: ssl.TLSVersion, port: TlsPort) -> None:
        client = port.connect(of_version(version))
        assert client.transport.getPeer().port == client.socket.getsockname()[1]
        assert client.transport.getHost().port == client.socket.getpeername()[1]
        assert client.transport.getPeerCertificate() is None  # type: ignore[func-returns-value]


class TestLeftovers:
    """A connection that is gone is in no cycle of references: nobody looks for one, for as long as it takes."""

    def ends(self, port: TlsPort, end: str) -> TlsClient:
        client = TlsClient(port, trusting(AUTHORITY, *(("h2",) if end == "refused" else ())))
        if end == "no TLS":
            client.socket.send(HELLO_OF_HTTP)
        elif end in ("in the handshake", "refused"):
            with pytest.raises(ssl.SSLWantReadError):
                client.tls.do_handshake()
            client.exchange()
        elif end != "at once":
            client.finish(client.tls.do_handshake)
        if end == "broken":
            client.socket.send(b"\x17\x03\x03\x00\x20" + 32 * b"x")
        elif end == "closed":
            client.good_bye()
        elif end == "lost":
            client.transport.unregisterProducer()
            client.transport.loseConnection()
        elif end == "aborted":
            client.transport.abortConnection()
        elif end in ("cut", "at once", "in the handshake"):
            client.socket.close()
        return client

    @pytest.mark.parametrize(
        "end",
        ["cut", "closed", "lost", "aborted", "broken", "refused", "at once", "in the handshake", "no TLS"],
    )
    def test_nothing(self, end: str, port: TlsPort) -> None:
        """The peer's own end is the one that matters most."""
        gc.collect()
        gc.disable()
        try:
            client = self.ends(port, end)
            port.until(lambda: client.server.lost)
            left = [weakref.ref(client.server), weakref.ref(client.transport)]
            client.__dict__.clear()
            assert [each() for each in left] == [None, None]
        finally:
            gc.enable()


class Scripted:
    """OpenSSL, of which the next steps fail as they are told to. What it is offered again must be the same."""

    def __init__(self) -> None:
        self.handshake: deque[type[OSError]] = deque()
        self.writes: deque[type[OSError]] = deque()
        self.reads: deque[type[OSError]] = deque()
        self.sent = bytearray()
        self.offered = b""
        self.incoming: deque[bytes] = deque()
        self.decrypted = b""
        self.good_byes = 0
        self.has_ended = False
        """The peer has said good-bye."""

    def do_handshake(self) -> None:
        self._step(self.handshake)

    def read(self, most: int) -> bytes:
        if not self.decrypted:
            self._step(self.reads)
            if not self.incoming:
                if self.has_ended:
                    return b""
                raise ssl.SSLWantReadError
            self.decrypted = self.incoming.popleft()
        data, self.decrypted = self.decrypted[: min(most, 7)], self.decrypted[min(most, 7) :]
        return data

    def write(self, data: bytes | memoryview) -> int:
        assert 0 < len(data) <= LONGEST_SEND
        assert not self.good_byes, "nothing follows a good-bye"
        assert self.offered in (b"", bytes(data)), "not the same bytes"
        self.offered = bytes(data)
        self._step(self.writes)
        self.offered = b""
        self.sent += data
        return len(data)

    def pending(self) -> int:
        return len(self.decrypted)

    def shutdown(self) -> None:
        assert not self.offered, "a record is under way"
        self._step(self.writes)
        self.good_byes += 1

    def _step(self, script: deque[type[OSError]]) -> None:
        if script:
            raise script.popleft()


if TYPE_CHECKING:
    _scripted: OpenSsl = Scripted()

WANTS: list[type[OSError]] = [ssl.SSLWantReadError, ssl.SSLWantWriteError]


class Interleavings(RuleBasedStateMachine):
    """Writes and reads of any size, of which any may have to wait for either, pauses, and the end."""

    def __init__(self) -> None:
        super().__init__()
        self.reactor = SocketReactor()
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        self.openssl = Scripted()
        self.guest = Guest()
        self.transport = TlsConnection(
            self.ours,
            self.guest,
            ("127.0.0.1", 1),
            self.reactor,
            ReadByReactor(self.reactor),
            cast(Any, None),
            self.openssl,
            is_proxied=False,
        )
        self.transport._stage = module._OPEN
        self.guest.transport = cast(Any, self.transport)
        self.written = bytearray()
        self.sent_to_us = b""
        self.number = 0
        self.closing = self.fails = False

    @property
    def gone(self) -> bool:
        return self.guest.lost is not None

    def _new(self, size: int) -> bytes:
        self.number += 1
        return (b"%d:" % self.number) + bytes((97 + self.number % 26,)) * size

    @precondition(lambda self: not (self.gone or self.closing))
    @rule(size=st.sampled_from([0, 10, 5000, LONGEST_SEND, 100_000, 400_000]))
    def write(self, size: int) -> None:
        data = self._new(size)
        self.written += data
        if not self.transport._has_unsent and len(data) <= LONGEST_SEND:  # directly, as an outbox does it
            try:
                assert self.transport.getHandle().write(data) == len(data)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                self.transport.under_way = len(data)
                self.transport.write(data)
            except OSError:
                self.transport.abortConnection()
                self.reactor.advance(0)
            return
        self.transport.write(data)

    @rule(wants=st.sampled_from(WANTS), count=st.integers(1, 3))
    def writes_have_to_wait(self, wants: type[OSError], count: int) -> None:
        self.openssl.writes.extend(count * [wants])

    @rule(wants=st.sampled_from(WANTS), count=st.integers(1, 3))
    def reads_have_to_wait(self, wants: type[OSError], count: int) -> None:
        self.openssl.reads.extend(count * [wants])

    @rule(size=st.integers(1, 30))
    def something_comes(self, size: int) -> None:
        data = self._new(size)
        self.openssl.incoming.append(data)
        if not (self.closing or self.openssl.has_ended):
            self.sent_to_us += data

    @rule()
    def can_be_written(self) -> None:
        if self.transport in self.reactor.writers:
            self._end(self.transport.doWrite())

    @rule()
    def can_be_read(self) -> None:
        if self.transport in self.reactor.readers:
            self._end(self.transport.doRead())

    def _end(self, why: Any) -> None:
        if why is not None:
            self.transport.connectionLost(Failure(why))
        self.reactor.advance(0)

    @precondition(lambda self: not self.gone)
    @rule()
    def pause(self) -> None:
        self.transport.pauseProducing()

    @precondition(lambda self: not self.gone)
    @rule()
    def resume(self) -> None:
        self.transport.resumeProducing()
        self.reactor.advance(0)

    @precondition(lambda self: self.number > 10)
    @rule()
    def close(self) -> None:
        self.closing = True
        self.transport.loseConnection()

    @precondition(lambda self: self.number > 20)
    @rule()
    def the_peer_says_good_bye(self) -> None:
        self.openssl.has_ended = True

    @precondition(lambda self: self.number > 20)
    @rule()
    def a_write_fails(self) -> None:
        self.fails = True
        self.openssl.writes.append(BrokenPipeError)

    @invariant()
    def all_of_it_in_order(self) -> None:
        assert self.written.startswith(self.openssl.sent)
        assert self.sent_to_us.startswith(self.guest.received)

    @invariant()
    def what_is_decrypted_is_read(self) -> None:
        is_paused = self.transport._is_paused or self.closing or self.gone
        assert is_paused or not self.openssl.pending()

    @invariant()
    def nothing_is_forgotten(self) -> None:
        """What is to be sent is being waited for; and what waits for the one is not asked for by the other."""
        transport, reactor = self.transport, self.reactor
        if self.gone:
            assert transport not in reactor.readers | reactor.writers
            return
        if transport._has_unsent or self.closing or transport._read_waits:
            assert transport in reactor.writers or transport._write_waits
        if transport._write_waits or not (transport._is_paused or self.closing or transport._read_waits):
            assert transport in reactor.readers

    def teardown(self) -> None:
        """In the end all has been sent and read, unless it was cut off."""
        for script in (self.openssl.writes, self.openssl.reads):
            script.clear()
        if not self.gone:
            self.transport.resumeProducing()
            self.reactor.advance(0)
        for _ in range(200):
            self.can_be_read()
            self.can_be_written()
        if not (self.fails or self.openssl.has_ended):
            assert self.openssl.sent == self.written
            if not self.closing:
                assert self.guest.received == self.sent_to_us
                assert not self.gone
        if self.closing and not self.fails:
            assert self.gone
        if not self.gone:
            self.transport.connectionLost(Failure(ConnectionDone()))
        self.theirs.close()


def test_any_interleaving_sends_and_reads_everything_in_order() -> None:
    """Whatever waits for what, pauses, and the end: nothing twice, nothing lost, and nothing before its time."""
    run_state_machine_as_test(Interleavings, settings=machine_test(1, 50))
