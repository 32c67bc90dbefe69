"""What accepted connections have in common, with TLS or without: their socket, and how they are watched.

1. All connections of a port are watched by one epoll, which the reactor watches as if it were a single connection: what
   it does around each event is done once for all that have come.
2. In a turn they are read until `_LONGEST_TURN` has passed, `_AT_ONCE` of them at least and `_MOST` at most. Who comes
   later has his turn next: the kernel puts those that were read behind the others.
3. What is to be written is the reactor's own to watch, as ever.
4. What a protocol raises is logged, and is the end of its own connection only.
5. Nothing is delayed to be sent with more: whoever accepts a connection has seen to that.
6. A connection that is gone is in no reference cycle.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from typing import Any, Protocol

from twisted.internet import tcp
from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import IPv6Address
from twisted.internet.interfaces import IProtocol, IReadDescriptor
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.python.failure import Failure
from zope.interface import implementer

from marketfeed.runtime.logs import Log

__all__ = ["AcceptedConnection", "ReadByReactor", "Readers", "Watch"]

_log = Log()

_AT_ONCE = 16
_MOST = 256
_LONGEST_TURN = 0.01  # seconds
_IN = 1  # select.EPOLLIN, which not every system has

_DONE = Failure(CONNECTION_DONE)
_LOST = Failure(CONNECTION_LOST)

_AnyServer: Any = tcp.Server


class Watch(Protocol):
    """Who has connections read when something has come."""

    def add(self, connection: AcceptedConnection) -> None:
        """Read `connection`, unless that is done already."""

    def remove(self, connection: AcceptedConnection) -> None:
        """Do not read `connection` any more, if it is."""


class AcceptedConnection(_AnyServer):  # type: ignore[misc]
    """A connection that has been accepted. `skt` does not block; `client`: the address of its peer, as it says it.

    `doRead` returns, as Twisted has it, why the connection ends now; None: it does not.
    """

    disconnecting = 0

    def __init__(
        self, skt: socket.socket, protocol: IProtocol, client: tuple[Any, ...], reactor: Any, watch: Watch
    ) -> None:
        FileDescriptor.__init__(self, reactor)  # and not Server's, which composes texts for nobody
        self.socket = skt
        self.fileno = skt.fileno
        self.protocol = protocol
        self.client = client
        if len(client) != 2:
            self._addressType = IPv6Address
        self._watch = watch
        self.connected = 1
        watch.add(self)

    def setTcpNoDelay(self, enabled: bool) -> None:
        if not enabled:  # it is so already
            super().setTcpNoDelay(enabled)

    def startReading(self) -> None:
        self._watch.add(self)

    def stopReading(self) -> None:
        self._watch.remove(self)


class ReadByReactor:
    """The reactor watches each connection by itself: of ports that are not TCP's, and where there is no epoll."""

    def __init__(self, reactor: Any) -> None:
        self.add = reactor.addReader
        self.remove = reactor.removeReader


@implementer(IReadDescriptor)
class Readers:
    """The connections of a port that are to be read, which `reactor` watches while there are any."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._epoll = select.epoll()
        self._connections: dict[int, AcceptedConnection] = {}

    def __iter__(self) -> Iterator[AcceptedConnection]:
        """Those that are read at present."""
        return iter(self._connections.values())

    def add(self, connection: AcceptedConnection) -> None:
        """See `Watch`."""
        number = connection.fileno()
        if number not in self._connections:
            self._epoll.register(number, _IN)
            if not self._connections:
                self._reactor.addReader(self)
            self._connections[number] = connection

    def remove(self, connection: AcceptedConnection) -> None:
        """See `Watch`."""
        number = connection.fileno()
        if self._connections.pop(number, None) is not None:
            self._epoll.unregister(number)
            if not self._connections:
                self._reactor.removeReader(self)

    # What the reactor asks.

    def fileno(self) -> int:
        return self._epoll.fileno()

    def logPrefix(self) -> str:
        return "connections"

    def doRead(self) -> None:
        """Read those for whom something has come."""
        now = self._reactor.seconds
        end = now() + _LONGEST_TURN
        for _ in range(_MOST // _AT_ONCE):
            events = self._epoll.poll(0, _AT_ONCE)
            self._read(events)
            if len(events) < _AT_ONCE or now() >= end:
                return

    def _read(self, events: list[tuple[int, int]]) -> None:
        connection_of = self._connections.get
        for number, event in events:
            connection = connection_of(number)
            if connection is None:
                continue  # it has gone, or is not to be read any more, by what another one brought about
            try:
                why = connection.doRead() if event & _IN else CONNECTION_DONE
            except Exception:
                _log.failure("a connection failed, and ends")
                connection.connectionLost(Failure())
                continue
            if why is not None:
                connection.connectionLost(_DONE if why is CONNECTION_DONE else _LOST)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor ends."""
        for connection in list(self):
            connection.connectionLost(reason)
