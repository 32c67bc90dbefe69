"""Autobahn's protocol and factory: bytes in, bytes out, and nothing else.

1. Everything that is written to the socket passes the outbox, Autobahn's own frames too.
2. A request is read once, bounded, and answered here unless it becomes a WebSocket; no byte of it reaches a log.
3. The session ends when the first close frame is sent or the connection is gone, whichever comes first.
4. A connection that is gone leaves no timer and no reference cycle behind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import txaio.tx
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.types import ConnectionRequest
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from marketfeed.client.http import MAX_HEAD, BadRequest, Refusal, Upgrade, parse_head, respond, route
from marketfeed.client.outbox import Outbox
from marketfeed.client.session import Session, SessionLimits
from marketfeed.client.users import UserManager
from marketfeed.hub import Hub
from marketfeed.model.frames import text_frame
from marketfeed.model.messages import (
    BINARY_FRAME,
    INTERNAL_ERROR,
    RESTART,
    SLOW_CONSUMER,
    CloseReason,
    ServerShutdown,
)
from marketfeed.model.streams import StreamKinds

__all__ = ["ClientFactory", "ClientProtocol"]

_log = Logger()

_HANDSHAKE_SECONDS = 10
_CLOSE_SECONDS = 5  # Autobahn cuts fractions off, so that shorter ones may be over at once

_AUTOBAHN_OPTIONS: dict[str, Any] = {
    "logOctets": False,
    "logFrames": False,
    "trackTimings": False,
    "utf8validateIncoming": True,
    "applyMask": True,
    "autoFragmentSize": 0,
    "failByDrop": False,  # say why with a close code
    "echoCloseCodeReason": False,
    "openHandshakeTimeout": _HANDSHAKE_SECONDS,
    "closeHandshakeTimeout": _CLOSE_SECONDS,
    "tcpNoDelay": True,
    "autoPingInterval": 0,
    "autoPingTimeout": 0,
    "autoPingSize": 12,
    "autoPingRestartOnAnyTraffic": True,
    "versions": (8, 13),
    "webStatus": False,
    "requireMaskedClientFrames": True,
    "maskServerFrames": False,
    "perMessageCompressionAccept": staticmethod(lambda offers: None),
    "serveFlashSocketPolicy": False,
    "flashSocketPolicy": "",
    "allowedOrigins": ["*"],
    "allowNullOrigin": True,
    "maxConnections": 0,
    "trustXForwardedFor": 0,
}
"""Autobahn copies its options onto every instance unless they are attributes of the class."""


class ClientProtocol(WebSocketServerProtocol):
    """One client's connection. Made by `ClientFactory`, which adds Autobahn's options as class attributes."""

    CONFIG_ATTRS: list[str] = []
    log: Any = txaio.tx.make_logger(level="error")  # type: ignore[no-untyped-call]  # Autobahn's own, which would log every refused handshake

    factory: ClientFactory
    transport: Any
    outbox: Outbox
    client_id = 0
    _session: Session | None = None
    _upgrade: Upgrade | None = None
    _opened = 0.0
    _dropping: IDelayedCall | None = None

    # The connection.

    def connectionMade(self) -> None:
        self.outbox = Outbox(self.transport, self.factory.client_queue, self)
        super().connectionMade()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._end_session()
        self.outbox.close()
        super().connectionLost(reason)
        for call in (self._dropping, self.closeHandshakeTimeoutCall):
            if call is not None:
                call.cancel()
        self._dropping = self.closeHandshakeTimeoutCall = None
        if self.client_id:
            self.factory.users.remove(self.client_id)
            _log.info(
                "client {client} disconnected after {age:.1f} s: {reason}",
                client=self.client_id,
                age=self.factory.clock.seconds() - self._opened,
                reason=self._reason(reason),
            )
        self.is_closed = self.is_open = self.transport = None

    def dataReceived(self, data: bytes) -> None:
        if self.state != self.STATE_CLOSED:  # a TLS transport goes on until its peer has closed too
            self._dataReceived(data)

    def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:
        self.outbox.write(data)

    def _closeConnection(self, abort: bool = False) -> None:
        if abort and not self.wasClean:
            self.abort()
            return
        self.outbox.finish()
        self.transport.loseConnection()
        self._dropping = self.factory.clock.callLater(_CLOSE_SECONDS, self._drop)

    def _drop(self) -> None:
        """The peer does not take what was left for it."""
        self._dropping = None
        self.transport.abortConnection()

    def unregisterProducer(self) -> None:
        """Autobahn wants to take the outbox off the transport before it drops it; the outbox does that itself."""

    # The handshake.

    def processHandshake(self) -> None:
        end = self.data.find(b"\r\n\r\n")
        if end < 0 and len(self.data) <= MAX_HEAD:
            return
        if end < 0 or end > MAX_HEAD:
            self._refuse(Refusal(400, f"the request's headers take more than {MAX_HEAD} bytes"))
            return
        try:
            head = parse_head(self.data[:end])
        except BadRequest as error:
            self._refuse(Refusal(400, str(error)))
            return
        asked = route(head, self.factory.kinds, self.factory.is_ready)
        refusal = self.factory.users.refusal() if isinstance(asked, Upgrade) else asked
        if refusal is not None:
            self._refuse(refusal, is_head=head.method == "HEAD")
            return
        assert isinstance(asked, Upgrade)
        self._upgrade = asked
        super().processHandshake()

    def onConnect(self, request: ConnectionRequest) -> str | None:
        return next(filter(None, request.protocols), None)

    def failHandshake(self, reason: str, code: int = 400, responseHeaders: Any = None) -> None:
        headers = tuple(responseHeaders or ())
        self._refuse(Refusal(400, "expected a WebSocket handshake as in RFC 6455", headers))

    def onOpenHandshakeTimeout(self) -> None:
        self.openHandshakeTimeoutCall = None
        if self.state == self.STATE_CONNECTING:
            self._refuse(Refusal(408, f"no complete request within {_HANDSHAKE_SECONDS} s"))

    def _refuse(self, refusal: Refusal, *, is_head: bool = False) -> None:
        _log.debug("refused {peer}: {status} {text}", peer=self.peer, status=refusal.status, text=refusal.text)
        self.outbox.write(respond(refusal, is_head=is_head))
        self.wasClean = True
        self.dropConnection(abort=False)

    # The conversation.

    def onOpen(self) -> None:
        factory, upgrade = self.factory, self._upgrade
        assert upgrade is not None
        self._upgrade = None
        self._opened = factory.clock.seconds()
        self.client_id = factory.users.add(self)
        _log.info(
            "client {client} connected from {peer}, {dialect}",
            client=self.client_id,
            peer=self.peer,
            dialect=upgrade.dialect.value,
        )
        self._session = Session(
            self, upgrade.dialect, factory.hub, factory.kinds, factory.session_limits, factory.clock.seconds
        )
        self._guarded(self._session.begin, upgrade.streams)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        if self._session is None:
            return
        if isBinary:
            self.close_with(BINARY_FRAME)
        else:
            self._guarded(self._session.receive, payload)

    def _guarded(self, call: Callable[[Any], None], argument: Any) -> None:
        """Autobahn swallows what its callbacks raise: a fault of ours is logged and ends this client only."""
        try:
            call(argument)
        except Exception:
            _log.failure("client {client}: internal error", client=self.client_id)
            self.close_with(INTERNAL_ERROR)

    def sendCloseFrame(self, code: int | None = None, reasonUtf8: bytes | None = None, isReply: bool = False) -> None:
        self._end_session()
        super().sendCloseFrame(code, reasonUtf8, isReply)

    def _end_session(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.end()

    # What the outbox tells.

    def overflowed(self) -> None:
        self._end_session()
        self.outbox.discard()
        self.close_with(SLOW_CONSUMER)

    def backlog_changed(self, waiting: int) -> None:
        if waiting:
            _log.debug("client {client}: a backlog begins with {waiting} bytes", client=self.client_id, waiting=waiting)
        else:
            _log.debug("client {client}: the backlog is over", client=self.client_id)

    def _reason(self, lost: Failure) -> str:
        if self.localCloseCode is not None and self.closedByMe:
            text = (self.localCloseReason or b"").decode("utf-8", "replace")
            return f"closed by the server with {self.localCloseCode} {text}".rstrip()
        if self.wasClean:
            return f"closed by the client with {self.remoteCloseCode or 1005}"
        return f"connection lost: {lost.value.__class__.__name__}"

    # What the session and the manager of users ask for.

    def send_text(self, text: bytes) -> None:
        if self.state == self.STATE_OPEN:  # nothing follows a close
            self.outbox.write(text_frame(text))

    def close_with(self, reason: CloseReason) -> None:
        if self.state == self.STATE_OPEN:
            self.sendCloseFrame(reason.code, reason.meaning.encode())

    def pause_reading(self) -> None:
        self.transport.pauseProducing()

    def resume_reading(self) -> None:
        self.transport.resumeProducing()

    def send_away(self, farewell: ServerShutdown, *, at_once: bool) -> None:
        if self._session is not None:
            self.send_text(self._session.event(farewell))
        self.close_with(RESTART)
        if at_once and self.state != self.STATE_CLOSED:
            self.wasClean = True
            self.dropConnection(abort=False)

    def abort(self) -> None:
        if self.transport is not None:
            self.outbox.close()
            self.transport.abortConnection()


class ClientFactory(WebSocketServerFactory):
    """Makes a `ClientProtocol` for each connection. `is_ready`: what `/readyz` answers."""

    noisy = False

    def __init__(
        self,
        clock: IReactorTime,
        hub: Hub,
        users: UserManager,
        kinds: StreamKinds,
        session_limits: SessionLimits,
        is_ready: Callable[[], bool],
        *,
        max_message: int,
        client_queue: int,
    ) -> None:
        txaio.tx.config.loop = clock  # type: ignore[assignment]  # Autobahn's timers use this reactor
        super().__init__(server="marketfeed", reactor=clock)  # type: ignore[no-untyped-call]
        self.clock = clock
        self.hub = hub
        self.users = users
        self.kinds = kinds
        self.session_limits = session_limits
        self.is_ready = is_ready
        self.client_queue = client_queue
        sizes = {"maxFramePayloadSize": max_message, "maxMessagePayloadSize": max_message}
        origins = {"allowedOriginsPatterns": self.allowedOriginsPatterns}
        options = {**_AUTOBAHN_OPTIONS, **sizes, **origins}
        self.protocol = cast(type[ClientProtocol], type("ClientProtocol", (ClientProtocol,), options))
