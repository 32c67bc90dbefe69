"""Autobahn's server protocol without what a server of many clients cannot afford. Nothing here is about markets.

1. What Autobahn sets on every instance and never changes is an attribute of the class: a quarter of the memory, and
   half of the time of a handshake.
2. A request is validated once, and answered, by us (RFC 6455, section 4.2); Autobahn reads the frames.
3. But a message that came whole and by itself, and the answer to a ping, are read here: most are like that, and it
   takes a tenth of the time. Autobahn sees all the others, and whatever is wrong.
4. No debug line is composed that nobody reads.
5. A connection that is gone leaves no timer and no reference cycle behind.

It leans on Autobahn's internals, each of which has a test that fails when it changes.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from functools import cached_property
from hashlib import sha1
from typing import Any, cast

import txaio.tx
from autobahn.twisted.websocket import WebSocketServerFactory
from autobahn.websocket.compress import PerMessageDeflate, PerMessageDeflateOffer, PerMessageDeflateOfferAccept
from autobahn.websocket.protocol import TrafficStats, WebSocketProtocol
from autobahn.websocket.utf8validator import Utf8Validator
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from marketfeed.http.head import header_words
from marketfeed.runtime.timeouts import Deadlines
from marketfeed.websocket.parser import FrameReader
from marketfeed.wire.frames import masked_text

__all__ = ["CLOSE_SECONDS", "HANDSHAKE_SECONDS", "LeanServerFactory", "LeanServerProtocol", "autobahn_options"]

HANDSHAKE_SECONDS = 10
CLOSE_SECONDS = 5  # Autobahn cuts fractions off, so that shorter ones may be over at once

_KEY = re.compile(r"[A-Za-z0-9+/]{22}==")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/,@]+)(:\d{1,5})?")
_ORIGIN = re.compile(r"null|[A-Za-z][A-Za-z0-9+.-]*://[^\s/,]*")
_VERSIONS = ("13", "8")
_LONGEST_OFFER = 1024  # characters; longer ones are declined unread
_LEAST_WINDOW = 9  # bits; zlib has none of 8
_PONG = b"\x8a\x80"
_MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
_SWITCHING = "HTTP/1.1 101 Switching Protocols\r\nServer: marketfeed\r\nUpgrade: WebSocket\r\nConnection: Upgrade"


def autobahn_options(max_message: int) -> dict[str, Any]:
    """Autobahn's options as class attributes; it copies them onto every instance otherwise."""
    return {
        "logOctets": False,
        "logFrames": False,
        "trackTimings": False,
        "utf8validateIncoming": True,
        "applyMask": True,
        "maxFramePayloadSize": max_message,
        "maxMessagePayloadSize": max_message,
        "autoFragmentSize": 0,
        "failByDrop": False,  # say why with a close code
        "echoCloseCodeReason": False,
        "openHandshakeTimeout": HANDSHAKE_SECONDS,
        "closeHandshakeTimeout": CLOSE_SECONDS,
        "tcpNoDelay": True,
        "autoPingInterval": 0,
        "autoPingTimeout": 0,
        "autoPingSize": 12,
        "autoPingRestartOnAnyTraffic": True,
        "requireMaskedClientFrames": True,
        "maskServerFrames": False,
    }


class _Unheard:
    """Stands for the Deferreds of which Autobahn makes two for each connection, and which nobody waits for."""

    called = False

    def callback(self, _: object) -> None:
        """Nobody waits."""


class LeanServerProtocol(FrameReader):
    """A WebSocket on the server's side. Subclasses answer the request and call `accept`."""

    CONFIG_ATTRS: list[str] = []
    # Autobahn's own, which would log every refused handshake.
    log: Any = txaio.tx.make_logger(level="error")  # type: ignore[no-untyped-call]

    transport: Any
    maxMessagePayloadSize: int
    is_open: Any = _Unheard()
    is_closed: Any = _Unheard()
    peer = ""
    trafficStats = TrafficStats()  # everybody's: it is only ever added to
    send_queue: Any = ()
    triggered = False
    send_state = WebSocketProtocol.SEND_STATE_GROUND
    websocket_protocols: list[str] = []
    websocket_extensions: list[Any] = []
    websocket_extensions_in_use: list[Any] = []
    websocket_protocol_in_use = None
    websocket_version = 13
    http_response_data = ""
    data = b""
    inside_message = False
    current_frame: Any = None
    _perMessageCompress: Any = None
    trackedTimings: Any = None
    wasMaxFramePayloadSizeExceeded = False
    wasMaxMessagePayloadSizeExceeded = False
    closedByMe = False
    failedByMe = False
    droppedByMe = False
    wasClean = False
    wasNotCleanReason: Any = None
    wasServerConnectionDropTimeout = False
    wasOpenHandshakeTimeout = False
    wasCloseHandshakeTimeout = False
    wasServingFlashSocketPolicyFile = False
    localCloseCode = None
    localCloseReason = None
    remoteCloseCode = None
    remoteCloseReason = None
    openHandshakeTimeoutCall: Any = None
    closeHandshakeTimeoutCall: Any = None
    openHandshakeTimeout = HANDSHAKE_SECONDS
    autoPingTimeoutCall = None
    autoPingPending = None
    autoPingPendingCall = None

    def __init__(self) -> None:
        """Autobahn's would make two Deferreds and a table of listeners."""

    @cached_property
    def utf8validator(self) -> Utf8Validator:  # type: ignore[override]
        """For the messages that come in pieces."""
        return Utf8Validator()

    def connectionMade(self) -> None:
        try:
            self.transport.setTcpNoDelay(True)
        except (AttributeError, OSError):  # not TCP
            pass
        self.state = self.STATE_CONNECTING
        self.factory.handshakes.add(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.handshakes.discard(self)
        WebSocketProtocol._connectionLost(self, cast(Any, reason))
        if self.closeHandshakeTimeoutCall is not None:
            self.closeHandshakeTimeoutCall.cancel()
            self.closeHandshakeTimeoutCall = None
        self.transport = None

    def dataReceived(self, data: bytes) -> None:
        if self.state == self.STATE_OPEN and not (self.data or self.inside_message or self.current_frame):
            message = masked_text(data)
            if message is not None and len(message) <= self.maxMessagePayloadSize:
                self.onMessage(message, False)
                return
            if len(data) == 6 and data.startswith(_PONG):
                self.onPong(b"")
                return
        if self.state != self.STATE_CLOSED:  # a TLS transport goes on until its peer has closed too
            self.data += data
            self.consumeData()

    def onHandshakeTimeout(self) -> None:
        """The request did not come within `HANDSHAKE_SECONDS`."""
        self.dropConnection(abort=True)

    def onMessageEnd(self) -> None:
        if not self.failedByMe:
            self.onMessage(b"".join(self.message_data), self.message_is_binary)
        self.message_data = []
        if self._perMessageCompress is not None:
            self._perMessageCompress._decompressor = None  # the client's windows are not kept between messages

    def accept(
        self, headers: Mapping[str, str], *, compress: bool, protocol: str | None = None, version: str = "HTTP/1.1"
    ) -> bool:
        """Answer the request, whose bytes have been taken off `data`, with 101. False: it is no proper handshake.

        `protocol`: the one of the offered subprotocols to speak.
        """
        if version != "HTTP/1.1":
            return False
        words = header_words(headers.get("connection", ""))
        key = headers.get("sec-websocket-key", "")
        if "upgrade" not in words or not _KEY.fullmatch(key) or not _HOST.fullmatch(headers.get("host", "")):
            return False
        if not _ORIGIN.fullmatch(headers.get("origin", "null")):
            return False
        if headers.get("sec-websocket-version") not in _VERSIONS:
            return False
        if "sec-websocket-protocol" in headers:
            offered = [name.strip() for name in headers["sec-websocket-protocol"].split(",") if name.strip()]
            if len(set(offered)) < len(offered):
                return False
        extensions = headers.get("sec-websocket-extensions") if compress else None
        if extensions and len(extensions) > _LONGEST_OFFER:
            extensions = None
        offer = _usable(self._parseExtensionsHeader(extensions)) if extensions else None  # type: ignore[no-untyped-call]
        self._open(key, protocol, offer)
        return True

    def _open(self, key: str, protocol: str | None, offer: PerMessageDeflateOffer | None) -> None:
        lines = [_SWITCHING]
        if protocol is not None:
            self.websocket_protocol_in_use = protocol
            lines.append(f"Sec-WebSocket-Protocol: {protocol}")
        lines.append(f"Sec-WebSocket-Accept: {b64encode(sha1((key + _MAGIC).encode()).digest()).decode()}")
        if offer is not None:
            accepted = _accepted(offer)
            self._perMessageCompress = PerMessageDeflate.create_from_offer_accept(True, accepted)
            lines.append(f"Sec-WebSocket-Extensions: {accepted.get_extension_string()}")
        self.factory.handshakes.discard(self)
        self.sendData("\r\n".join([*lines, "", ""]).encode("latin-1"))
        self.state = self.STATE_OPEN
        self.onOpen()
        if self.data:
            self.consumeData()

    @property
    def deflate_window(self) -> int:
        """The bits of the window with which this client inflates what it gets; 0: it wants nothing compressed."""
        deflate = self._perMessageCompress
        return 0 if deflate is None else int(deflate.server_max_window_bits)


def _usable(extensions: list[tuple[str, dict[str, Any]]]) -> PerMessageDeflateOffer | None:
    """The first offer of deflate that can be taken; one that cannot is declined, as all other extensions are."""
    for name, parameters in extensions:
        if name != "permessage-deflate":
            continue
        try:
            offer: PerMessageDeflateOffer = PerMessageDeflateOffer.parse(parameters)
        except Exception:
            continue
        if offer.request_max_window_bits in (0, *range(_LEAST_WINDOW, 16)):
            return offer
    return None


def _accepted(offer: PerMessageDeflateOffer) -> PerMessageDeflateOfferAccept:
    """Both sides compress each message by itself: ours is the same for all, and theirs needs no memory."""
    offer.request_no_context_takeover = True  # announced whether or not it was offered
    return PerMessageDeflateOfferAccept(offer, request_no_context_takeover=True, no_context_takeover=True)


class LeanServerFactory(WebSocketServerFactory):
    """The factory of a `LeanServerProtocol`."""

    noisy = False

    def __init__(self, clock: IReactorTime) -> None:
        txaio.tx.config.loop = clock  # type: ignore[assignment]  # Autobahn's timers use this reactor
        super().__init__(server="marketfeed", reactor=clock)  # type: ignore[no-untyped-call]
        self.clock = clock
        self.handshakes = Deadlines[LeanServerProtocol](
            clock, HANDSHAKE_SECONDS, lambda protocol: protocol.onHandshakeTimeout()
        )
