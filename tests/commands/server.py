"""A WebSocket server inside the test's process, for the client's side of a conversation: it does what a test says."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from tests.guard import DEADLINE

__all__ = ["CONFIRMED", "TRADE", "Happenings", "PlainServer", "WatchedServer", "listening"]

CONFIRMED = b'{"stream":"!reply","data":{"e":"reply","id":1,"result":null}}'
TRADE = b'{"stream": "trade@TATA_INR","data":{"e":"trade","t":1,"m":true,"p":"712.350","q":"4","s":"TATA_INR"}}'


class Happenings:
    """What happens, in order, for a test to take one by one, waiting where it has to."""

    def __init__(self) -> None:
        self._happened: deque[Any] = deque()
        self._waiting: Deferred[Any] | None = None

    def add(self, what: Any) -> None:
        if self._waiting is None:
            self._happened.append(what)
        else:
            waiting, self._waiting = self._waiting, None
            reactor.callLater(0, waiting.callback, what)  # not amidst of what happens

    def next(self) -> Deferred[Any]:
        """The next thing that happened or will happen; fails when nothing does for a long time."""
        assert self._waiting is None
        waiting: Deferred[Any] = Deferred()
        if self._happened:
            waiting.callback(self._happened.popleft())
        else:
            self._waiting = waiting.addTimeout(DEADLINE, reactor).addErrback(self._give_up)
        return waiting

    def _give_up(self, failure: Failure) -> Failure:
        self._waiting = None  # what is awaited after that, at the test's end, has a chance of its own
        return failure


class Guests:
    """The connections that a server has at this moment."""

    def __init__(self) -> None:
        self._present: set[object] = set()
        self._gone: Deferred[None] | None = None

    def come(self, connection: object) -> None:
        self._present.add(connection)

    def go(self, connection: object) -> None:
        self._present.discard(connection)
        if not self._present and self._gone is not None:
            self._gone.callback(None)

    def all_gone(self) -> Deferred[None]:
        self._gone = Deferred()
        if not self._present:
            self._gone.callback(None)
            return self._gone
        return self._gone.addTimeout(DEADLINE, reactor)


class WatchedConnection(WebSocketServerProtocol):
    """The server's end. It leaves everything to the test."""

    openHandshakeTimeout = 0  # Autobahn's timers would outlive a test
    closeHandshakeTimeout = 0

    def connectionMade(self) -> None:
        self.factory.guests.come(self)
        super().connectionMade()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self.factory.guests.go(self)

    def onOpen(self) -> None:
        self.factory.opened.add(self)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.factory.received.add(json.loads(payload))

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        self.factory.closed.add(self.remoteCloseCode)

    def say(self, *messages: bytes) -> None:
        for message in messages:
            self.sendMessage(message)


class WatchedServer(WebSocketServerFactory):
    """`opened`: the connections; `received`: their messages, decoded; `closed`: the codes of the client's closes."""

    protocol = WatchedConnection
    noisy = False

    def __init__(self) -> None:
        super().__init__(reactor=reactor)
        self.guests = Guests()
        self.opened = Happenings()
        self.received = Happenings()
        self.closed = Happenings()


class PlainConnection(Protocol):
    factory: PlainServer

    def connectionMade(self) -> None:
        self.factory.guests.come(self)
        self.request = b""
        self.is_answered = False

    def dataReceived(self, data: bytes) -> None:
        self.request += data
        if self.factory.after not in self.request or self.is_answered:
            return
        self.is_answered = True
        self.factory.requests.add(self.request)
        if self.factory.answer is None:
            self.transport.abortConnection()
        else:
            self.transport.write(self.factory.answer)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.lost.add(None)
        self.factory.guests.go(self)


class PlainServer(Factory):
    """Answers every client with the same bytes, or with None drops it, once it has sent `after`."""

    protocol = PlainConnection
    noisy = False

    def __init__(self, answer: bytes | None, after: bytes = b"\r\n\r\n") -> None:
        self.answer = answer
        self.after = after
        self.guests = Guests()
        self.requests = Happenings()
        self.lost = Happenings()


@asynccontextmanager
async def listening(
    server: WatchedServer | PlainServer, endpoint: Callable[[Any], IStreamServerEndpoint] | None = None
) -> AsyncIterator[int]:
    """`server` listens on a free port of the loopback interface, which is the value, until its guests are gone."""
    make = endpoint or (lambda reactor: TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"))
    port = await make(reactor).listen(server)
    try:
        yield port.getHost().port
    finally:
        await port.stopListening()
        await server.guests.all_gone()
