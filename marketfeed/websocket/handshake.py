"""From a connection to a WebSocket: requests are read, answered here unless one becomes it, and who sends it let in.

1. A request is read once and bounded, in bytes and in time; no byte of it reaches a log.
2. Connections that are no WebSockets, or not yet, are bounded in number and in the bytes that are kept of them: with
   more, those are ended that have been there for longest, and first of all those that wait for nothing.
3. What the admission has counted is given back when the connection is gone.
4. An answer that has to be found out first is waited for as long as a request, at most. When the connection is gone, or
   has to make room, nobody is asked any more.
5. Behind such an answer the connection may go on: once all of it was taken, another request is read, in a turn of the
   reactor of its own. Until then no more is kept of what comes than a request may have; with more, it does not go on.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from marketfeed.access.admission import Admission, Admitted
from marketfeed.access.refusals import Refusals
from marketfeed.access.tokens import subprotocol
from marketfeed.boundaries import Clock
from marketfeed.http.head import MAX_HEAD, BadRequest, Head, parse_head
from marketfeed.http.response import Response
from marketfeed.http.router import LateResponse, Router, Upgrade
from marketfeed.runtime.tcp_connections import TcpConnection
from marketfeed.runtime.timeouts import Deadlines
from marketfeed.websocket.autobahn_protocol import AutobahnProtocol
from marketfeed.websocket.closing import SendTimeout
from marketfeed.websocket.upgrade import Switch, switch_protocols

__all__ = ["HANDSHAKE_SECONDS", "KEPT_SECONDS", "Handshake", "Handshakes", "Opened", "peer_address", "shown"]

HANDSHAKE_SECONDS = 10
KEPT_SECONDS = 75
"""How long a connection waits for another request: longer than the proxies do that keep some to us."""
_MOST_UNREAD = 16 * 2**20
"""Bytes of requests that are not complete, of all connections together."""
_CLIENT_HELLO = b"\x16\x03"
"""How a TLS handshake begins (RFC 8446, section 5.1)."""
_NO_TLS = Response(400, "this is a TLS handshake; expected HTTP, as of ws:// or http://")
_NO_HANDSHAKE = Response(400, "expected a WebSocket handshake as in RFC 6455", (("Sec-WebSocket-Version", "13,8"),))


class Opened(msgspec.Struct, frozen=True):
    """A WebSocket is to begin: who has been let in, what was asked for, and the answer to it."""

    admitted: Admitted
    upgrade: Upgrade
    answer: Switch


class Handshakes:
    """Those of one process: what they are answered, and how many there may be.

    `most`: connections that may be no WebSockets at a time.
    """

    def __init__(
        self,
        clock: Clock,
        admission: Admission,
        router: Router,
        *,
        compression: bool,
        most: int,
        refusals: Refusals,
    ) -> None:
        self.clock = clock
        self.waiting = Deadlines[Handshake](clock, HANDSHAKE_SECONDS, lambda handshake: handshake.time_out())
        self.idle = Deadlines[Handshake](clock, KEPT_SECONDS, lambda handshake: handshake.leave())
        """Those that have been answered, and wait for another request."""
        self.unread = 0
        """Bytes of requests that are not complete."""
        self.most = most
        self.admission = admission
        self.compression = compression
        self.refusals = refusals
        self.router = router
        self.keeps = True
        """Whether connections go on behind an answer."""
        self.answered: Counter[tuple[str, int]] = Counter()
        """Requests of which the answer had to be found out, by what they were for, and status."""

    def __len__(self) -> int:
        """How many have asked for something, or may still, and are not answered."""
        return len(self.waiting)

    def make_room(self) -> None:
        """End connections that are no WebSockets, as long as there is too much of them."""
        if len(self.waiting) + len(self.idle) <= self.most and self.unread <= _MOST_UNREAD:
            return
        while self.idle and len(self.waiting) + len(self.idle) > self.most:
            self._end(self.idle)
        while self.waiting and (len(self.waiting) > self.most or self.unread > _MOST_UNREAD):
            self._end(self.waiting)

    def _end(self, handshakes: Deadlines[Handshake]) -> None:
        oldest = handshakes.oldest()
        handshakes.discard(oldest)
        oldest.give_up()

    def keep_no_more(self) -> None:
        """Connections end behind their answer from now on, and those that wait for nothing now."""
        self.keeps = False
        while self.idle:
            oldest = self.idle.oldest()
            self.idle.discard(oldest)
            oldest.leave()


class Handshake:
    """One connection's. Call `read` when more has come, until it returns something; `sent` when all that was written
    was taken; `end` when it is gone before.

    `counted`: what is to be given back to the admission when the connection is gone.
    """

    __slots__ = (
        *("_asking", "_connection", "_goes_on", "_handshakes", "_is_idle", "_late", "_sending", "_turn", "_unread"),
        "counted",
    )

    def __init__(self, connection: AutobahnProtocol, handshakes: Handshakes) -> None:
        self._connection = connection
        self._handshakes = handshakes
        self._unread = 0
        self.counted: Admitted | None = None
        self._asking: Deferred[Response] | None = None
        self._late: tuple[LateResponse, bool, str] | None = None  # what is asked for, is it HEAD, who asks
        self._goes_on = False  # another request may follow the one that is being answered
        self._sending: SendTimeout | None = None  # an answer that is not taken yet, behind which it goes on
        self._turn: IDelayedCall | None = None  # in which another request is read, that is there already
        self._is_idle = False
        handshakes.waiting.add(self)
        handshakes.make_room()

    def read(self) -> Opened | None:
        """Take a request off the connection's `data`, once it is complete, and answer it unless it is granted."""
        connection, data = self._connection, self._connection.data
        if self._asking is not None or self._sending is not None or self._turn is not None:
            self._keep_for_later()
            return None
        if self._is_idle:
            self._is_idle = False
            self._handshakes.idle.discard(self)
            self._handshakes.waiting.add(self)
        end = data.find(b"\r\n\r\n")
        if end < 0 and data.startswith(_CLIENT_HELLO):
            self._forget_unread()
            self._refuse(_NO_TLS)
            return None
        if end < 0 and len(data) <= MAX_HEAD:
            self._count_unread(len(data))
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
            self._wait_for(asked, head, shown(connection.transport, address))
        else:
            self._refuse(asked, is_head=head.method == "HEAD")
        return None

    def sent(self) -> None:
        """All that was written was taken."""
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None
            self._go_on()

    def time_out(self) -> None:
        """There has been no request, or no answer, within `HANDSHAKE_SECONDS`."""
        if self._sending is not None:
            self._handshakes.waiting.add(self)  # for as long as the answer is taken
        elif self._connection.state != self._connection.STATE_CLOSED:  # it has been refused, and stays
            late, self._late = self._late, None
            self._forget()
            if late is None:
                self._refuse(Response(408, f"no complete request within {HANDSHAKE_SECONDS} s"))
            else:
                asked, is_head, client = late
                self._count(asked, asked.too_late)
                self._refuse(asked.too_late, is_head=is_head, client=client)

    def leave(self) -> None:
        """Nothing more is asked: end the connection."""
        self._is_idle = False
        self._connection.end_with(b"")

    def give_up(self) -> None:
        """End the connection now, before it is known to be lost, and keep nothing of it."""
        self._forget()
        self._connection.data = b""
        self._connection.abort()

    def end(self) -> None:
        """The connection is gone."""
        self._handshakes.waiting.discard(self)
        self._handshakes.idle.discard(self)
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

    def _wait_for(self, late: LateResponse, head: Head, client: str) -> None:
        """The answer is being found out; the request is complete, so that the time begins anew."""
        self._goes_on = head.goes_on
        self._keep_for_later()
        self._handshakes.waiting.discard(self)
        self._handshakes.waiting.add(self)
        self._late = late, head.method == "HEAD", client
        self._asking = late.found
        self._asking.addCallback(self._found_out)

    def _found_out(self, answer: Response) -> None:
        if self._asking is None or self._late is None:  # nobody waits for it any more
            return
        (asked, is_head, client), self._asking, self._late = self._late, None, None
        self._count(asked, answer)
        if not (self._goes_on and self._handshakes.keeps):
            self._refuse(answer, is_head=is_head, client=client)
            return
        connection = self._connection
        self._handshakes.refusals.of_request(client, answer)
        connection.outbox.write_plain(answer.encode(is_head=is_head, kept=KEPT_SECONDS))
        if connection.outbox.is_drained:
            self._go_on()
        else:
            self._sending = SendTimeout(self._handshakes.clock, connection.transport, is_patient=True)

    def _go_on(self) -> None:
        """The answer was taken."""
        handshakes = self._handshakes
        handshakes.waiting.discard(self)
        if not (self._goes_on and handshakes.keeps):
            self._connection.end_with(b"")
        elif self._connection.data:
            handshakes.waiting.add(self)
            self._turn = handshakes.clock.callLater(0, self._read_on)
        else:
            self._is_idle = True
            handshakes.idle.add(self)

    def _read_on(self) -> None:
        self._turn = None
        self._connection.consumeData()

    def _keep_for_later(self) -> None:
        """Something has come before its time."""
        if len(self._connection.data) > MAX_HEAD:
            self._goes_on = False
        if self._goes_on:
            self._count_unread(len(self._connection.data))
        else:
            self._connection.data = b""
            self._forget_unread()

    def _count(self, asked: LateResponse, answer: Response) -> None:
        self._handshakes.answered[asked.name, answer.status] += 1

    def _forget(self) -> None:
        """Keep nothing, and ask nobody any more."""
        self._forget_unread()
        asking, self._asking, self._late = self._asking, None, None
        if asking is not None:
            asking.cancel()
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None

    def _count_unread(self, size: int) -> None:
        self._handshakes.unread += size - self._unread
        self._unread = size
        self._handshakes.make_room()

    def _forget_unread(self) -> None:
        self._handshakes.unread -= self._unread
        self._unread = 0

    def _refuse(self, refusal: Response, *, is_head: bool = False, client: str = "") -> None:
        peer = self._connection.transport
        self._handshakes.refusals.of_request(client or shown(peer, peer_address(peer)), refusal)
        self._connection.end_with(refusal.encode(is_head=is_head))


def peer_address(transport: Any) -> str | None:
    """Where a connection comes from; None: a Unix socket. Behind `haproxy:` that is known with the first bytes."""
    host = transport.client[0] if type(transport) is TcpConnection else getattr(transport.getPeer(), "host", None)
    return None if host is None else host.removeprefix("::ffff:")  # IPv4, on a port that takes IPv6 as well


def shown(transport: Any, address: str | None) -> str:
    """Where a client is, as the log shows it: by its port too, unless it is behind a proxy."""
    if address != peer_address(transport):
        return str(address)
    if address is None:
        return "a local socket"
    port = transport.client[1] if type(transport) is TcpConnection else transport.getPeer().port
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
