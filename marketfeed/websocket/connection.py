"""A client's WebSocket, once it is open: messages in, the session's answers out, the ways in which it ends.

1. The session ends when the first close frame is sent or the connection is gone, whichever comes first.
2. Nothing follows a close.
3. A connection that is gone leaves no timer and no reference cycle behind.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, cast

from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from marketfeed.access.admission import Admission
from marketfeed.api.depth import Books
from marketfeed.model.identity import Identity
from marketfeed.runtime.logs import Log
from marketfeed.session.context import SessionContext
from marketfeed.session.session import Session
from marketfeed.websocket.connections import UserManager
from marketfeed.websocket.handshake import HandshakeFactory, HandshakeProtocol, shown
from marketfeed.websocket.lean import autobahn_options
from marketfeed.websocket.read_throttle import Pace
from marketfeed.websocket.token_expiry import TokenExpiry
from marketfeed.wire.frames import text_frame
from marketfeed.wire.messages import (
    BINARY_FRAME,
    INTERNAL_ERROR,
    NO_PONG,
    NO_TOKEN,
    RESTART,
    SLOW_CONSUMER,
    CloseReason,
    Expiring,
    ServerShutdown,
)

__all__ = ["ClientFactory", "ClientProtocol"]

_log = Log()

_PING = b"\x89\x00"


class ClientProtocol(HandshakeProtocol):
    """One client's connection. Made by `ClientFactory`, which adds Autobahn's options as class attributes."""

    factory: ClientFactory
    _number = 0
    _peer = ""
    _parting = 0, 0, ""  # streams, bytes that waited, and the user, as the end of the session found them
    _session: Session | None = None
    _expiry: TokenExpiry | None = None
    _opened = 0.0
    _pinged: float | None = None

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._end_session()
        super().connectionLost(reason)
        if self._number:
            self.factory.users.remove(self._number)
            self._log_end(reason)

    @property
    def client_id(self) -> str:
        """What the log calls this client; no other one is called so, of this process or another."""
        return self.factory.users.name(self._number)

    # The conversation.

    def onOpen(self) -> None:
        factory, upgrade, admitted = self.factory, self.upgrade, self.admitted
        del self.upgrade, self.admitted
        self.outbox.window = self.deflate_window
        self.outbox.share = factory.admission.share(admitted)
        self._opened = factory.clock.seconds()
        self._number = factory.users.add(self)
        self._peer = shown(self.transport, admitted.address)
        identity = admitted.identity
        user = {"user": identity.user} if identity is not None and identity.user else {}
        _log.info(
            "client {client} connected from {peer}, {dialect}" + (", user {user}" if user else ""),
            client=self.client_id,
            peer=self._peer,
            dialect=upgrade.dialect.value,
            **user,
        )
        if identity is None:
            self.close_with(NO_TOKEN)
            return
        self.renew(identity)
        self._session = Session(self, upgrade.dialect, factory.context, identity)
        self._guarded(self._session.begin, upgrade.streams)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        super().onMessage(payload, isBinary)
        if self._session is None:
            return
        if isBinary:
            self.close_with(BINARY_FRAME)
        else:
            self._guarded(self._session.receive, payload)

    def onPong(self, payload: bytes) -> None:
        self._pinged = None
        super().onPong(payload)

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
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        session, self._session = self._session, None
        if session is not None:
            self._parting = len(session.subscriptions), self.outbox.left_bytes, session.user
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

    # What the log says of the end.

    def _log_end(self, lost: Failure) -> None:
        code, closed_by, reason = self._end(lost)
        streams, waiting, user = self._parting
        thinned = self.outbox.thinned
        replaced, merged = (0, 0) if thinned is None else (thinned.replaced, thinned.merged)
        line = "client {client} disconnected after {age:.1f} s: {reason}; {peer}, "
        line += "user {user}, {streams} streams" if user else "{streams} streams"
        if waiting or replaced or merged:
            line += ", {waiting} bytes waiting, {replaced} publications replaced, {merged} merged"
        _log.info(
            line,
            client=self.client_id,
            age=self.factory.clock.seconds() - self._opened,
            reason=reason,
            code=code,
            closed_by=closed_by,
            peer=self._peer,
            **({"user": user} if user else {}),
            streams=streams,
            waiting=waiting,
            replaced=replaced,
            merged=merged,
        )

    def _end(self, lost: Failure) -> tuple[int, str, str]:
        """The code of the close, who has closed, and both in words. Without a close the code is RFC 6455's for that."""
        if self.localCloseCode is not None and self.closedByMe:
            text = (self.localCloseReason or b"").decode("utf-8", "replace")
            return self.localCloseCode, "server", f"closed by the server with {self.localCloseCode} {text}".rstrip()
        if self.wasClean:
            code = self.remoteCloseCode or 1005
            return code, "client", f"closed by the client with {code}"
        return 1006, "nobody", f"connection lost: {lost.value.__class__.__name__}"

    # What the end of a token tells.

    def _token_ends(self, has_ended: bool) -> None:
        assert self._expiry is not None  # and the session: all end together
        assert self._session is not None
        if has_ended:
            self._expiry = None
            self.close_with(NO_TOKEN)
        else:
            event = Expiring(int(self.factory.now() * 1000), int(self._expiry.expires_at * 1000))
            self.send_text(self._session.event(event))

    # What the session and the register of connections ask for.

    def renew(self, identity: Identity) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        if identity.expires_at < math.inf:
            factory = self.factory
            self._expiry = TokenExpiry(factory.clock, factory.now, identity.expires_at, self._token_ends)

    def send_text(self, text: bytes) -> None:
        if self.state == self.STATE_OPEN:  # nothing follows a close
            self.outbox.write(text_frame(text))

    def close_with(self, reason: CloseReason) -> None:
        if self.state == self.STATE_OPEN:
            self.sendCloseFrame(reason.code, reason.meaning.encode())

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


class ClientFactory(HandshakeFactory):
    """Makes a `ClientProtocol` for each connection. `now`: seconds since 1970, the time of tokens."""

    def __init__(
        self,
        clock: IReactorTime,
        admission: Admission,
        users: UserManager,
        context: SessionContext,
        is_ready: Callable[[], bool],
        *,
        max_message: int,
        client_queue: int,
        compression: bool,
        max_handshakes: int,
        books: Books,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(
            clock,
            admission,
            context.kinds,
            is_ready,
            client_queue=client_queue,
            compression=compression,
            max_handshakes=max_handshakes,
            books=books,
            refusals=context.refusals,
        )
        self.pace = Pace.permitting(context.limits.request_rate, context.limits.request_burst)
        self.users = users
        self.context = context
        self.now = now
        self.protocol = cast(
            type[ClientProtocol], type("ClientProtocol", (ClientProtocol,), autobahn_options(max_message))
        )
