"""Autobahn's server protocol, as a server of many clients needs it: all of ours that leans on Autobahn's internals.

1. What Autobahn sets on every instance and never changes is an attribute of the class: a quarter of the memory, and
   half of the time of a handshake. No debug line is composed that nobody reads.
2. A message that came whole and by itself, and the answer to a ping, are read here: most are like that, and it takes a
   tenth of the time. Autobahn's parser sees all the others, and whatever is wrong, no faster than the throttle admits.
3. Nothing that a peer can send without end is kept: no empty fragments, nothing behind the last block of a compressed
   message, nothing of a control frame that is too long, nothing that follows a violation, no number of tiny pieces.
4. After a violation frames are only skipped, for the answer to our close; a second violation means nothing.
5. The size of a message is what it has when it is inflated, however it was fragmented and however its bytes were cut.
6. Everything that is written to the socket passes the outbox, Autobahn's own frames too.
7. A connection that is gone leaves no timer and no reference cycle behind.

Each internal of Autobahn's that this leans on has a test that fails when it changes.
"""

from __future__ import annotations

from functools import cached_property
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import txaio.tx
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.protocol import TrafficStats, WebSocketProtocol
from autobahn.websocket.utf8validator import Utf8Validator
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from marketfeed.hub.counts import Traffic
from marketfeed.websocket.closing import CLOSE_SECONDS, Ending, SendTimeout
from marketfeed.websocket.outbox import Outbox
from marketfeed.websocket.read_throttle import KIB_BITS, ReadRate, ReadThrottle
from marketfeed.websocket.upgrade import Switch
from marketfeed.wire.frames import masked_text

__all__ = ["AutobahnFactory", "AutobahnProtocol", "FrameReader", "limited"]

_LONGEST_CONTROL = 125
_MOST_PIECES = 256
"""Pieces in which a message is kept: one of two bytes takes fifty."""
_BEHIND_LAST_BLOCK = (b"", b"\0")  # RFC 7692, section 7.2.3.4: the rest of it is put there by the receiver
_PONG = b"\x8a\x80"


class FrameReader(WebSocketServerProtocol):
    """The reading side: Autobahn's parser, held to what one peer may cost and to the limit as it is documented."""

    current_frame: Any = None
    frame_data: list[bytes]
    message_data: list[bytes]
    maxMessagePayloadSize: int
    _isMessageCompressed: bool
    _perMessageCompress: Any = None

    def _fail_connection(self, code: int = 1002, reason: str = "") -> None:
        if not self.failedByMe:
            super()._fail_connection(code, reason)

    def onFrameData(self, payload: bytes) -> None:
        """Never False, with which Autobahn would leave what is behind this frame unread."""
        frame = self.current_frame
        if frame.opcode > 7:
            if frame.length <= _LONGEST_CONTROL:
                super().onFrameData(payload)
        elif not self.failedByMe:
            if self._isMessageCompressed:
                self.message_data_total_length += len(payload)  # which Autobahn takes off again
            super().onFrameData(payload)
            if self._isMessageCompressed and not self.failedByMe:
                self._check_inflater()

    def onFrameEnd(self) -> None:
        frame = self.current_frame
        if frame.opcode > 7 or not self.failedByMe:
            super().onFrameEnd()
        if frame.opcode < 8 and self.failedByMe:
            self.inside_message = not frame.fin
            self.current_frame = None

    def onMessageFrameBegin(self, length: int) -> None:
        """A compressed frame is counted as it is inflated, unless no message of the permitted size comes to that."""
        if self._isMessageCompressed and length <= 2 * self.maxMessagePayloadSize:
            length = 0
        super().onMessageFrameBegin(length)

    def onMessageFrameData(self, payload: bytes) -> None:
        if payload:
            super().onMessageFrameData(payload)
            if len(self.frame_data) > _MOST_PIECES:
                self.frame_data = [b"".join(self.frame_data)]

    def onMessageFrame(self, payload: list[bytes]) -> None:  # type: ignore[override]  # declared as bytes
        super().onMessageFrame(payload)  # type: ignore[arg-type]
        if len(self.message_data) > _MOST_PIECES:
            self.message_data = [b"".join(self.message_data)]

    def _check_inflater(self) -> None:
        """What Autobahn would drop without a word."""
        inflater, limit = self._perMessageCompress._decompressor, self.maxMessagePayloadSize
        if inflater.unused_data not in _BEHIND_LAST_BLOCK:
            self._invalid_payload("there is data behind the last block of a compressed message")
        elif self.message_data_total_length == limit and inflater.decompress(b"", 1):
            fault = f"received WebSocket message exceeds payload limit of {limit} octets after decompression"
            self._max_message_size_exceeded(limit + 1, limit, fault)


class AutobahnProtocol(FrameReader):
    """One connection. Subclasses answer the request in `processHandshake`, which leads to `switch` or to `end_with`."""

    factory: AutobahnFactory
    transport: Any
    outbox: Outbox
    throttle: ReadThrottle
    _send_timeout: SendTimeout | None = None

    # Its options, which Autobahn would copy onto every instance.
    CONFIG_ATTRS: list[str] = []
    applyMask = autoPingRestartOnAnyTraffic = requireMaskedClientFrames = utf8validateIncoming = True
    echoCloseCodeReason = logFrames = maskServerFrames = False
    failByDrop = False  # say why with a close code
    autoPingInterval = 0
    closeHandshakeTimeout = CLOSE_SECONDS  # Autobahn cuts fractions off: shorter ones may be over at once

    # What it would set on every instance.
    log: Any = txaio.tx.make_logger(level="error")  # type: ignore[no-untyped-call]  # it logs every violation
    is_closed: Any = SimpleNamespace(callback=lambda _: None)  # a Deferred that nobody waits for
    peer = ""
    trafficStats = TrafficStats()  # everybody's: it is only ever added to
    websocket_version = 13
    data = b""
    inside_message = closedByMe = failedByMe = droppedByMe = wasClean = wasServingFlashSocketPolicyFile = False
    localCloseCode = localCloseReason = remoteCloseCode = remoteCloseReason = None
    autoPingTimeoutCall = autoPingPending = autoPingPendingCall = None
    trackedTimings: Any = None
    wasNotCleanReason: Any = None
    openHandshakeTimeoutCall: Any = None
    closeHandshakeTimeoutCall: Any = None

    def __init__(self) -> None:
        """Autobahn's would make two Deferreds and a table of listeners."""

    @cached_property
    def utf8validator(self) -> Utf8Validator:  # type: ignore[override]
        """For the messages that come in pieces."""
        return Utf8Validator()

    # Its beginning and its end.

    def connectionMade(self) -> None:
        try:
            self.transport.setTcpNoDelay(True)
        except (AttributeError, OSError):  # not TCP
            pass
        self.state = self.STATE_CONNECTING
        factory = self.factory
        self.outbox = Outbox(self.transport, factory.client_queue, self, factory.traffic)
        self.throttle = ReadThrottle(factory.clock, factory.read_rate, self.transport)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.outbox.close()
        self.throttle.close()
        WebSocketProtocol._connectionLost(self, cast(Any, reason))
        if self.closeHandshakeTimeoutCall is not None:
            self.closeHandshakeTimeoutCall.cancel()
            self.closeHandshakeTimeoutCall = None
        if self._send_timeout is not None:
            self._send_timeout.cancel()
        self.transport = None

    def switch(self, answer: Switch) -> None:
        """The request, which has been taken off `data`, is granted: from now on frames are spoken."""
        if answer.deflate is not None:
            self._perMessageCompress = answer.deflate
            self.outbox.window = answer.deflate.server_max_window_bits
        self.sendData(answer.response)
        self.state = self.STATE_OPEN

    def end_with(self, answer: bytes) -> None:
        """Send an answer of HTTP in place of a WebSocket, for as long as it is taken, and end the connection."""
        self.outbox.write_plain(answer)
        self.wasClean = True
        self.state = self.STATE_CLOSED
        self._finish(is_patient=True)

    def abort(self) -> None:
        """End the connection without a word."""
        if self.transport is not None:
            self.outbox.close()
            self.transport.abortConnection()

    def _closeConnection(self, abort: bool = False) -> None:
        if abort and not self.wasClean:
            self.abort()
        else:
            self._finish(is_patient=False)

    def _finish(self, *, is_patient: bool) -> None:
        self.outbox.finish()
        self._send_timeout = SendTimeout(self.factory.clock, self.transport, is_patient=is_patient)
        self.transport.loseConnection()

    def ending(self, lost: Failure) -> Ending:
        """How it has ended. Without a close the code is RFC 6455's for that."""
        if self.localCloseCode is not None and self.closedByMe:
            said = f"{self.localCloseCode} {(self.localCloseReason or b'').decode('utf-8', 'replace')}".rstrip()
            return Ending(f"closed by the server with {said}", self.localCloseCode, "server")
        if self.wasClean:
            code = self.remoteCloseCode or 1005
            return Ending(f"closed by the client with {code}", code, "client")
        return Ending(f"connection lost: {lost.value.__class__.__name__}", 1006, "nobody")

    # What is read.

    def dataReceived(self, data: bytes) -> None:
        self.factory.traffic.received += len(data)
        if self.state == self.STATE_OPEN and not (self.data or self.inside_message or self.current_frame):
            message = masked_text(data)
            if message is not None and len(message) <= self.maxMessagePayloadSize:
                self._deliver(message, False)
                return
            if len(data) == 6 and data.startswith(_PONG):
                self.onPong(b"")
                return
        if self.state != self.STATE_CLOSED:  # a TLS transport goes on until its peer has closed too
            self.data += data
            self.consumeData()

    def consumeData(self) -> None:
        if self.state == self.STATE_CONNECTING:
            self.processHandshake()
            return
        if self.state not in (self.STATE_OPEN, self.STATE_CLOSING):
            super().consumeData()
            return
        throttle, read_on = self.throttle, self.consumeData
        while not throttle.is_resting and throttle.admits(read_on):
            if not self.processData() or self.state == self.STATE_CLOSED:
                return

    def onMessageEnd(self) -> None:
        if not self.failedByMe:
            self._deliver(b"".join(self.message_data), self.message_is_binary)
        self.message_data = []
        if self._perMessageCompress is not None:
            self._perMessageCompress._decompressor = None  # the client's windows are not kept between messages

    def _deliver(self, message: bytes, is_binary: bool) -> None:
        if steps := len(message) >> KIB_BITS:
            self.throttle.admits(self.consumeData, steps)
        self.onMessage(message, is_binary)

    def onPong(self, payload: bytes) -> None:
        """It may have come past `consumeData`."""
        self.throttle.admits(self.consumeData)

    # What is written.

    def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:
        self.outbox.write(data)

    def unregisterProducer(self) -> None:
        """Autobahn wants to take the outbox off the transport before it drops it; the outbox does that itself."""

    def overflowed(self) -> None:
        """More waits than may. A subclass may say so."""
        self.abort()

    def backlog_changed(self, waiting: int) -> None:
        """Nobody here asks."""

    def drained(self) -> None:
        """Nobody here asks."""

    def notice(self) -> bytes:
        """Nothing is said here of what is left out."""
        return b""


_Protocol = TypeVar("_Protocol", bound=AutobahnProtocol)


def limited(protocol: type[_Protocol], max_message: int) -> type[_Protocol]:
    """The same protocol, for messages of at most so many bytes."""
    sizes = {"maxFramePayloadSize": max_message, "maxMessagePayloadSize": max_message}
    return cast(type[_Protocol], type(protocol.__name__, (protocol,), sizes))


class AutobahnFactory(WebSocketServerFactory):
    """The factory of an `AutobahnProtocol`. `client_queue`: bytes that may wait for one peer; `traffic`: of all."""

    noisy = False

    def __init__(
        self, clock: IReactorTime, client_queue: int, read_rate: ReadRate, traffic: Traffic | None = None
    ) -> None:
        txaio.tx.config.loop = clock  # type: ignore[assignment]  # Autobahn's timers use this reactor
        super().__init__(server="marketfeed", reactor=clock)  # type: ignore[no-untyped-call]
        self.clock = clock
        self.client_queue = client_queue
        self.read_rate = read_rate
        self.traffic = traffic or Traffic()
