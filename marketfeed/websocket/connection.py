"""A client's WebSocket, once it is open: messages in, the session's answers out, the ways in which it ends.

1. The session ends when the first close frame is sent or the connection is gone, whichever comes first.
2. Nothing follows a close.

It has an `Outbox` and a `ReadThrottle` from the beginning; a `Handshake` until the WebSocket is open; then a `Session`
and its `TokenExpiry`, and a `Quality` once it has not kept up; and at the end a `SendTimeout`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import msgspec
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from marketfeed.access.admission import Admitted
from marketfeed.api.clients import ClientFacts
from marketfeed.hub.counts import Traffic
from marketfeed.model.identity import Identity
from marketfeed.runtime.logs import Log
from marketfeed.session.context import SessionContext
from marketfeed.session.limits import SessionLimits
from marketfeed.session.session import Session
from marketfeed.websocket.autobahn_protocol import AutobahnFactory, AutobahnProtocol, limited
from marketfeed.websocket.closing import Parting, log_end
from marketfeed.websocket.connections import UserManager
from marketfeed.websocket.handshake import Handshake, Handshakes, Opened, shown
from marketfeed.websocket.quality import Quality
from marketfeed.websocket.read_throttle import ReadRate
from marketfeed.websocket.token_expiry import TokenExpiry
from marketfeed.wire.close_codes import (
    BINARY_FRAME,
    INTERNAL_ERROR,
    NO_PONG,
    NO_TOKEN,
    RESTART,
    SLOW_CONSUMER,
    CloseReason,
)
from marketfeed.wire.dialects import Dialect
from marketfeed.wire.frames import text_frame
from marketfeed.wire.messages import Expiring, ServerShutdown
from marketfeed.wire.messages import Quality as QualityEvent

__all__ = ["ClientFactory", "ClientProtocol"]

_log = Log()
_PING = b"\x89\x00"
_CAME = "client {client} connected from {peer}, {dialect}"
_CAME_WITH_USER = _CAME + ", user {user}"


class ClientProtocol(AutobahnProtocol):
    """One client's connection. Made by `ClientFactory`."""

    factory: ClientFactory
    _handshake: Handshake | None = None
    _counted: Admitted | None = None
    _number = 0
    _peer = ""
    _opened = 0.0
    _pinged: float | None = None  # when, by a ping that is unanswered
    _rtt: float | None = None  # s, of the last ping that was answered
    _session: Session | None = None
    _expiry: TokenExpiry | None = None
    _quality: Quality | None = None  # of who has not kept up
    _parting = Parting()

    def connectionMade(self) -> None:
        super().connectionMade()
        self._handshake = Handshake(self, self.factory.handshakes)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._end_session()
        super().connectionLost(reason)
        if self._handshake is not None:
            self._handshake.end()
            self._handshake = None
        factory = self.factory
        if self._counted is not None:
            factory.admission.leave(self._counted)
        if self._number:
            end = self.ending(reason)
            factory.users.remove(self._number)
            age, thinned = factory.clock.seconds() - self._opened, self.outbox.thinned
            log_end(factory.users.lines, self.client_id, age, self._peer, end, self._parting, thinned)
            factory.users.has_left(self.client_id, self._peer, age, end, self._parting)

    @property
    def client_id(self) -> str:
        """What the log calls this client; no other one is called so, of this process or another."""
        return self.factory.users.name(self._number)

    # The conversation.

    def processHandshake(self) -> None:
        handshake = self._handshake
        opened = None if handshake is None else handshake.read()
        if handshake is not None and opened is not None:
            self._handshake, self._counted = None, handshake.counted
            self.switch(opened.answer)
            self._begin(opened)
            if self.data:
                self.consumeData()

    def _begin(self, opened: Opened) -> None:
        factory, admitted = self.factory, opened.admitted
        dialect = opened.upgrade.dialect
        self.outbox.share = factory.admission.share(admitted)
        self._opened = factory.clock.seconds()
        self._number = factory.users.add(self)
        self._peer = shown(self.transport, admitted.address)
        identity = admitted.identity
        user = identity.user if identity is not None else ""
        client, peer, line = self.client_id, self._peer, _CAME_WITH_USER if user else _CAME
        factory.users.lines.info_of("came", line, lambda: _facts(client, peer, dialect, user))
        if identity is None:
            self.close_with(NO_TOKEN)
            return
        self.renew(identity)
        self._session = Session(self, dialect, factory.context, identity)
        self._guarded(self._session.begin, opened.upgrade.streams)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        if self._session is None:
            return
        if isBinary:
            self.close_with(BINARY_FRAME)
        else:
            self._guarded(self._session.receive, payload)

    def onPong(self, payload: bytes) -> None:
        if self._pinged is not None:
            self._rtt, self._pinged = self.factory.clock.seconds() - self._pinged, None
        super().onPong(payload)

    def _guarded(self, call: Callable[[Any], None], argument: Any) -> None:
        """Autobahn swallows what its callbacks raise: a fault of ours is logged and ends this client only."""
        try:
            call(argument)
        except Exception:
            self.factory.users.lines.failure("failed", "client {client}: internal error", client=self.client_id)
            self.close_with(INTERNAL_ERROR)

    def sendCloseFrame(self, code: int | None = None, reasonUtf8: bytes | None = None, isReply: bool = False) -> None:
        self._end_session()
        super().sendCloseFrame(code, reasonUtf8, isReply)

    def _end_session(self) -> None:
        self._forget_token()
        if self._quality is not None:
            self._quality.close()
        session, self._session = self._session, None
        if session is not None:
            self._parting = Parting(session.user, len(session.subscriptions), self.outbox.left_bytes)
            session.end()

    def _forget_token(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None

    def _token_ends(self, has_ended: bool) -> None:
        assert self._expiry is not None  # and the session: all end together
        assert self._session is not None
        if has_ended:
            self._expiry = None
            self.close_with(NO_TOKEN)
        elif self._session.hears_events:
            event = Expiring(int(self.factory.now() * 1000), int(self._expiry.expires_at * 1000))
            self.send_text(self._session.event(event))

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
            if self.outbox.thinned.streams and self._session is not None:
                self._told_of_quality().caught_up()

    def notice(self) -> bytes:
        return b"" if self._session is None else self._told_of_quality().due()

    def _told_of_quality(self) -> Quality:
        if self._quality is None:
            self._quality = Quality(self.factory.clock, self.outbox, self._quality_frame)
        return self._quality

    def _quality_frame(self, streams: list[str], level: str) -> bytes:
        assert self._session is not None  # both end together
        return text_frame(self._session.event(QualityEvent(streams, level, int(self.factory.now() * 1000))))

    def drained(self) -> None:
        if self._handshake is not None:
            self._handshake.sent()

    # What the session asks for.

    def send_text(self, text: bytes) -> None:
        if self.state == self.STATE_OPEN:  # nothing follows a close
            self.outbox.write(text_frame(text))

    def close_with(self, reason: CloseReason) -> None:
        if self.state == self.STATE_OPEN:
            self.sendCloseFrame(reason.code, reason.meaning.encode())

    def renew(self, identity: Identity) -> None:
        self._forget_token()
        if identity.expires_at < math.inf:
            factory = self.factory
            self._expiry = TokenExpiry(factory.clock, factory.now, identity.expires_at, self._token_ends)

    def pause_reading(self) -> None:
        self.throttle.pause()

    def resume_reading(self) -> None:
        self.throttle.resume()

    # What the register of connections asks for, besides `abort`.

    def backlog(self) -> tuple[int, int]:
        thinned = self.outbox.thinned
        return self.outbox.waiting_bytes, thinned.replaced + thinned.merged

    def facts(self) -> ClientFacts:
        session = self._session
        waiting, conflated = self.backlog()
        return ClientFacts(
            client=self.client_id,
            peer=self._peer,
            user="" if session is None else session.user,
            age=self.factory.clock.seconds() - self._opened,
            waiting=waiting,
            limit=self.outbox.limit,
            conflated=conflated,
            rtt=self._rtt,
            streams=len(self.streams()),
        )

    def streams(self) -> list[str]:
        return [] if self._session is None else self._session.subscriptions

    def beat(self, now: float, patience: float) -> None:
        if self.state != self.STATE_OPEN:
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
            self._session.part()
        if self._session is not None:  # what it was sent has not ended it
            self.send_text(self._session.event(farewell))
        self.close_with(RESTART)
        if at_once and self.state != self.STATE_CLOSED:
            self.wasClean = True
            self.dropConnection(abort=False)


def _facts(client: str, peer: str, dialect: Dialect, user: str) -> dict[str, str]:
    """What the log says of one who has come."""
    return {"client": client, "peer": peer, "dialect": dialect.value, **({"user": user} if user else {})}


class ClientFactory(AutobahnFactory):
    """Makes a `ClientProtocol` for each connection. `now`: seconds since 1970, the time of tokens."""

    def __init__(
        self,
        clock: IReactorTime,
        handshakes: Handshakes,
        users: UserManager,
        context: SessionContext,
        max_message: int,
        now: Callable[[], float] = time.time,
        traffic: Traffic | None = None,
    ) -> None:
        super().__init__(clock, context.limits.client_queue, _read_rate(context.limits, max_message), traffic)
        self.handshakes = handshakes
        self.admission = handshakes.admission
        self.users = users
        self.context = context
        self.now = now
        self.protocol = limited(ClientProtocol, max_message)

    def limit(self, limits: SessionLimits, max_message: int) -> None:
        """Let these be the limits of whoever connects from now on. `max_message`: bytes."""
        self.context = msgspec.structs.replace(self.context, limits=limits)
        self.client_queue = limits.client_queue
        self.read_rate = _read_rate(limits, max_message)
        self.protocol = limited(ClientProtocol, max_message)


def _read_rate(limits: SessionLimits, max_message: int) -> ReadRate:
    return ReadRate.permitting(limits.request_rate, limits.request_burst, max_message)
