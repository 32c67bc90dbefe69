"""WebSocket clients that cost next to nothing, for tests with thousands of them.

The handshake is written by hand, and frames are cut out of what arrives. What a server must not send, such as a masked
or a fragmented frame, ends the connection, and with it whatever waits for it, in that error.
"""

from __future__ import annotations

import functools
import json
import re
import struct
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred, DeferredSemaphore, FirstError, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.interfaces import IHandshakeListener, ISSLTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from marketfeed.runtime.file_limit import raise_file_limit
from tests.system.harness import DEADLINE, DaemonProcess, Harness

__all__ = ["HANDSHAKE", "LeanClient", "LeanClients", "all_of", "client_frame", "within"]

HANDSHAKE = (
    b"GET %b HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
"""A client's handshake, to be completed with the path."""
_ACCEPT = re.compile(rb"(?i:Sec-WebSocket-Accept): s3pPLMBiTxaQ9kYGzzhZRbK\+xOo=")  # RFC 6455, 1.3, for that key

_TEXT, _CLOSE, _PING = 0x81, 0x88, 0x89
_NO_MASK = b"\0\0\0\0"  # a mask that changes nothing

_Result = TypeVar("_Result")
_Test = Callable[..., Coroutine[Any, Any, None]]


def client_frame(payload: bytes, first: int = _TEXT) -> bytes:
    """A frame as a client sends it."""
    size = len(payload)
    if size < 126:
        return bytes((first, 0x80 | size)) + _NO_MASK + payload
    return struct.pack("!BBH", first, 0xFE, size) + _NO_MASK + payload


@implementer(IHandshakeListener)
class LeanClient(Protocol):
    """One client. `handshake` tells the status of the answer, 0 for none; `lost` fires when the connection is gone.

    `secured` fires when TLS has been agreed on.

    `fault`: what was wrong with something that was received; `lost` fails with it then.
    """

    def __init__(self) -> None:
        self.handshake: Deferred[int] = Deferred()
        self.lost: Deferred[None] = Deferred()
        self.secured: Deferred[None] = Deferred()
        self.fault: Failure | None = None
        self.close_code: int | None = None
        self.texts: list[bytes] = []
        self.rest = b""  # of a frame that has not wholly arrived
        self._closing = False
        self._cut: Callable[[bytes], bytes] = self._head

    # What a test does with it.

    def send(self, request: object) -> None:
        """Send one message: bytes as they are, anything else as JSON."""
        self.transport.write(client_frame(request if isinstance(request, bytes) else json.dumps(request).encode()))

    def close(self) -> None:
        """Begin the closing handshake."""
        self._closing = True
        self.transport.write(client_frame(b"\x03\xe8", _CLOSE))

    def abort(self) -> None:
        """Reset the connection."""
        self.transport.abortConnection()

    @property
    def socket(self) -> Any:
        """The connection's own, with TLS or without."""
        return (self._below if self._below is not None else self.transport).getHandle()

    @property
    def _below(self) -> Any:
        """The transport below TLS; None where there is no TLS."""
        return self.transport.transport if ISSLTransport.providedBy(self.transport) else None

    def send_and_abort(self, data: bytes) -> None:
        """Reset the connection right behind some bytes, which the transport would not send any more."""
        if self._below is not None:
            tls = self.transport.getHandle()
            assert tls.send(data) == len(data)
            data = tls.bio_read(65536)
        assert self.socket.send(data) == len(data)
        self.abort()

    def cut(self) -> None:
        """End the TCP connection, without a word of TLS if there is any."""
        (self._below if self._below is not None else self.transport).loseConnection()

    def text_received(self, text: bytes) -> None:
        """A message has arrived; kept in `texts` unless a subclass knows better."""
        self.texts.append(text)

    def answer_close(self, code: bytes) -> None:
        """The server has begun the closing handshake."""
        self.transport.write(client_frame(code, _CLOSE))

    def gone(self) -> None:
        """The connection is gone."""

    # What the transport calls.

    def handshakeCompleted(self) -> None:
        self.secured.callback(None)

    def dataReceived(self, data: bytes) -> None:
        try:
            self.rest = self._cut(self.rest + data if self.rest else data)
        except Exception:
            self.fault = Failure()
            self.abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.gone()
        if not self.handshake.called:
            self.handshake.callback(0)
        self.lost.callback(self.fault)  # a Failure becomes an errback

    def _head(self, data: bytes) -> bytes:
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return data
        head, rest = data[:end], data[end + 4 :]
        status = int(head[9:12])
        if status != 101:
            self._cut = lambda _: b""
            self.handshake.callback(status)
            return b""
        assert _ACCEPT.search(head), head
        self._cut = self._frames
        self.handshake.callback(status)
        return self._frames(rest)

    def _frames(self, data: bytes) -> bytes:
        """Take the whole frames from `data`; returns the rest."""
        at, end = 0, len(data)
        while end - at >= 2:
            first, size = data[at], data[at + 1]
            start = at + 2
            if size == 126:
                start = at + 4
                size = int.from_bytes(data[at + 2 : start], "big")
            elif size == 127:
                start = at + 10
                size = int.from_bytes(data[at + 2 : start], "big")
            else:
                assert size < 126, "a masked frame"
            stop = start + size
            if stop > end:
                break
            if first == _TEXT:
                self.text_received(data[start:stop])
            else:
                self._control(first, data[start:stop])
            at = stop
        return data[at:]

    def _control(self, first: int, payload: bytes) -> None:
        if first == _PING:
            self.transport.write(client_frame(payload, 0x8A))
            return
        assert first == _CLOSE, f"a frame that begins with {first:#x}"
        self.close_code = int.from_bytes(payload[:2], "big") if payload else 1005
        if not self._closing:
            self._closing = True
            self.answer_close(payload[:2])


_Client = TypeVar("_Client", bound=LeanClient)


class LeanClients(Generic[_Client]):
    """Connects the lean clients of a test to one daemon, and ends those that are left when the test ends.

    `tls`: how, as `optionsForClientTLS` says it.
    """

    def __init__(self, harness: Harness, daemon: DaemonProcess, tls: Any = None) -> None:
        raise_file_limit()
        endpoint: Any = TCP4ClientEndpoint(harness.reactor, "127.0.0.1", daemon.port, timeout=DEADLINE)
        self._endpoint = endpoint if tls is None else wrapClientTLS(tls, endpoint)
        self._is_secure = tls is not None
        self._connected: set[LeanClient] = set()
        harness.on_close(self._end)

    async def connect(self, client: _Client) -> _Client:
        """A TCP connection, or one with TLS, on which nothing has been sent yet."""
        await connectProtocol(self._endpoint, client)
        if self._is_secure:
            await client.secured
        client.transport.setTcpNoDelay(True)
        self._connected.add(client)
        client.lost.addCallback(lambda _: self._connected.discard(client))
        return client

    async def open(self, client: _Client, path: str = "/") -> _Client:
        """A WebSocket that is open."""
        await self.connect(client)
        return await self.upgrade(client, path)

    async def upgrade(self, client: _Client, path: str) -> _Client:
        """Make a WebSocket of a connection on which nothing has been sent yet."""
        client.transport.write(HANDSHAKE % path.encode())
        status = await client.handshake
        assert status == 101, f"{path} was answered with {status}"
        return client

    def _end(self) -> Deferred[Any]:
        for client in list(self._connected):
            client.abort()
        return gatherResults([client.lost for client in self._connected])


async def all_of(work: Iterable[Coroutine[Any, Any, _Result]], at_once: int = 50) -> list[_Result]:
    """The results of `work`, `at_once` of it going on at a time. Fails as soon as one of it does, with its error."""
    room = DeferredSemaphore(at_once)
    try:
        return await gatherResults([room.run(_started, one) for one in work], consumeErrors=True)
    except FirstError as first:
        first.subFailure.raiseException()
        raise


def within(seconds: float) -> Callable[[_Test], Callable[..., Deferred[None]]]:
    """A decorator of tests: after so many seconds the test is cancelled where it waits, and has failed."""

    def decorate(test: _Test) -> Callable[..., Deferred[None]]:
        @functools.wraps(test)
        def limited(harness: Harness, **parameters: Any) -> Deferred[None]:
            return Deferred.fromCoroutine(test(harness, **parameters)).addTimeout(seconds, harness.reactor)

        return limited

    return decorate


def _started(work: Coroutine[Any, Any, _Result]) -> Deferred[_Result]:
    return Deferred.fromCoroutine(work)
