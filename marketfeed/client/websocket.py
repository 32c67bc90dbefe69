"""Autobahn's protocol and factory: bytes in, bytes out, and nothing else.

1. Everything that is written to the socket passes the outbox, Autobahn's own frames too.
2. A request is read once, bounded, and answered here unless it becomes a WebSocket; no byte of it reaches a log.
3. The session ends when the first close frame is sent or the connection is gone, whichever comes first.
4. A connection that is gone leaves no timer and no reference cycle behind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from marketfeed.client.http import MAX_HEAD, BadRequest, Refusal, Upgrade, parse_head, respond, route
from marketfeed.client.lean import (
    CLOSE_SECONDS,
    HANDSHAKE_SECONDS,
    LeanServerFactory,
    LeanServerProtocol,
    autobahn_options,
)
from marketfeed.client.outbox import Outbox
from marketfeed.client.session import Session, SessionLimits
from marketfeed.client.users import UserManager
from marketfeed.hub import Hub
from marketfeed.logs import Log
from marketfeed.model.frames import text_frame
from marketfeed.model.messages import (
    BINARY_FRAME,
    INTERNAL_ERROR,
    NO_PONG,
    RESTART,
    SLOW_CONSUMER,
    CloseReason,
    ServerShutdown,
)
from marketfeed.model.streams import StreamKinds

__all__ = ["ClientFactory", "ClientProtocol"]

_log = Log()

_PING = b"\x89\x00"
_NO_HANDSHAKE = Refusal(400, "expected a WebSocket handshake as in RFC 6455", (("Sec-WebSocket-Version", "13,8"),))


class ClientProtocol(LeanServerProtocol):
    """One client's connection. Made by `ClientFactory`, which adds Autobahn's options as class attributes."""

    factory: ClientFactory
    outbox: Outbox
    client_id = 0
    _session: Session | None = None
    _opened = 0.0
    _dropping: IDelayedCall | None = None
    _pinged: float | None = None

    # The connection.

    def connectionMade(self) -> None:
        self.outbox = Outbox(self.transport, self.factory.client_queue, self)
        super().connectionMade()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._end_session()
        self.outbox.close()
        super().connectionLost(reason)
        if self._dropping is not None:
            self._dropping.cancel()
            self._dropping = None
        if self.client_id:
            self.factory.users.remove(self.client_id)
            _log.info(
                "client {client} disconnected after {age:.1f} s: {reason}",
                client=self.client_id,
                age=self.factory.clock.seconds() - self._opened,
                reason=self._reason(reason),
            )

    def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:
        self.outbox.write(data)

    def _closeConnection(self, abort: bool = False) -> None:
        if abort and not self.wasClean:
            self.abort()
            return
        self.outbox.finish()
        self.transport.loseConnection()
        self._dropping = self.factory.clock.callLater(CLOSE_SECONDS, self._drop)

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
        self.data = self.data[end + 4 :]
        self._upgrade = asked
        if not self.accept(head.headers, compress=self.factory.compression, version=head.version):
            self._refuse(_NO_HANDSHAKE)

    def onHandshakeTimeout(self) -> None:
        self._refuse(Refusal(408, f"no complete request within {HANDSHAKE_SECONDS} s"))

    def _refuse(self, refusal: Refusal, *, is_head: bool = False) -> None:
        _log.debug(
            "refused {peer}: {status} {text}", peer=_shown(self.transport), status=refusal.status, text=refusal.text
        )
        self.factory.handshakes.discard(self)
        self.outbox.write(respond(refusal, is_head=is_head))
        self.wasClean = True
        self.dropConnection(abort=False)

    # The conversation.

    def onOpen(self) -> None:
        factory, upgrade = self.factory, self._upgrade
        del self._upgrade
        self.outbox.window = self.deflate_window
        self._opened = factory.clock.seconds()
        self.client_id = factory.users.add(self)
        _log.info(
            "client {client} connected from {peer}, {dialect}",
            client=self.client_id,
            peer=_shown(self.transport),
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

    def onPong(self, payload: bytes) -> None:
        self._pinged = None

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

    def beat(self, now: float, patience: float) -> None:
        """Ping, or see what has become of the last ping: unanswered for `patience` seconds, it ends the connection.

        A ping waits behind the backlog. As long as the client takes something of that, it is given time.
        """
        if self.state != self.STATE_OPEN:  # nothing follows a close
            return
        has_moved = self.outbox.take_progress()
        if self._pinged is None:
            self._pinged = now
            self.outbox.write(_PING)
        elif has_moved:
            self._pinged = now
        elif now - self._pinged >= patience:
            self.close_with(NO_PONG)

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


class ClientFactory(LeanServerFactory):
    """Makes a `ClientProtocol` for each connection. `is_ready`: what `/readyz` answers."""

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
        compression: bool,
    ) -> None:
        super().__init__(clock)
        self.hub = hub
        self.users = users
        self.kinds = kinds
        self.session_limits = session_limits
        self.is_ready = is_ready
        self.client_queue = client_queue
        self.compression = compression
        self.protocol = cast(
            type[ClientProtocol], type("ClientProtocol", (ClientProtocol,), autobahn_options(max_message))
        )


def _shown(transport: Any) -> str:
    """The peer's address, as the log shows it. Behind `haproxy:` it is known once the first bytes have come."""
    peer = transport.getPeer()
    host = getattr(peer, "host", None)
    if host is None:
        return "a local socket"
    host = host.removeprefix("::ffff:")  # IPv4, on a port that takes IPv6 as well
    return f"[{host}]:{peer.port}" if ":" in host else f"{host}:{peer.port}"
