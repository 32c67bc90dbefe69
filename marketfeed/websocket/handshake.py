"""From a connection to a WebSocket: the request is read, answered here unless it becomes one, and who sends it let in.

1. Everything that is written to the socket passes the outbox, Autobahn's own frames too.
2. A request is read once and bounded, in bytes and in time; no byte of it reaches a log.
3. Connections that are no WebSockets, or not yet, are bounded in number and in the bytes that are kept of them: with
   more, those are ended that have been there for longest.
4. What the admission has counted is given back when the connection is gone.
5. An answer that has to be found out first is waited for as long as a request, at most. What comes on the connection
   meanwhile is not kept; when it is gone, or has to make room, nobody is asked any more.
6. A plain answer is sent for as long as it is taken, at a least rate: whoever takes less of it is cut off.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from marketfeed.access.admission import Admission, Admitted
from marketfeed.access.refusals import Refusals
from marketfeed.access.tokens import subprotocol
from marketfeed.api.depth import Books
from marketfeed.api.routes import plain_answers
from marketfeed.http.head import MAX_HEAD, BadRequest, Head, parse_head
from marketfeed.http.response import Response
from marketfeed.http.router import LateResponse, Router, Upgrade
from marketfeed.model.streams import StreamKinds
from marketfeed.websocket.lean import CLOSE_SECONDS, HANDSHAKE_SECONDS, LeanServerFactory
from marketfeed.websocket.outbox import Outbox
from marketfeed.websocket.read_throttle import Pace, PacedProtocol

__all__ = ["HandshakeFactory", "HandshakeProtocol", "peer_address", "shown"]

_MOST_UNREAD = 16 * 2**20
"""Bytes of requests that are not complete, of all connections together."""
_LEAST_TAKEN = 16384
"""Bytes of a plain answer that a peer takes in `CLOSE_SECONDS`, or is cut off."""
_NO_HANDSHAKE = Response(400, "expected a WebSocket handshake as in RFC 6455", (("Sec-WebSocket-Version", "13,8"),))


class HandshakeProtocol(PacedProtocol):
    """A connection up to the moment at which it opens. Subclasses go on in `onOpen`, and are `OutboxOwner`s."""

    factory: HandshakeFactory
    outbox: Outbox
    upgrade: Upgrade
    """What was asked for; `onOpen` takes it."""
    admitted: Admitted
    """Who has been let in; `onOpen` takes it."""
    _counted: Admitted | None = None
    _unread = 0
    _dropping: IDelayedCall | None = None
    _asking: Deferred[Response] | None = None
    _late: tuple[Response, bool, str] | None = None  # what is answered if that takes too long
    _left: int | None = None  # bytes of a plain answer that the transport had when it was last looked at

    # The connection.

    def connectionMade(self) -> None:
        self.outbox = Outbox(self.transport, self.factory.client_queue, self)  # type: ignore[arg-type]
        super().connectionMade()
        self.factory.make_room()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.outbox.close()
        self._forget_unread()
        self._stop_asking()
        super().connectionLost(reason)
        if self._dropping is not None:
            self._dropping.cancel()
            self._dropping = None
        if self._counted is not None:
            self.factory.admission.leave(self._counted)

    def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:
        self.outbox.write(data)

    def abort(self) -> None:
        """End the connection without a word."""
        if self.transport is not None:
            self.outbox.close()
            self.transport.abortConnection()

    def give_up(self) -> None:
        """End the connection now, before it is known to be lost, and keep nothing of it."""
        self._forget_unread()
        self._stop_asking()
        self.data = b""
        self.abort()

    def _closeConnection(self, abort: bool = False) -> None:
        if abort and not self.wasClean:
            self.abort()
            return
        self.outbox.finish()
        if self._left is not None:
            self._left = _unsent(self.transport)
        self.transport.loseConnection()
        self._dropping = self.factory.clock.callLater(CLOSE_SECONDS, self._drop)

    def _drop(self) -> None:
        """The peer has had its time to take what was left for it."""
        self._dropping = None
        if self._left is not None:
            left = _unsent(self.transport)
            if self._left - left >= _LEAST_TAKEN:
                self._left = left
                self._dropping = self.factory.clock.callLater(CLOSE_SECONDS, self._drop)
                return
        self.transport.abortConnection()

    def unregisterProducer(self) -> None:
        """Autobahn wants to take the outbox off the transport before it drops it; the outbox does that itself."""

    # The handshake.

    def processHandshake(self) -> None:
        if self._asking is not None:
            self.data = b""
            return
        end = self.data.find(b"\r\n\r\n")
        if end < 0 and len(self.data) <= MAX_HEAD:
            self.factory.unread += len(self.data) - self._unread
            self._unread = len(self.data)
            self.factory.make_room()
            return
        self._forget_unread()
        if end < 0 or end > MAX_HEAD:
            self._refuse(Response(400, f"the request's headers take more than {MAX_HEAD} bytes"))
            return
        try:
            head = parse_head(self.data[:end])
        except BadRequest as error:
            self._refuse(Response(400, str(error)))
            return
        self.data = self.data[end + 4 :]
        address = self.factory.admission.address(peer_address(self.transport), head)
        asked = self.factory.router.ask(head, address)
        if isinstance(asked, Upgrade):
            self._let_in(asked, head, address)
        elif isinstance(asked, LateResponse):
            self._wait_for(asked, head.method == "HEAD", shown(self.transport, address))
        else:
            self._refuse(asked, is_head=head.method == "HEAD")

    def _let_in(self, upgrade: Upgrade, head: Head, address: str | None) -> None:
        factory = self.factory
        admission = factory.admission
        answer = admission.admit(address, head)
        if isinstance(answer, Response):
            self._refuse(answer, client=shown(self.transport, address))
            return
        if answer.key is not None and admission.counts:
            self._counted = answer
        self.admitted, self.upgrade = answer, upgrade
        protocol = subprotocol(head.headers) if "sec-websocket-protocol" in head.headers else None
        if not self.accept(head.headers, compress=factory.compression, protocol=protocol, version=head.version):
            self._refuse(_NO_HANDSHAKE)

    def _wait_for(self, late: LateResponse, is_head: bool, client: str) -> None:
        """The answer is being found out; the request is complete, so that the time begins anew."""
        self.data = b""
        self.factory.handshakes.discard(self)
        self.factory.handshakes.add(self)
        self._late = late.too_late, is_head, client
        self._asking = late.found
        self._asking.addCallback(self._found_out, is_head, client)

    def _found_out(self, answer: Response, is_head: bool, client: str) -> None:
        if self._asking is not None:  # or nobody waits for it any more
            self._asking = self._late = None
            self._refuse(answer, is_head=is_head, client=client)

    def _stop_asking(self) -> None:
        asking, self._asking, self._late = self._asking, None, None
        if asking is not None:
            asking.cancel()

    def _forget_unread(self) -> None:
        self.factory.unread -= self._unread
        self._unread = 0

    def onHandshakeTimeout(self) -> None:
        if self.state != self.STATE_CLOSED:  # it has been refused, and stays
            late = self._late or (Response(408, f"no complete request within {HANDSHAKE_SECONDS} s"), False, "")
            self._forget_unread()
            self._stop_asking()
            self._refuse(late[0], is_head=late[1], client=late[2])

    def _refuse(self, refusal: Response, *, is_head: bool = False, client: str = "") -> None:
        self.factory.refusals.of_request(client or shown(self.transport, peer_address(self.transport)), refusal)
        self.outbox.write_plain(refusal.encode(is_head=is_head))
        self._left = 0
        self.wasClean = True
        self.dropConnection(abort=False)


class HandshakeFactory(LeanServerFactory):
    """Makes a `HandshakeProtocol` for each connection.

    `is_ready`: what `/readyz` answers. `max_handshakes`: connections that may be no WebSockets at a time. `books`:
    what is asked for books.
    """

    def __init__(
        self,
        clock: IReactorTime,
        admission: Admission,
        kinds: StreamKinds,
        is_ready: Callable[[], bool],
        *,
        client_queue: int,
        compression: bool,
        max_handshakes: int,
        books: Books,
        refusals: Refusals,
    ) -> None:
        super().__init__(clock)
        self.refusals = refusals
        self.router = Router(kinds, plain_answers(admission, books, kinds, is_ready))
        self._max_handshakes = max_handshakes
        self.unread = 0
        """Bytes of requests that are not complete."""
        self.pace = Pace.permitting(0.0, 200)
        self.admission = admission
        self.client_queue = client_queue
        self.compression = compression

    def make_room(self) -> None:
        """End the connections that have been no WebSockets for longest, as long as there is too much of them."""
        while self.handshakes and (len(self.handshakes) > self._max_handshakes or self.unread > _MOST_UNREAD):
            oldest = self.handshakes.oldest()
            assert isinstance(oldest, HandshakeProtocol)
            self.handshakes.discard(oldest)
            oldest.give_up()


def _unsent(transport: Any) -> int:
    """Bytes that a transport, of Twisted's own, has been given and its socket has not taken, below TLS if need be."""
    return len(transport.dataBuffer) - int(transport.offset) + int(transport._tempDataLen)


def peer_address(transport: Any) -> str | None:
    """Where a connection comes from; None: a Unix socket. Behind `haproxy:` that is known with the first bytes."""
    host = getattr(transport.getPeer(), "host", None)
    return None if host is None else host.removeprefix("::ffff:")  # IPv4, on a port that takes IPv6 as well


def shown(transport: Any, address: str | None) -> str:
    """Where a client is, as the log shows it: by its port too, unless it is behind a proxy."""
    if address != peer_address(transport):
        return str(address)
    if address is None:
        return "a local socket"
    port = transport.getPeer().port
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
