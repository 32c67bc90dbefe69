"""The sockets on which clients arrive: the parent makes and keeps them, and each worker accepts from those it is told.

1. The parent accepts nothing. It holds the sockets as long as it runs, so that what has arrived waits for a worker, and
   a new one finds it.
2. A port of TCP has a queue for each worker (SO_REUSEPORT), among which the kernel divides those who arrive. The first
   of its sockets is bound as if it were alone, so that a port that another program has is taken.
3. A Unix socket, and what systemd opens, is one queue for all.
4. A worker removes nothing that is the parent's: when it ends, the file of a Unix socket stays.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Collection, Iterable
from typing import Any

from twisted.internet import unix
from twisted.internet.abstract import isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocolFactory, IStreamServerEndpoint
from zope.interface import implementer

from marketfeed.runtime.acceptor import quicken
from marketfeed.runtime.every_address import NO_IPV6, EveryAddress
from marketfeed.runtime.listener import BACKLOG, server_endpoint
from marketfeed.runtime.tls_factory import encrypted

__all__ = ["Inherited", "Opener"]


class Opener:
    """A reactor to endpoints, for which to listen is to open sockets: `workers` of them for each port of TCP."""

    def __init__(self, reactor: Any, workers: int) -> None:
        self._reactor = reactor
        self._workers = workers
        self._sockets: list[list[Any]] = []  # of each port, one for each queue

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def endpoint(self, description: str) -> IStreamServerEndpoint:
        """Where the option says. Raises ValueError as `server_endpoint` does."""
        if description.isdigit():
            return _OpenedEverywhere(self, int(description), BACKLOG)
        return server_endpoint(self, description)

    @property
    def queues(self) -> list[list[Any]]:
        """The sockets of each queue, once there are any. One queue is for all workers."""
        count = min(map(len, self._sockets), default=0)
        return [[sockets[at] for sockets in self._sockets] for at in range(count)]

    def listenTCP(self, port: int, factory: object, backlog: int = 50, interface: str = "") -> IListeningPort:
        """Raises CannotListenError."""
        return self._opened(port, backlog, interface)

    def listen_ipv6_only(self, port: int, backlog: int) -> IListeningPort:
        """On all addresses of IPv6, and on none of IPv4. Raises CannotListenError."""
        return self._opened(port, backlog, "::", only_ipv6=True)

    def listenUNIX(self, address: str, factory: IProtocolFactory, *options: Any, **more: Any) -> IListeningPort:
        """Raises CannotListenError."""
        port: Any = self._reactor.listenUNIX(address, factory, *options, **more)
        port.stopReading()
        self._sockets.append([port.socket])
        opened: IListeningPort = port
        return opened

    def adoptStreamPort(self, number: int, family: int, factory: object) -> IListeningPort:
        """A socket that somebody else has opened."""
        opened = _Opened([socket.socket(fileno=os.dup(number))])
        self._sockets.append(opened.sockets)
        return opened

    def _opened(self, port: int, backlog: int, interface: str, *, only_ipv6: bool = False) -> IListeningPort:
        try:
            sockets = _open(port, interface, self._workers, only_ipv6=only_ipv6)
        except OSError as fault:
            raise CannotListenError(interface, port, fault) from None
        for each in sockets:
            each.listen(backlog)
        opened = _Opened(sockets)
        self._sockets.append(sockets)
        opened.on_close = lambda: self._sockets.remove(sockets)
        return opened


def _open(port: int, interface: str, count: int, *, only_ipv6: bool) -> list[socket.socket]:
    """So many sockets that are bound to one port. Raises OSError."""
    family = socket.AF_INET6 if isIPv6Address(interface) else socket.AF_INET
    address: Any = (interface, port)
    if family == socket.AF_INET6:
        address = socket.getaddrinfo(interface, port, family, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)[0][4]
    sockets: list[socket.socket] = []
    try:
        for at in range(count):
            each = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(each)
            each.setblocking(False)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if only_ipv6:
                each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if at:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            each.bind(address)
            if not at:  # nobody else has it; from now on it can be shared
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                address = each.getsockname()
    except OSError:
        for each in sockets:
            each.close()
        raise
    return sockets


@implementer(IListeningPort)
class _Opened:
    """Sockets that are open, and from which nobody here accepts."""

    def __init__(self, sockets: list[socket.socket]) -> None:
        self.sockets = sockets
        self.on_close: Any = lambda: None

    @property
    def ports(self) -> list[_Socket]:
        return [_Socket(each) for each in self.sockets]

    def getHost(self) -> IAddress:
        return _address(self.sockets[0])

    def startListening(self) -> None:
        """They listen already: they were opened so."""

    def stopListening(self) -> Deferred[None]:
        self.on_close()
        for each in self.sockets:
            each.close()
        return succeed(None)


class _Socket:
    """What `Listener` sets the options of."""

    def __init__(self, opened: socket.socket) -> None:
        self.socket = opened


class _OpenedEverywhere(EveryAddress):
    def _listen_ipv6(self, port: IListeningPort, factory: IProtocolFactory) -> IListeningPort | None:
        number = getattr(port.getHost(), "port", self._number)
        try:
            other: IListeningPort = self._reactor.listen_ipv6_only(number, self._backlog)
        except CannotListenError as fault:
            if getattr(fault.socketError, "errno", None) in NO_IPV6:
                return None
            raise OSError(getattr(fault.socketError, "errno", errno.EINVAL), str(fault.socketError)) from None
        return other


def _address(opened: socket.socket) -> IAddress:
    name: Any = opened.getsockname()
    if opened.family == socket.AF_UNIX:
        return UNIXAddress(name)
    kind = IPv6Address if opened.family == socket.AF_INET6 else IPv4Address
    return kind("TCP", *name[:2])


@implementer(IStreamServerEndpoint)
class Inherited:
    """The sockets of a worker's parent, as an endpoint that accepts from those it is told. `queues`: the sockets of
    each, as (file, address family).
    """

    def __init__(self, reactor: Any, queues: Iterable[Iterable[tuple[int, int]]]) -> None:
        self._reactor = reactor
        self._sockets = [
            [socket.socket(family, socket.SOCK_STREAM, 0, number) for number, family in each] for each in queues
        ]
        for each in self._all():
            each.setblocking(False)
            os.set_inheritable(each.fileno(), False)
        self._factory: IProtocolFactory | None = None
        self._ports: dict[int, list[Any]] = {}

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """`factory`: of the protocols for those who arrive, once `accept` has been called."""
        self._factory = factory
        factory.doStart()
        return succeed(_Accepting(self))

    def accept(self, queues: Collection[int]) -> None:
        """Accept from these, and from no others."""
        if self._factory is None:
            return
        for at in [at for at in self._ports if at not in queues]:
            for port in self._ports.pop(at):
                port.stopListening()
        for at in queues:
            if at not in self._ports and at < len(self._sockets):
                self._ports[at] = [self._adopt(each) for each in self._sockets[at]]

    def close(self) -> Deferred[None]:
        """Accept nobody any more, and hold no socket."""
        stopped = [maybeDeferred(port.stopListening) for ports in self._ports.values() for port in ports]
        self._ports.clear()
        for each in self._all():
            each.close()
        self._sockets = []
        factory, self._factory = self._factory, None
        if factory is not None:
            factory.doStop()
        return gatherResults(stopped).addCallback(lambda _: None)

    @property
    def address(self) -> IAddress:
        return _address(self._sockets[0][0])

    def _adopt(self, opened: socket.socket) -> Any:
        if opened.family != socket.AF_UNIX:
            port = self._reactor.adoptStreamPort(opened.fileno(), opened.family, self._factory)
        else:
            port = _UnixPort._fromListeningDescriptor(self._reactor, opened.fileno(), self._factory)
            port.startListening()
        encrypted(port, self._factory)
        if len(self._sockets) > 1:
            quicken(port)
            return port
        quicken(port, 1)
        return _one_at_a_time(port)

    def _all(self) -> list[socket.socket]:
        return [each for queue in self._sockets for each in queue]


@implementer(IListeningPort)
class _Accepting:
    """All ports of a worker."""

    ports = ()

    def __init__(self, inherited: Inherited) -> None:
        self._inherited = inherited
        self._host = inherited.address

    def getHost(self) -> IAddress:
        return self._host

    def startListening(self) -> None:
        """Nothing is accepted before `Inherited.accept` says from which sockets."""

    def stopListening(self) -> Deferred[None]:
        return self._inherited.close()


def _one_at_a_time(port: Any) -> Any:
    """One connection in each turn of the reactor, or the first worker would take all that come at the same time."""
    read = port.doRead

    def read_one() -> Any:
        port.numberAccepts = 1
        return read()

    port.doRead = read_one
    return port


_AnyPort: Any = unix.Port


class _UnixPort(_AnyPort):  # type: ignore[misc]
    """A Unix socket that is another process's. Twisted's would take its file away, and let everybody write to it."""

    def startListening(self) -> None:
        self.factory.doStart()
        opened: Any = vars(self)["_preexistingSocket"]
        self.socket, self._preexistingSocket = opened, None
        self.fileno = self.socket.fileno
        self.connected = True
        self.numberAccepts = 1
        self._shouldShutdown = False  # nobody else could accept any more
        self.startReading()

    def connectionLost(self, reason: Any) -> None:
        self._bindPath = b"\0"  # what is not in the file system is not removed from it
        super().connectionLost(reason)
