"""A port on all addresses, here those of the loopback: a socket for each family, one number for both."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest
import pytest_twisted  # type: ignore[import-untyped]
from twisted.internet import reactor as global_reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, connectProtocol
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from marketfeed.runtime.every_address import EveryAddress
from tests.system.harness import RawConnection

LOOPBACK = ("127.0.0.1", "::1")


class Greeter(Protocol):
    def connectionMade(self) -> None:
        """Say from where the client comes."""
        assert self.transport is not None
        self.transport.write(self.transport.getPeer().host.encode())
        self.transport.loseConnection()


class Greeters(Factory):
    noisy = False
    protocol = Greeter


class Reactor:
    """The real one, where IPv6 fails as the test says. It keeps what listens."""

    def __init__(self, *faults: int) -> None:
        self.faults = list(faults)
        self.ports: list[Any] = []

    def listenTCP(self, number: int, factory: IProtocolFactory, backlog: int, interface: str) -> IListeningPort:
        port = global_reactor.listenTCP(number, factory, backlog, interface)  # type: ignore[attr-defined]
        self.ports.append(port)
        return port  # type: ignore[no-any-return]

    def adoptStreamPort(self, fd: int, family: int, factory: IProtocolFactory) -> IListeningPort:
        if self.faults:
            raise OSError(self.faults.pop(0), "no")
        port = global_reactor.adoptStreamPort(fd, family, factory)  # type: ignore[attr-defined]
        self.ports.append(port)
        return port  # type: ignore[no-any-return]

    @property
    def listening(self) -> list[Any]:
        return [port for port in self.ports if port.connected and not port.disconnecting]


def listen(reactor: Any, number: int = 0) -> IListeningPort | Failure:
    results: list[Any] = []
    EveryAddress(reactor, number, 5, LOOPBACK).listen(Greeters()).addBoth(results.append)
    return results[0]  # type: ignore[no-any-return]


async def _settled(reactor: Reactor) -> None:
    """All that was told to stop listening has, which takes a turn."""
    await deferLater(global_reactor, 0)  # type: ignore[arg-type]
    assert not any(port.connected for port in reactor.ports)


@pytest_twisted.ensureDeferred
async def test_clients_of_both_families_come_to_one_number() -> None:
    """Each with an address of its own family, and none once it has stopped."""
    reactor = Reactor()
    port = listen(reactor)
    assert not isinstance(port, Failure)
    number: int = port.getHost().port  # type: ignore[attr-defined]
    said = []
    for endpoint, host in ((TCP4ClientEndpoint, "127.0.0.1"), (TCP6ClientEndpoint, "::1")):
        greeted = RawConnection(global_reactor)
        await connectProtocol(endpoint(global_reactor, host, number), greeted)
        said.append(await greeted.lost)
    assert said == [b"127.0.0.1", b"::1"]
    stopped = port.stopListening()
    assert stopped is not None
    await stopped
    assert len(reactor.ports) == 2
    assert not reactor.listening


@pytest_twisted.ensureDeferred
async def test_it_can_go_on_after_a_stop() -> None:
    """As any port of Twisted's can."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    reactor = Reactor(errno.EAFNOSUPPORT)
    port = listen(reactor, number)
    assert not isinstance(port, Failure)
    await port.stopListening()  # type: ignore[misc]
    port.startListening()
    assert len(reactor.listening) == 1
    await port.stopListening()  # type: ignore[misc]


@pytest.mark.parametrize("fault", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
@pytest_twisted.ensureDeferred
async def test_a_host_without_ipv6_has_the_other(fault: int) -> None:
    """The kernel may have none, or only in name."""
    reactor = Reactor(fault)
    port = listen(reactor)
    assert not isinstance(port, Failure)
    assert reactor.listening == [port]
    await port.stopListening()  # type: ignore[misc]


@pytest_twisted.ensureDeferred
async def test_a_number_that_is_taken_is_had_on_neither() -> None:
    """Whichever family it is taken on."""
    with socket.socket(socket.AF_INET6) as other:
        other.bind(("::1", 0))
        other.listen()
        number = other.getsockname()[1]
        reactor = Reactor()
        failure = listen(reactor, number)
        assert isinstance(failure, Failure)
        assert isinstance(failure.value, OSError)
        assert failure.value.errno == errno.EADDRINUSE
        assert not reactor.listening
        await _settled(reactor)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        failure = listen(Reactor(), other.getsockname()[1])
        assert isinstance(failure, Failure)
        assert isinstance(failure.value, CannotListenError)


@pytest_twisted.ensureDeferred
async def test_any_free_number_is_free_for_both() -> None:
    """One that is free for IPv4 only is given back, and another tried, for some time."""
    reactor = Reactor(errno.EADDRINUSE, errno.EADDRINUSE)
    port = listen(reactor)
    assert not isinstance(port, Failure)
    assert len(reactor.listening) == 2
    await port.stopListening()  # type: ignore[misc]
    await _settled(reactor)
    reactor = Reactor(*[errno.EADDRINUSE] * 10)
    failure = listen(reactor)
    assert isinstance(failure, Failure)
    assert not reactor.faults
    assert not reactor.listening
    await _settled(reactor)


@pytest_twisted.ensureDeferred
async def test_any_other_fault_is_told_at_once() -> None:
    """It is not a matter of the number."""
    reactor = Reactor(errno.EMFILE, errno.EMFILE)
    failure = listen(reactor)
    assert isinstance(failure, Failure)
    assert reactor.faults == [errno.EMFILE]
    assert not reactor.listening
    await _settled(reactor)
