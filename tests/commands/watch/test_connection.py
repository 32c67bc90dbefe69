"""The connection, through real sockets, against a server that behaves, and others that do not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from socket import socket
from typing import Any

import pytest
import pytest_twisted
from autobahn.websocket.protocol import WebSocketProtocol
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import SSL4ServerEndpoint
from twisted.internet.ssl import PrivateCertificate
from twisted.internet.task import Clock

from marketfeed.commands.address import parse_url
from marketfeed.commands.frames import MAX_MESSAGE
from marketfeed.commands.handshake import MAX_HEAD
from marketfeed.commands.messages import Message
from marketfeed.commands.watch.connection import dial
from marketfeed.commands.watch.watcher import SILENCE_SECONDS, Backoff, Watcher
from tests.commands.server import CONFIRMED, TRADE, Happenings, PlainServer, WatchedConnection, WatchedServer, listening


class Screen:
    """Everything that is shown, in order: notes as text, messages as bytes."""

    def __init__(self) -> None:
        self.happenings = Happenings()

    def message(self, payload: bytes, message: Message) -> None:
        self.happenings.add(payload)

    def note(self, line: str) -> None:
        self.happenings.add(line)

    def next(self) -> Deferred[Any]:
        return self.happenings.next()


class Watching:
    """A watcher with real connections; its waits are the test's."""

    def __init__(self, url: str, trust_root: Any, token: str | None) -> None:
        address = parse_url(url)
        self.url = address.shown
        self.clock = Clock()
        self.screen = Screen()
        self.watcher = Watcher(
            self.clock,
            lambda watcher: dial(reactor, address, watcher, trust_root, token=token),
            self.screen,
            self.url,
            ["trade@TATA_INR"],
            Backoff(),
        )
        self.ended = self.watcher.start()


@asynccontextmanager
async def watching(url: str, trust_root: Any = None, token: str | None = None) -> AsyncIterator[Watching]:
    """A watcher that is over when this is."""
    it = Watching(url, trust_root, token)
    try:
        yield it
    finally:
        it.watcher.stop()
        await it.ended


async def open_connection(server: WatchedServer, it: Watching) -> WatchedConnection:
    """The server's end of an open connection, whose SUBSCRIBE has arrived."""
    connection: WatchedConnection = await server.opened.next()
    await server.received.next()
    assert await it.screen.next() == f"connected to {it.url}"
    return connection


@pytest_twisted.ensureDeferred
async def test_watches() -> None:
    """It sends one SUBSCRIBE, and shows what is published; stopped, it closes with a close frame."""
    server = WatchedServer()
    async with listening(server) as port, watching(f"ws://127.0.0.1:{port}") as it:
        connection = await server.opened.next()
        assert await server.received.next() == {"method": "SUBSCRIBE", "params": ["trade@TATA_INR"], "id": 1}
        assert await it.screen.next() == f"connected to ws://127.0.0.1:{port}/"
        connection.say(CONFIRMED, TRADE)
        assert await it.screen.next() == TRADE
        it.watcher.stop()
        assert await server.closed.next() == 1000
        assert await it.ended == 0


@pytest_twisted.ensureDeferred
async def test_request() -> None:
    """The path and query of the URL are asked for; a token is shown in a header, where no proxy logs it."""
    server = PlainServer(b"HTTP/1.1 401 Unauthorized\r\n\r\n")
    async with listening(server) as port:
        async with watching(f"ws://LOCALHOST:{port}/stream?streams=trade@TATA_INR", token="abc.def.ghi"):
            request = await server.requests.next()
            assert request.startswith(b"GET /stream?streams=trade@TATA_INR HTTP/1.1\r\nHost: localhost:%d\r\n" % port)
            assert b"\r\nAuthorization: Bearer abc.def.ghi\r\n" in request
        async with watching(f"ws://127.0.0.1:{port}"):
            assert b"Authorization" not in await server.requests.next()


@pytest_twisted.ensureDeferred
async def test_reconnects() -> None:
    """A server that goes away with a close frame is connected to again, and gets the SUBSCRIBE again."""
    server = WatchedServer()
    async with listening(server) as port, watching(f"ws://127.0.0.1:{port}") as it:
        connection = await open_connection(server, it)
        connection.say(b'{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1,"reconnectAfter":2000}}')
        connection.sendCloseFrame(1012)
        assert b"serverShutdown" in await it.screen.next()
        lost = "closed with 1012, shutting down or restarting; trying again, first in 2.0 s"
        assert await it.screen.next() == f"lost {it.url}: {lost}"
        it.clock.advance(2)
        await open_connection(server, it)


@pytest_twisted.ensureDeferred
async def test_connection_that_is_cut() -> None:
    """A connection that is gone without a close frame is a loss."""
    server = WatchedServer()
    async with listening(server) as port, watching(f"ws://127.0.0.1:{port}") as it:
        connection = await open_connection(server, it)
        connection.transport.abortConnection()
        assert (await it.screen.next()).startswith(f"lost {it.url}: ")


@pytest_twisted.ensureDeferred
async def test_close_that_forbids_a_return() -> None:
    """A close code after which no retry makes sense ends it; what the server says of it is cleaned."""
    server = WatchedServer()
    async with listening(server) as port, watching(f"ws://127.0.0.1:{port}") as it:
        connection = await open_connection(server, it)
        connection.sendCloseFrame(1009, b"more than \x1b[2J")
        told = "closed with 1009, more than \N{REPLACEMENT CHARACTER}[2J"
        assert await it.screen.next() == f"lost {it.url}: {told}"
        assert await it.ended == 1


@pytest_twisted.ensureDeferred
async def test_close_without_a_code() -> None:
    """A close may say nothing at all, and a server that closes need not drop the connection for us to go on."""
    server = WatchedServer()
    async with listening(server) as port, watching(f"ws://127.0.0.1:{port}") as it:
        connection = await open_connection(server, it)
        connection.dropConnection = lambda abort=False: None
        connection.sendCloseFrame()
        assert (await it.screen.next()).startswith(f"lost {it.url}: the connection was closed; trying again")
        assert await server.closed.next() == 1000


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (b"\x81\x7f" + (MAX_MESSAGE + 1).to_bytes(8, "big"), f"a message of more than {MAX_MESSAGE} bytes"),
        (b"\xc1\x02\x03\x00", "a frame that begins with 0xc1"),  # compressed, which nobody has asked for
        (b"\x81\x02\xc3(", "a text that is not UTF-8"),
    ],
)
async def test_what_no_server_may_send(sent: bytes, told: str) -> None:
    """It ends the connection, and is not shown; a message without an end is not collected."""
    server = WatchedServer()
    async with listening(server) as port, watching(f"ws://127.0.0.1:{port}") as it:
        connection = await open_connection(server, it)
        connection.sendData(sent)
        assert (await it.screen.next()).startswith(f"lost {it.url}: it sends {told}; trying again")


@pytest_twisted.ensureDeferred
async def test_silent_server() -> None:
    """A server that answers pings is alive."""
    server = WatchedServer()
    async with listening(server) as port, watching(f"ws://127.0.0.1:{port}") as it:
        connection = await open_connection(server, it)
        pinged = Happenings()
        connection.onPing = lambda payload: (pinged.add("ping"), WebSocketProtocol.onPing(connection, payload))
        for _ in range(3):
            it.clock.pump([SILENCE_SECONDS] * 2)
            assert await pinged.next() == "ping"
            connection.say(TRADE)
            assert await it.screen.next() == TRADE


# Handshakes that fail.


def answer(status: str, body: bytes = b"", *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode() + body


PLAIN = "Content-Type: text/plain; charset=utf-8"


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (
            answer("401 Unauthorized", b"the token has expired", PLAIN),
            "the server answers 401 Unauthorized: the token has expired",
        ),
        (answer("403 Forbidden", b"<p>", "Content-Type: text/html"), "the server answers 403 Forbidden"),
        (answer("400 Bad\x1b[2J"), "the server answers 400 Bad\ufffd[2J"),
    ],
)
async def test_final_refusals(sent: bytes, told: str) -> None:
    """A request that is refused for what it is ends it with status 1, and is told with what the server said."""
    async with listening(PlainServer(sent)) as port, watching(f"ws://127.0.0.1:{port}/x") as it:
        assert await it.screen.next() == f"cannot watch ws://127.0.0.1:{port}/x: {told}"
        assert await it.ended == 1


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (
            answer("503 Service Unavailable", b"draining", "retry-after: 7", PLAIN),
            "the server answers 503 Service Unavailable: draining; trying again, first in 7.0 s",
        ),
        (answer("429 Too Many Requests"), "the server answers 429 Too Many Requests; trying again"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "it does not speak HTTP; trying again"),
        (b"HTTP/1.1 101 X\r\nX: \xff\r\n\r\n", "it does not speak WebSocket; trying again"),
        (b"x" * (MAX_HEAD + 1), f"it sends more than {MAX_HEAD} bytes of HTTP headers; trying again"),
    ],
)
async def test_other_refusals(sent: bytes, told: str) -> None:
    """Whatever else a server answers may be over soon, and is tried again."""
    async with listening(PlainServer(sent)) as port, watching(f"ws://127.0.0.1:{port}") as it:
        assert (await it.screen.next()).startswith(f"cannot watch {it.url}: {told}")
        assert not it.ended.called


@pytest_twisted.ensureDeferred
async def test_nobody_listens() -> None:
    """Where nobody listens, it says so and tries again."""
    with socket() as bound:
        bound.bind(("127.0.0.1", 0))
        async with watching(f"ws://127.0.0.1:{bound.getsockname()[1]}") as it:
            note = await it.screen.next()
            assert note.startswith(f"cannot reach {it.url}: Connection was refused by other side")
            assert not it.ended.called


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_host_that_cannot_be(scheme: str) -> None:
    """A host name that no server can have ends it."""
    async with watching(f"{scheme}://not_a_name") as it:
        assert (await it.screen.next()).startswith(f"cannot reach {it.url}: ")
        assert await it.ended == 1


# TLS.


def certificate(host: x509.GeneralName) -> PrivateCertificate:
    """A certificate for one host, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([host]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return PrivateCertificate.loadPEM(private + signed.public_bytes(serialization.Encoding.PEM))


old_tls = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")
"""Twisted's own, about how it passes a certificate on."""

LOOPBACK = x509.IPAddress(IPv4Address("127.0.0.1"))


def listening_with(served: PrivateCertificate, server: WatchedServer) -> Any:
    return listening(server, lambda reactor: SSL4ServerEndpoint(reactor, 0, served.options(), interface="127.0.0.1"))


@old_tls
@pytest_twisted.ensureDeferred
async def test_tls() -> None:
    """A wss server with a trusted certificate for its host is watched, and left, as any other."""
    server, served = WatchedServer(), certificate(LOOPBACK)
    async with listening_with(served, server) as port, watching(f"wss://127.0.0.1:{port}", served) as it:
        connection = await open_connection(server, it)
        connection.say(TRADE)
        assert await it.screen.next() == TRADE
        it.watcher.stop()
        assert await server.closed.next() == 1000


@old_tls
@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("is_trusted", "told"),
    [(True, "its certificate is for another host"), (False, "no TLS with it: certificate verify failed")],
)
async def test_tls_that_cannot_be_trusted(is_trusted: bool, told: str) -> None:
    """A certificate of another host, or one that nobody trusted has signed, is not accepted."""
    server = WatchedServer()
    served = certificate(x509.DNSName("other.example") if is_trusted else LOOPBACK)
    async with (
        listening_with(served, server) as port,
        watching(f"wss://127.0.0.1:{port}", served if is_trusted else None) as it,
    ):
        assert (await it.screen.next()).startswith(f"cannot watch {it.url}: {told}; trying again")


@pytest_twisted.ensureDeferred
async def test_tls_with_a_server_that_has_none() -> None:
    """A server that does not speak TLS is no wss server."""
    server = PlainServer(b"HTTP/1.1 400 Bad Request\r\n\r\n", after=b"")
    async with listening(server) as port, watching(f"wss://127.0.0.1:{port}") as it:
        assert (await it.screen.next()).startswith(f"cannot watch {it.url}: no TLS with it: wrong version number")


@pytest_twisted.ensureDeferred
async def test_tls_that_is_cut() -> None:
    """A server that drops the connection during the TLS handshake is tried again."""
    server = PlainServer(None, after=b"")
    async with listening(server) as port, watching(f"wss://127.0.0.1:{port}") as it:
        assert (await it.screen.next()).startswith(f"cannot watch {it.url}: ")
        assert not it.ended.called
