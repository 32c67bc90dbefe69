"""The port of the clients: where it listens, what is said when it cannot."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted  # type: ignore[import-untyped]
from twisted.internet import reactor as global_reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
    UNIXServerEndpoint,
    connectProtocol,
)
from twisted.internet.error import CannotListenError, ConnectError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamClientEndpoint, IStreamServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactor, MemoryReactorClock
from zope.interface import implementer

from marketfeed.runtime.every_address import EveryAddress
from marketfeed.runtime.listener import CannotServe, Listener, server_endpoint
from marketfeed.runtime.tls_factory import TlsFactory
from tests.certificates import Authority
from tests.system.harness import RawConnection

LONGEST = 98 - len("OSError: ")  # of what a daemon's parent can show, see twistd's _formatChildException


class Greeter(Protocol):
    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"hello")
        self.transport.loseConnection()


class QuietFactory(Factory):
    noisy = False
    protocol = Greeter


@implementer(IListeningPort)
class FakePort:
    def __init__(self) -> None:
        self.stopped: Deferred[None] = Deferred()

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 8080)

    def startListening(self) -> None: ...
    def stopListening(self) -> Deferred[None]:
        return self.stopped


@implementer(IStreamServerEndpoint)
class FakeEndpoint:
    """An endpoint that listens on a port, or cannot."""

    def __init__(self, result: IListeningPort | Exception) -> None:
        self.result = result

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        return fail(self.result) if isinstance(self.result, Exception) else succeed(self.result)


def fault(result: Exception, description: str = "8080") -> str:
    with pytest.raises(CannotServe) as caught:
        Listener(FakeEndpoint(result), QuietFactory(), description).privilegedStartService()
    return str(caught.value)


class TestEndpoint:
    def test_a_number_is_all_addresses(self) -> None:
        """And many connections may wait to be accepted."""
        reactor: Any = MemoryReactor()
        endpoint = server_endpoint(reactor, "8080")
        assert isinstance(endpoint, EveryAddress)
        assert (endpoint._number, endpoint._backlog, endpoint._ipv4, endpoint._ipv6) == (8080, 4096, "", "::")

    @pytest.mark.parametrize(
        ("description", "kind"),
        [("tcp:8080:interface=127.0.0.1", TCP4ServerEndpoint), ("unix:/run/marketfeed", UNIXServerEndpoint)],
    )
    def test_anything_else_is_a_description(self, description: str, kind: type) -> None:
        """Of Twisted's."""
        assert isinstance(server_endpoint(MemoryReactor(), description), kind)

    @pytest.mark.parametrize(
        ("description", "says"),
        [
            ("nonsense:", "ValueError: Unknown endpoint type: 'nonsense'"),
            ("tcp:many", "ValueError: "),
            ("tcp", "TypeError: "),
            ("ssl:8443:privateKey=/nonexistent.pem", "privateKey: /nonexistent.pem: No such file"),
            ("systemd:domain=INET:index=0", "systemd: it has opened no such socket"),
            ("systemd:domain=INET:name=clients", "systemd: it has opened no such socket"),
            ("systemd:domain=INET", "ValueError: Specify exactly one"),
        ],
    )
    def test_a_description_that_cannot_be_read(self, description: str, says: str) -> None:
        """Is a ValueError, whatever Twisted makes of it."""
        with pytest.raises(ValueError, match=r".+: ") as caught:
            server_endpoint(MemoryReactorClock(), description)
        assert says in str(caught.value)

    @pytest.mark.parametrize("behind", ["", "haproxy:"])
    def test_tls(self, behind: str, tmp_path: Path) -> None:
        """Is described in Twisted's words, and made by `runtime.tls`, with the PROXY protocol before it, too."""
        certificate, key = Authority().issue("localhost").write(tmp_path)
        reactor: Any = MemoryReactorClock()
        server_endpoint(reactor, f"{behind}ssl:8443:privateKey={key}:certKey={certificate}").listen(QuietFactory())
        ((port, factory, _, _),) = reactor.tcpServers
        assert port == 8443
        assert isinstance(factory, TlsFactory)


class TestFaults:
    def test_a_port_that_is_taken(self) -> None:
        """The line says what to do; with the hint for `make run` where it applies."""
        taken = CannotListenError("", 8080, OSError(errno.EADDRINUSE, "Address already in use"))
        assert fault(taken) == "port 8080 is taken; try another, as --port 8090 (make run PORT=8090)"
        assert (
            fault(taken, "tcp:8080:interface=::1")
            == "port tcp:8080:interface=::1 is taken; try another, as --port 8090"
        )

    def test_a_description_that_is_long(self) -> None:
        """Is cut, so that what is wrong with it is seen all the same."""
        taken = CannotListenError("", 8443, OSError(errno.EADDRINUSE, "Address already in use"))
        text = fault(taken, "ssl:8443:privateKey=/etc/marketfeed/server.key:certKey=/etc/marketfeed/server.pem")
        assert text == "port ssl:8443:privateKey=/etc/marketfeed… is taken; try another, as --port 8090"
        assert len(text) <= LONGEST

    def test_a_port_that_needs_rights(self) -> None:
        """A user may have those from 1024 up."""
        denied = CannotListenError("", 80, OSError(errno.EACCES, "Permission denied"))
        assert fault(denied, "80") == "port 80 needs more rights; try one from 1024 up"

    @pytest.mark.parametrize(
        ("cause", "says"),
        [
            (CannotListenError("", 1, OSError(errno.EADDRNOTAVAIL, "Cannot assign it")), "Cannot assign it"),
            (CannotListenError(None, "/run/x", "Cannot acquire lock"), "Cannot acquire lock"),
            (ZeroDivisionError("by nothing"), "by nothing"),
        ],
        ids=["address", "lock", "anything"],
    )
    def test_anything_else(self, cause: Exception, says: str) -> None:
        """Is told as it is, cut short."""
        text = fault(cause, "unix:/run/x")
        assert text.startswith(f"cannot listen on unix:/run/x: {says}")
        assert "\n" not in text
        assert len(fault(cause, "unix:" + "x" * 100)) <= LONGEST

    def test_the_usual_ones_are_short_enough_to_be_shown(self) -> None:
        """When the daemon goes to the background."""
        for number in (errno.EADDRINUSE, errno.EACCES):
            cause = CannotListenError("", 1, OSError(number, ""))
            assert len(fault(cause, "18080")) <= LONGEST
            assert len(fault(cause, "tcp:18080:interface=127.0.0.1")) <= LONGEST


class TestLife:
    async def _greeting(self, make: Callable[[Any], IStreamClientEndpoint]) -> bytes:
        greeted = RawConnection(global_reactor)
        await connectProtocol(make(global_reactor), greeted)
        return await greeted.lost

    @pytest_twisted.ensureDeferred
    async def test_it_listens_from_the_privileged_start_to_the_stop(self) -> None:
        """And says where."""
        endpoint = server_endpoint(global_reactor, "tcp:0:interface=127.0.0.1")
        listener = Listener(endpoint, QuietFactory(), "tcp:0")
        assert listener.port_number is None
        assert listener.stopService() is None
        listener.privilegedStartService()
        listener.startService()
        number = listener.port_number
        assert isinstance(number, int)
        assert listener.address == f"port {number}"
        assert await self._greeting(lambda reactor: TCP4ClientEndpoint(reactor, "127.0.0.1", number)) == b"hello"
        other = Listener(server_endpoint(global_reactor, f"tcp:{number}:interface=127.0.0.1"), QuietFactory(), "1")
        with pytest.raises(CannotServe, match="taken"):
            other.privilegedStartService()
        stopped = listener.stopService()
        assert stopped is not None
        await stopped
        assert listener.port_number is None

    @pytest_twisted.ensureDeferred
    async def test_a_unix_socket(self, tmp_path: Path) -> None:
        """Has a path for an address, and no number; a second listener cannot have it."""
        path = str(tmp_path / "socket")
        listener = Listener(server_endpoint(global_reactor, f"unix:{path}"), QuietFactory(), f"unix:{path}")
        listener.privilegedStartService()
        assert listener.address == path
        assert listener.port_number is None
        assert await self._greeting(lambda reactor: UNIXClientEndpoint(reactor, path)) == b"hello"
        other = Listener(server_endpoint(global_reactor, f"unix:{path}"), QuietFactory(), "unix:x")
        with pytest.raises(CannotServe, match="cannot listen on unix:x: Cannot acquire lock"):
            other.privilegedStartService()
        await listener.stopService()
        assert not os.listdir(tmp_path)

    def test_stopping_waits_for_the_port(self) -> None:
        """What it returns is the port's."""
        port = FakePort()
        listener = Listener(FakeEndpoint(port), QuietFactory(), "8080")
        listener.privilegedStartService()
        assert listener.stopService() is port.stopped


class Sockets(Factory):
    """Keeps how much each connection may leave unsent in the kernel."""

    noisy = False

    def __init__(self) -> None:
        self.unsent: list[int] = []

    def buildProtocol(self, addr: object) -> Protocol:
        protocol = Greeter()
        made = protocol.connectionMade

        def connected() -> None:
            transport: Any = protocol.transport
            self.unsent.append(transport.getHandle().getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT))
            made()

        protocol.connectionMade = connected  # type: ignore[method-assign]
        return protocol


@pytest_twisted.ensureDeferred
async def test_the_kernel_takes_little_for_who_does_not_read() -> None:
    """What it takes is past thinning out; each connection inherits the limit, over IPv6 too."""
    factory = Sockets()
    listener = Listener(server_endpoint(global_reactor, "0"), factory, "0")
    listener.privilegedStartService()
    number = listener.port_number
    assert number is not None
    for endpoint in (TCP4ClientEndpoint, TCP6ClientEndpoint):
        address = "127.0.0.1" if endpoint is TCP4ClientEndpoint else "::1"
        try:
            client = await connectProtocol(endpoint(global_reactor, address, number), RawConnection(global_reactor))
        except ConnectError:  # no IPv6 here
            continue
        assert await client.lost == b"hello"
    stopped = listener.stopService()
    if stopped is not None:
        await stopped
    assert factory.unsent
    assert set(factory.unsent) == {1048576}
