"""Autobahn's own server and ours, each with one connection: whatever a peer does, both are to do the same."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, cast

import txaio.tx
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.compress import PerMessageDeflateOfferAccept
from autobahn.websocket.protocol import WebSocketProtocol
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from marketfeed.http.head import parse_head
from marketfeed.websocket.autobahn_protocol import AutobahnFactory, AutobahnProtocol, FrameReader, limited
from marketfeed.websocket.closing import CLOSE_SECONDS
from marketfeed.websocket.read_throttle import ReadRate
from marketfeed.websocket.upgrade import switch_protocols
from tests.by_hand import TEXT, handshake

__all__ = ["COMPRESSED", "DEFLATE", "MAX_MESSAGE", "Ours", "Plain", "Server", "Transport", "act", "opened"]

MAX_MESSAGE = 1000
COMPRESSED = 4  # of the three reserved bits, the first
DEFLATE = "permessage-deflate; client_max_window_bits"


class Recorder(WebSocketServerProtocol):
    """Notes what a server that is made of Autobahn's protocol is told."""

    @cached_property
    def events(self) -> list[tuple[Any, ...]]:
        return []

    def onOpen(self) -> None:
        self.events.append(("open",))

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.events.append(("message", payload, isBinary))

    def onPing(self, payload: bytes) -> None:
        self.events.append(("ping", payload))
        super().onPing(payload)

    def onPong(self, payload: bytes) -> None:
        self.events.append(("pong", payload))

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        self.events.append(("close", wasClean, code, reason))

    def unregisterProducer(self) -> None:
        """There is none."""


class Plain(Recorder, FrameReader):
    """Autobahn as it comes, with the same options; only frames are read as we do it."""

    @staticmethod
    def perMessageCompressionAccept(offers: list[Any]) -> PerMessageDeflateOfferAccept | None:
        """The first offer that Ours would take, accepted as Ours does."""
        usable = [offer for offer in offers if offer.request_max_window_bits in (0, *range(9, 16))]
        if not usable:
            return None
        usable[0].request_no_context_takeover = True
        return PerMessageDeflateOfferAccept(usable[0], request_no_context_takeover=True, no_context_takeover=True)

    def onConnect(self, request: Any) -> str | None:
        return next(iter(request.protocols), None)


class Ours(Recorder, AutobahnProtocol):
    """Ours, which answers a request as `ClientProtocol` does."""

    def processHandshake(self) -> None:
        end = self.data.find(b"\r\n\r\n")
        if end < 0:
            return
        head = parse_head(self.data[:end])
        self.data = self.data[end + 4 :]
        offered = head.headers.get("sec-websocket-protocol", "").split(",")[0].strip()
        answer = switch_protocols(head.headers, compress=True, protocol=offered or None)
        assert answer is not None
        self.switch(answer)
        self.onOpen()
        if self.data:
            self.consumeData()


class Transport(StringTransport):
    """A transport in memory that takes TCP's option, and is its own socket."""

    dataBuffer, offset, _tempDataLen = b"", 0, 0

    def getHandle(self) -> Transport:
        return self

    def send(self, data: bytes) -> int:
        self.write(data)
        return len(data)

    def setTcpNoDelay(self, enabled: bool) -> None:
        assert enabled


class Server:
    """One connection, with a clock of its own."""

    def __init__(self, kind: type[Recorder], max_message: int = MAX_MESSAGE) -> None:
        self.clock = Clock()
        factory: WebSocketServerFactory
        if kind is Plain:
            factory = WebSocketServerFactory(server="marketfeed", reactor=self.clock)
            factory.setProtocolOptions(
                failByDrop=False,
                closeHandshakeTimeout=CLOSE_SECONDS,
                maxFramePayloadSize=max_message,
                maxMessagePayloadSize=max_message,
            )
            factory.protocol = kind
        else:
            factory = AutobahnFactory(self.clock, 1 << 20, ReadRate(0.0, math.inf, math.inf))
            factory.protocol = limited(cast(type[AutobahnProtocol], kind), max_message)
        txaio.tx.config.loop = self.clock  # type: ignore[assignment]
        self.protocol: Any = factory.buildProtocol(None)
        self.transport = Transport()
        self.protocol.makeConnection(self.transport)

    def receive(self, data: bytes) -> None:
        """Bytes from the peer, as long as the transport reads."""
        txaio.tx.config.loop = self.clock  # type: ignore[assignment]
        if not self.transport.disconnecting:
            self.protocol.dataReceived(data)

    def lose(self) -> None:
        kind = ConnectionAborted if getattr(self.transport, "aborting", False) else ConnectionDone
        self.protocol.connectionLost(Failure(kind()))

    @property
    def outcome(self) -> tuple[Any, ...]:
        """All that can be seen from outside."""
        protocol = self.protocol
        return (
            bytes(self.transport.value()),
            protocol.events,
            protocol.state,
            self.transport.disconnecting,
            protocol.wasClean,
            protocol.localCloseCode,
            protocol.remoteCloseCode,
        )


def opened(kind: type[Recorder] = Ours, extensions: str | None = DEFLATE, max_message: int = MAX_MESSAGE) -> Server:
    """A connection whose handshake is done."""
    server = Server(kind, max_message)
    server.receive(handshake(Sec_WebSocket_Extensions=extensions))
    assert server.transport.value().startswith(b"HTTP/1.1 101 ")
    server.transport.clear()
    return server


def act(server: Server, what: str) -> None:
    """Something that the server does by itself; nothing where its connection does not let it."""
    txaio.tx.config.loop = server.clock  # type: ignore[assignment]
    protocol = server.protocol
    match what:
        case "message" if protocol.state == WebSocketProtocol.STATE_OPEN:
            protocol.sendFrame(opcode=TEXT, payload=b"hello")
        case "ping":
            protocol.sendPing(b"now")
        case "pong":
            protocol.sendPong()
        case "close":
            protocol.sendClose(4000, "enough")
        case "wait":
            server.clock.advance(CLOSE_SECONDS + 1)
