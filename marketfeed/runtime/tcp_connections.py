"""Connections over plain TCP, without what Twisted does around each of them and around each of their reads.

1. All connections of a port are watched by one epoll, which the reactor watches as if it were a single connection: what
   it does around each event is done once for all that have come. At most `_MOST_READ` of them are read in a turn.
2. What is to be written is the reactor's own to watch, as ever.
3. Of those that wait to be accepted, at most `MOST_ACCEPTED` are in a turn. What `accept` raises, unless that nobody
   waits, is for Twisted's port to deal with, which accepts anew.
4. What a protocol raises is logged, and is the end of its own connection only.
5. Nothing is delayed to be sent with more: a connection has that from the socket that it came to.
6. A connection that is gone is in no reference cycle.

It is for systems that have epoll; elsewhere, and on ports that are not Twisted's of TCP, nothing changes.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from typing import Any

from twisted.internet import tcp
from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IProtocol, IReadDescriptor
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.python.failure import Failure
from zope.interface import implementer

from marketfeed.runtime.logs import Log

__all__ = ["MOST_ACCEPTED", "Readers", "TcpConnection", "quicken"]

_log = Log()

MOST_ACCEPTED = 64
_MOST_READ = 256
_READ = 65536  # bytes of a connection that are read in a turn
_IN = 1  # select.EPOLLIN, which not every system has

_DONE = Failure(CONNECTION_DONE)
_LOST = Failure(CONNECTION_LOST)

_AnyServer: Any = tcp.Server


def quicken(port: Any, most_accepted: int = MOST_ACCEPTED) -> None:
    """Let what `port` accepts from now on, so many in a turn, be connections as these, if it is one of plain TCP."""
    if type(port) is tcp.Port and port.transport is tcp.Server and hasattr(select, "epoll"):
        port.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        port.doRead = _Acceptor(port, most_accepted).accept  # type: ignore[method-assign]


class _Acceptor:
    """The accepting side of a port."""

    def __init__(self, port: Any, most: int) -> None:
        self._port = port
        self._most = most
        self._readers = Readers(port.reactor)

    def accept(self) -> None:
        """Somebody waits."""
        port = self._port
        accept = port.socket.accept
        for _ in range(self._most):
            try:
                skt, client = accept()
            except BlockingIOError:
                return
            except OSError:
                tcp.Port.doRead(port)
                return
            self._let_in(skt, client)

    def _let_in(self, skt: socket.socket, client: tuple[Any, ...]) -> None:
        address: IPv4Address | IPv6Address
        if len(client) == 2:
            address = IPv4Address("TCP", *client)
        else:
            client = (_with_scope(client), *client[1:])
            address = IPv6Address("TCP", *client)
        try:
            protocol = self._port.factory.buildProtocol(address)
        except Exception:
            _log.failure("a connection could not be accepted")
            protocol = None
        if protocol is None:
            skt.close()
            return
        connection = TcpConnection(skt, protocol, client, self._port.reactor, self._readers)
        try:
            protocol.makeConnection(connection)
        except Exception:
            _log.failure("a connection failed as it began, and ends")
            connection.abortConnection()


def _with_scope(client: tuple[Any, ...]) -> str:
    """The host of an address of IPv6, with its scope if it has one."""
    return socket.getnameinfo(client, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)[0] if client[3] else client[0]


@implementer(IReadDescriptor)
class Readers:
    """The connections of a port that are to be read, which `reactor` watches while there are any."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._epoll = select.epoll()
        self._connections: dict[int, TcpConnection] = {}

    def __iter__(self) -> Iterator[TcpConnection]:
        """Those that are read at present."""
        return iter(self._connections.values())

    def add(self, connection: TcpConnection) -> None:
        """Read `connection` when something has come, unless that is done already."""
        number = connection.fileno()
        if number not in self._connections:
            self._epoll.register(number, _IN)
            if not self._connections:
                self._reactor.addReader(self)
            self._connections[number] = connection

    def remove(self, connection: TcpConnection) -> None:
        """Do not read `connection` any more, if it is."""
        number = connection.fileno()
        if self._connections.pop(number, None) is not None:
            self._epoll.unregister(number)
            if not self._connections:
                self._reactor.removeReader(self)

    # What the reactor asks.

    def fileno(self) -> int:
        return self._epoll.fileno()

    def logPrefix(self) -> str:
        return "TCP"

    def doRead(self) -> None:
        """Read all for whom something has come."""
        connection_of = self._connections.get
        for number, event in self._epoll.poll(0, _MOST_READ):
            connection = connection_of(number)
            if connection is None:
                continue  # it has gone, or is not to be read any more, by what another one brought about
            try:
                lost = connection.doRead() if event & _IN else _DONE
            except Exception:
                _log.failure("a connection failed, and ends")
                lost = Failure()
            if lost is not None:
                connection.connectionLost(lost)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor ends."""
        for connection in list(self):
            connection.connectionLost(reason)


class TcpConnection(_AnyServer):  # type: ignore[misc]
    """A connection that has been accepted. `client`: the address of its peer, as the socket says it."""

    logstr = "TCP"
    repstr = "<a connection>"
    disconnecting = 0

    def __init__(
        self, skt: socket.socket, protocol: IProtocol, client: tuple[Any, ...], reactor: Any, readers: Readers
    ) -> None:
        FileDescriptor.__init__(self, reactor)  # and not Server's, which composes texts for nobody
        skt.setblocking(False)
        self.socket = skt
        self.fileno = skt.fileno
        self.protocol = protocol
        self.client = client
        if len(client) != 2:
            self._addressType = IPv6Address
        self._readers = readers
        self.connected = 1
        readers.add(self)

    def setTcpNoDelay(self, enabled: bool) -> None:
        if not enabled:  # it is so already
            super().setTcpNoDelay(enabled)

    def startReading(self) -> None:
        self._readers.add(self)

    def stopReading(self) -> None:
        self._readers.remove(self)

    def doRead(self) -> Failure | None:
        try:
            data = self.socket.recv(_READ)
        except BlockingIOError:
            return None
        except OSError:
            return _LOST
        if not data:
            return _DONE
        self.protocol.dataReceived(data)
        return None
