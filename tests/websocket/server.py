"""A server of clients over scripted sockets: everything but the network is real, and the test is every peer."""

from __future__ import annotations

import json
from typing import Any

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from marketfeed.access.keys import KeySet, VerifyKey
from marketfeed.access.refusals import Refusals
from marketfeed.access.tokens import TokenVerifier
from marketfeed.api.depth import Books, Depth
from marketfeed.api.listing import Listing
from marketfeed.api.routes import plain_answers
from marketfeed.http.router import Router
from marketfeed.hub.hub import Hub
from marketfeed.model.kinds import BUILT_IN
from marketfeed.model.kinds.kind import StreamKind
from marketfeed.model.markets import Markets
from marketfeed.model.streams import StreamKinds
from marketfeed.session.context import SessionContext
from marketfeed.session.limits import SessionLimits
from marketfeed.websocket.connection import ClientFactory, ClientProtocol
from marketfeed.websocket.connections import UserManager
from marketfeed.websocket.handshake import Handshakes
from tests.by_hand import CLOSE, TEXT, close_code, frames_of, handshake, say
from tests.fakes import FakeBooks, FakeSource, FakeTransport, make_admission
from tests.limits import hub_limits, session_limits
from tests.tokens import SECRET, signed

__all__ = ["CLIENT_QUEUE", "MAX_MESSAGE", "NOW", "PEER", "SECONDS_TO_CLOSE", "Server", "Wire"]

MAX_MESSAGE = 1000
CLIENT_QUEUE = 5000
NOW = 1_800_000_000.0
"""Seconds since 1970 at which the server's clock begins."""
PEER = "192.0.2.7"
SECONDS_TO_CLOSE = 6  # Autobahn's timers are cut to whole seconds, so that one of 5 s may take any time up to that


class Wire(FakeTransport):
    """The transport of one connection. `peer`: the address that it comes from; None: it is a Unix socket's."""

    def __init__(self, server: Server, peer: str | None = PEER) -> None:
        super().__init__()
        self.peer = peer
        self.no_delay: bool | None = None
        self.reading = True
        protocol = server.factory.buildProtocol(self.getPeer())
        assert isinstance(protocol, ClientProtocol)
        self.protocol = protocol
        self.protocol.makeConnection(self)

    # What the protocol asks of its transport.

    def getPeer(self) -> IPv4Address | IPv6Address | UNIXAddress:
        if self.peer is None:
            return UNIXAddress(None)
        return (IPv6Address if ":" in self.peer else IPv4Address)("TCP", self.peer, 50007)

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "192.0.2.1", 8080)

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.no_delay = enabled

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        self.reading = True

    def connectionLost(self, reason: Failure) -> None:
        if self.lost is None:
            super().connectionLost(reason)
            self.protocol.connectionLost(reason)

    # What the test asks for.

    def receive(self, data: bytes) -> None:
        """Bytes from the peer, as far as the transport still reads."""
        if self.lost is None and not self.disconnecting and not self.aborted:
            assert self.reading
            self.protocol.dataReceived(data)

    def hang_up(self) -> None:
        """The peer closes its socket."""
        self.connectionLost(Failure(ConnectionDone()))

    def settle(self) -> None:
        """Let the socket take all that it can."""
        for _ in range(1000):
            if self.lost is not None or not (self.is_writing or self.aborted):
                return
            self.turn()
            if self.socket.room == 0 and not self.aborted:
                return

    @property
    def sent(self) -> bytes:
        """What has reached the peer since the last time."""
        sent = bytes(self.socket.received)
        self.socket.received.clear()
        return sent

    @property
    def frames(self) -> list[tuple[int, bytes]]:
        return list(frames_of(self.sent))

    @property
    def messages(self) -> list[Any]:
        """The text messages since the last time; there is nothing else."""
        received = self.frames
        assert all(opcode == TEXT for opcode, _ in received), received
        return [json.loads(payload) for _, payload in received]

    @property
    def closed_with(self) -> int:
        """The code of the close, which is the only thing that was sent."""
        ((opcode, payload),) = self.frames
        assert opcode == CLOSE
        return close_code(payload)


class Server:
    """The factory of connections, with everything that it needs. `auth`: as the option, for tokens as `token` makes.

    `clock`: a reactor, for connections that are real; otherwise the test's own.
    """

    def __init__(
        self,
        *,
        max_connections: int = 100,
        max_handshakes: int = 100,
        limits: SessionLimits | None = None,
        max_message: int = MAX_MESSAGE,
        client_queue: int = CLIENT_QUEUE,
        compression: bool = True,
        kinds: tuple[StreamKind, ...] = (),
        auth: str = "off",
        books: Books | None = None,
        clock: Clock | None = None,
        **admission: Any,
    ) -> None:
        self.clock = clock or Clock()
        self.hub = Hub(self.clock, hub_limits(linger=0.0), lambda: 1e9)
        self.source = FakeSource(self.hub)
        self.hub.feed_from(self.source)
        Service.startService(self.hub)
        self.users = UserManager(self.clock, max_connections, 0.0, lambda: 1e9)
        self.ready = True
        if auth != "off":
            keys = KeySet({}, VerifyKey("HS256", SECRET))
            admission = {
                "verifier": TokenVerifier(lambda: keys, self.now),
                "needs_token": auth == "required",
                **admission,
            }
        self.admission = make_admission(self.clock, self.users, **admission)
        self.refusals = Refusals(self.clock)
        known = StreamKinds((*BUILT_IN, *kinds))
        depth = Depth(books or FakeBooks(), known, Listing(Markets(), frozenset))
        router = Router(known, plain_answers(self.admission, {"depth": depth.find}, lambda: self.ready))
        handshakes = Handshakes(
            self.clock,
            self.admission,
            router,
            compression=compression,
            most=max_handshakes,
            refusals=self.refusals,
        )
        context = SessionContext(
            hub=self.hub,
            kinds=known,
            limits=limits or session_limits(request_burst=100_000),
            now=self.clock.seconds,
            verify=self.admission.verify,
            refusals=self.refusals,
            lines=self.users.lines,
        )
        self.factory = ClientFactory(self.clock, handshakes, self.users, context, max_message, self.now)
        self.factory.client_queue = client_queue

    def now(self) -> float:
        return NOW + self.clock.seconds()

    def token(self, seconds: float = 3600, **claims: Any) -> str:
        """A good token of alice, which expires so many seconds from now."""
        return signed(claims={"sub": "alice", "exp": self.now() + seconds, **claims})

    def connect(self, peer: str | None = PEER) -> Wire:
        """A connection on which nothing has been said."""
        return Wire(self, peer)

    def open(self, path: str = "/ws", peer: str | None = PEER, **headers: str | None) -> Wire:
        """A connection whose handshake is done."""
        wire = self.connect(peer)
        wire.receive(handshake(path, **headers))
        assert wire.sent.startswith(b"HTTP/1.1 101 ")
        return wire

    def watch(self, wire: Wire, stream: str = "trade@A") -> None:
        """Let this client watch a stream."""
        wire.receive(say({"method": "SUBSCRIBE", "params": [stream]}))
        if stream not in self.source.confirmed:
            self.source.confirm(stream)
        assert wire.messages == [{"result": None}]

    def assert_empty(self) -> None:
        """No client has left anything behind."""
        assert len(self.users) == 0
        assert not self.hub.streams
        assert len(self.admission.counts) == 0
        self.refusals.stopService()
        assert not self.clock.getDelayedCalls()
