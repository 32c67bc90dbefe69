"""A TCP port on all addresses of this host: a socket for IPv4, and one for IPv6 where there is any.

One socket can serve both, but then each address of IPv4 is a long one of IPv6, and every client's arrival costs a tenth
more; and what such a socket does depends on how the system is set.
"""

from __future__ import annotations

import errno
import socket
from typing import Any

from twisted.internet.defer import Deferred, execute, gatherResults, maybeDeferred
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocolFactory, IStreamServerEndpoint
from zope.interface import implementer

__all__ = ["NO_IPV6", "EveryAddress"]

_ATTEMPTS = 10
NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
"""What a host without IPv6 answers."""


@implementer(IStreamServerEndpoint)
class EveryAddress:
    """`number`: of the port; 0 for any that is free. `backlog`: connections that may wait to be accepted.

    `interfaces`: the addresses of IPv4 and IPv6 at which it listens.
    """

    def __init__(self, reactor: Any, number: int, backlog: int, interfaces: tuple[str, str] = ("", "::")) -> None:
        self._reactor = reactor
        self._number = number
        self._backlog = backlog
        self._ipv4, self._ipv6 = interfaces

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Fails as Twisted's endpoints do, or with OSError; nothing listens then."""
        return execute(self._listen, factory)

    def _listen(self, factory: IProtocolFactory) -> IListeningPort:
        for attempt in range(_ATTEMPTS):
            port: IListeningPort = self._reactor.listenTCP(self._number, factory, self._backlog, self._ipv4)
            try:
                other = self._listen_ipv6(port, factory)
            except OSError as fault:
                port.stopListening()
                is_chance = self._number == 0 and fault.errno == errno.EADDRINUSE  # free for IPv4, but not for IPv6
                if not is_chance or attempt == _ATTEMPTS - 1:
                    raise
            else:
                return port if other is None else _Ports(port, other)
        raise AssertionError

    def _listen_ipv6(self, port: IListeningPort, factory: IProtocolFactory) -> IListeningPort | None:
        number = getattr(port.getHost(), "port", self._number)
        try:
            with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as ours:  # the reactor takes a copy of it
                ours.setblocking(False)
                ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                ours.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                ours.bind((self._ipv6, number))
                ours.listen(self._backlog)
                other: IListeningPort = self._reactor.adoptStreamPort(ours.fileno(), socket.AF_INET6, factory)
                return other
        except OSError as fault:
            if fault.errno in NO_IPV6:
                return None
            raise


@implementer(IListeningPort)
class _Ports:
    """Two ports of the same number."""

    def __init__(self, *ports: IListeningPort) -> None:
        self.ports = ports

    def getHost(self) -> IAddress:
        return self.ports[0].getHost()

    def startListening(self) -> None:
        for port in self.ports:
            port.startListening()

    def stopListening(self) -> Deferred[None]:
        stopped = gatherResults([maybeDeferred(port.stopListening) for port in self.ports])
        return stopped.addCallback(lambda _: None)
