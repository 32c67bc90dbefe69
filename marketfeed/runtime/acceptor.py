"""Accepting connections many at a time, with TLS or without, and without what Twisted does around each of them.

1. Of those that wait to be accepted, at most `MOST_ACCEPTED` are in a turn. What `accept` raises, unless that nobody
   waits, is for Twisted's port to deal with, which accepts anew.
2. All connections of a port are read as `connections` has it.

It is for systems that have epoll; elsewhere, and on ports that are not Twisted's of TCP, nothing changes.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet import tcp
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IProtocol

from marketfeed.runtime.connections import AcceptedConnection, Readers, Watch
from marketfeed.runtime.logs import Log
from marketfeed.runtime.tcp_connections import TcpConnection
from marketfeed.runtime.tls_factory import TlsFactory

__all__ = ["MOST_ACCEPTED", "quicken"]

_log = Log()

MOST_ACCEPTED = 64

_Connect = Callable[[socket.socket, IProtocol, tuple[Any, ...], Any, Watch], AcceptedConnection]


def quicken(port: Any, most_accepted: int = MOST_ACCEPTED) -> None:
    """Let what `port` accepts from now on, so many in a turn, be connections as these, if it is one of TCP."""
    if type(port) is not tcp.Port or not hasattr(select, "epoll"):
        return
    connect: _Connect
    if isinstance(port.factory, TlsFactory):
        connect = port.factory.connection
    elif port.transport is tcp.Server:
        connect = TcpConnection
    else:
        return
    port.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    port.doRead = _Acceptor(port, connect, most_accepted).accept  # type: ignore[method-assign]


class _Acceptor:
    """The accepting side of a port."""

    def __init__(self, port: Any, connect: _Connect, most: int) -> None:
        self._port = port
        self._connect = connect
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
        skt.setblocking(False)
        address: IPv4Address | IPv6Address
        if len(client) == 2:
            address = IPv4Address("TCP", *client)
        else:
            client = (_with_scope(client), *client[1:])
            address = IPv6Address("TCP", *client)
        try:
            protocol = self._port.factory.buildProtocol(address)
            connection = protocol and self._connect(skt, protocol, client, self._port.reactor, self._readers)
        except Exception:
            _log.failure("a connection could not be accepted")
            connection = None
        if connection is None:
            skt.close()
            return
        try:
            protocol.makeConnection(connection)
        except Exception:
            _log.failure("a connection failed as it began, and ends")
            connection.abortConnection()


def _with_scope(client: tuple[Any, ...]) -> str:
    """The host of an address of IPv6, with its scope if it has one."""
    return socket.getnameinfo(client, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)[0] if client[3] else client[0]
