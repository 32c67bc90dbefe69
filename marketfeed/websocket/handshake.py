"""From a connection to a WebSocket: the request is read, answered here unless it becomes one, and who sends it let in.

1. A request is read once and bounded, in bytes and in time; no byte of it reaches a log.
2. Connections that are no WebSockets, or not yet, are bounded in number and in the bytes that are kept of them: with
   more, those are ended that have been there for longest.
3. What the admission has counted is given back when the connection is gone.
4. An answer that has to be found out first is waited for as long as a request, at most. What comes on the connection
   meanwhile is not kept; when it is gone, or has to make room, nobody is asked any more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from twisted.internet.defer import Deferred

from marketfeed.access.admission import Admission, Admitted
from marketfeed.access.refusals import Refusals
from marketfeed.access.tokens import subprotocol
from marketfeed.api.depth import Books
from marketfeed.api.routes import plain_answers
from marketfeed.boundaries import Clock
from marketfeed.http.head import MAX_HEAD, BadRequest, Head, parse_head
from marketfeed.http.response import Response
from marketfeed.http.router import LateResponse, Router, Upgrade
from marketfeed.model.streams import StreamKinds
from marketfeed.runtime.timeouts import Deadlines
from marketfeed.websocket.autobahn_protocol import AutobahnProtocol
from marketfeed.websocket.upgrade import Switch, switch_protocols

__all__ = ["HANDSHAKE_SECONDS", "Handshake", "Handshakes", "Opened", "peer_address", "shown"]

HANDSHAKE_SECONDS = 10
_MOST_UNREAD = 16 * 2**20
"""Bytes of requests that are not complete, of all connections together."""
_NO_HANDSHAKE = Response(400, "expected a WebSocket handshake as in RFC 6455", (("Sec-WebSocket-Version", "13,8"),))


class Opened(msgspec.Struct, frozen=True):
    """A WebSocket is to begin: who has been let in, what was asked for, and the answer to it."""

    admitted: Admitted
    upgrade: Upgrade
    answer: Switch


class Handshakes:
    """Those of one process: what they are answered, and how many there may be.

    `is_ready`: what `/readyz` answers. `most`: connections that may be no WebSockets at a time. `books`: what is asked
    for books.
    """

    def __init__(
        self,
        clock: Clock,
        admission: Admission,
        kinds: StreamKinds,
        is_ready: Callable[[], bool],
        *,
        compression: bool,
        most: int,
        books: Books,
        refusals: Refusals,
    ) -> None:
        self.waiting = Deadlines[Handshake](clock, HANDSHAKE_SECONDS, lambda handshake: handshake.time_out())
        self.unread = 0
        """Bytes of requests that are not complete."""
        self.most = most
        self.admission = admission
        self.compression = compression
        self.refusals = refusals
        self.router = Router(kinds, plain_answers(admission, books, kinds, is_ready))

    def make_room(self) -> None:
        """End the connections that have been no WebSockets for longest, as long as there is too much of them."""
        while self.waiting and (len(self.waiting) > self.most or self.unread > _MOST_UNREAD):
            oldest = self.waiting.oldest()
            self.waiting.discard(oldest)
            oldest.give_up()


class Handshake:
    """One connection's. Call `read` when more has come, until it returns something; call `end` when it is gone before.

    `counted`: what is to be given back to the admission when the connection is gone.
    """

    __slots__ = ("_asking", "_connection", "_handshakes", "_late", "_unread", "counted")

    def __init__(self, connection: AutobahnProtocol, handshakes: Handshakes) -> None:
        self._connection = connection
        self._handshakes = handshakes
        self._unread = 0
        self.counted: Admitted | None = None
        self._asking: Deferred[Response] | None = None
        self._late: tuple[Response, bool, str] | None = None  # what is answered if that takes too long
        handshakes.waiting.add(self)
        handshakes.make_room()

    def read(self) -> Opened | None:
        """Take the request off the connection's `data`, once it is complete, and answer it unless it is granted."""
        connection, data = self._connection, self._connection.data
        if self._asking is not None:
            connection.data = b""
            return None
        end = data.find(b"\r\n\r\n")
        if end < 0 and len(data) <= MAX_HEAD:
            self._handshakes.unread += len(data) - self._unread
            self._unread = len(data)
            self._handshakes.make_room()
            return None
        self._forget_unread()
        if end < 0 or end > MAX_HEAD:
            self._refuse(Response(400, f"the request's headers take more than {MAX_HEAD} bytes"))
            return None
        try:
            head = parse_head(data[:end])
        except BadRequest as error:
            self._refuse(Response(400, str(error)))
            return None
        connection.data = data[end + 4 :]
        address = self._handshakes.admission.address(peer_address(connection.transport), head)
        asked = self._handshakes.router.ask(head, address)
        if isinstance(asked, Upgrade):
            return self._let_in(asked, head, address)
        if isinstance(asked, LateResponse):
            self._wait_for(asked, head.method == "HEAD", shown(connection.transport, address))
        else:
            self._refuse(asked, is_head=head.method == "HEAD")
        return None

    def time_out(self) -> None:
        """There has been no request, or no answer, within `HANDSHAKE_SECONDS`."""
        if self._connection.state != self._connection.STATE_CLOSED:  # it has been refused, and stays
            late = self._late or (Response(408, f"no complete request within {HANDSHAKE_SECONDS} s"), False, "")
            self._forget()
            self._refuse(late[0], is_head=late[1], client=late[2])

    def give_up(self) -> None:
        """End the connection now, before it is known to be lost, and keep nothing of it."""
        self._forget()
        self._connection.data = b""
        self._connection.abort()

    def end(self) -> None:
        """The connection is gone."""
        self._handshakes.waiting.discard(self)
        self._forget()
        if self.counted is not None:
            self._handshakes.admission.leave(self.counted)

    def _let_in(self, upgrade: Upgrade, head: Head, address: str | None) -> Opened | None:
        admission, peer = self._handshakes.admission, self._connection.transport
        answer = admission.admit(address, head)
        if isinstance(answer, Response):
            self._refuse(answer, client=shown(peer, address))
            return None
        if answer.key is not None and admission.counts.is_limited:
            self.counted = answer
        protocol = subprotocol(head.headers) if "sec-websocket-protocol" in head.headers else None
        switch = switch_protocols(
            head.headers, compress=self._handshakes.compression, protocol=protocol, version=head.version
        )
        if switch is None:
            self._refuse(_NO_HANDSHAKE)
            return None
        self._handshakes.waiting.discard(self)
        return Opened(answer, upgrade, switch)

    def _wait_for(self, late: LateResponse, is_head: bool, client: str) -> None:
        """The answer is being found out; the request is complete, so that the time begins anew."""
        self._connection.data = b""
        self._handshakes.waiting.discard(self)
        self._handshakes.waiting.add(self)
        self._late = late.too_late, is_head, client
        self._asking = late.found
        self._asking.addCallback(self._found_out, is_head, client)

    def _found_out(self, answer: Response, is_head: bool, client: str) -> None:
        if self._asking is not None:  # or nobody waits for it any more
            self._asking = self._late = None
            self._refuse(answer, is_head=is_head, client=client)

    def _forget(self) -> None:
        """Keep nothing, and ask nobody any more."""
        self._forget_unread()
        asking, self._asking, self._late = self._asking, None, None
        if asking is not None:
            asking.cancel()

    def _forget_unread(self) -> None:
        self._handshakes.unread -= self._unread
        self._unread = 0

    def _refuse(self, refusal: Response, *, is_head: bool = False, client: str = "") -> None:
        peer = self._connection.transport
        self._handshakes.refusals.of_request(client or shown(peer, peer_address(peer)), refusal)
        self._connection.end_with(refusal.encode(is_head=is_head))


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
