"""Accepted connections, with TLS and without: how they are accepted and read, what ends them, and what they leave."""

from __future__ import annotations

import errno
import gc
import select
import socket
import ssl
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from twisted.internet import tcp
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

import marketfeed.runtime.acceptor as module
from marketfeed.runtime import connections
from marketfeed.runtime.acceptor import MOST_ACCEPTED, quicken
from marketfeed.runtime.connections import Readers
from marketfeed.runtime.tcp_connections import TcpConnection
from marketfeed.runtime.tls_connections import TlsConnection
from marketfeed.runtime.tls_factory import TlsFactory, encrypted
from tests.certificates import Authority
from tests.conftest import LogCapture
from tests.guard import DEADLINE
from tests.tls_port import SocketReactor

pytestmark = pytest.mark.skipif(not hasattr(select, "epoll"), reason="this system has no epoll")

_STEP_MS = 20
AUTHORITY = Authority()


def context(directory: Path) -> ssl.SSLContext:
    """A server's."""
    AUTHORITY.issue("localhost").write(directory)
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(directory / "server.pem", directory / "server.key")
    return made


class Guest(Protocol):
    lost: Failure | None = None

    def __init__(self) -> None:
        self.received = b""
        self.on_data: Callable[[], object] = lambda: None

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self.on_data()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason
        self.transport = None


class Guests(Factory):
    noisy = False
    refuses = False

    def __init__(self) -> None:
        self.guests: list[Guest] = []
        self.addresses: list[IAddress] = []

    def buildProtocol(self, addr: IAddress) -> Guest | None:
        self.addresses.append(addr)
        if self.refuses:
            return None
        self.guests.append(Guest())
        return self.guests[-1]


class Port:
    """A port of Twisted's, with connections as these, and those who connect to it. `tls`: by what each is encrypted."""

    def __init__(
        self, interface: str = "127.0.0.1", most: int = MOST_ACCEPTED, tls: Callable[[], ssl.SSLContext] | None = None
    ) -> None:
        self.reactor = SocketReactor()
        self.factory = Guests()
        factory = self.factory if tls is None else TlsFactory(self.reactor, tls, self.factory)
        self.port: Any = tcp.Port(0, factory, interface=interface, reactor=self.reactor)
        self.port.startListening()
        quicken(encrypted(self.port, factory), most)
        self.clients: list[socket.socket] = []

    @property
    def guests(self) -> list[Guest]:
        return self.factory.guests

    def connect(self) -> socket.socket:
        """One more, who is not accepted yet."""
        client = socket.create_connection(self.port.socket.getsockname()[:2], DEADLINE)
        self.clients.append(client)
        return client

    def guest(self) -> tuple[socket.socket, Guest]:
        """One more, both sides."""
        count, client = len(self.guests), self.connect()
        self.until(lambda: len(self.guests) > count)
        return client, self.guests[-1]

    def until(self, condition: Callable[[], object]) -> None:
        """Let the reactor turn until it is so."""
        for _ in range(int(DEADLINE * 1000 / _STEP_MS)):
            if condition():
                return
            self.reactor.turn(_STEP_MS)
        raise AssertionError("it has not come to that")

    def close(self) -> None:
        for each in self.clients:
            each.close()
        for guest in self.guests:
            if guest.transport is not None:
                guest.transport.abortConnection()  # type: ignore[attr-defined]
        self.reactor.advance(0)
        self.port.connectionLost(connectionDone)
        assert not self.reactor.readers
        assert not self.reactor.writers


@pytest.fixture
def port() -> Iterator[Port]:
    port = Port()
    yield port
    port.close()


class TestAccepting:
    def test_many_in_a_turn(self, port: Port) -> None:
        """But no more than so many: others are served in between."""
        quicken(port.port, 3)
        for _ in range(5):
            port.connect()
        port.port.doRead()
        assert len(port.guests) == 3
        port.port.doRead()
        assert len(port.guests) == 5
        port.port.doRead()
        assert len(port.guests) == 5

    def test_who_they_are(self, port: Port) -> None:
        client, guest = port.guest()
        peer = IPv4Address("TCP", *client.getsockname())
        assert port.factory.addresses == [peer]
        transport: Any = guest.transport
        assert type(transport) is TcpConnection
        assert transport.getPeer() == peer
        assert transport.getHost() == port.port.getHost()

    def test_who_they_are_with_ipv6(self) -> None:
        """Without a scope, for the loopback address has none."""
        try:
            port = Port("::1")
        except Exception:
            pytest.skip("there is no IPv6 here")
        client, guest = port.guest()
        transport: Any = guest.transport
        assert transport.getPeer() == IPv6Address("TCP", "::1", client.getsockname()[1], 0, 0)
        assert port.factory.addresses == [transport.getPeer()]
        port.close()

    def test_a_scope_is_part_of_the_host(self) -> None:
        number, name = socket.if_nameindex()[0]
        assert module._with_scope(("fe80::1", 80, 0, number)) == f"fe80::1%{name}"
        assert module._with_scope(("2001:db8::1", 80, 0, 0)) == "2001:db8::1"

    def test_nothing_is_delayed(self, port: Port) -> None:
        """As soon as they are there, whether or not anybody asks for it."""
        _, guest = port.guest()
        transport: Any = guest.transport
        assert transport.getTcpNoDelay()
        transport.setTcpNoDelay(True)
        assert transport.getTcpNoDelay()
        transport.setTcpNoDelay(False)
        assert not transport.getTcpNoDelay()

    def test_who_is_not_wanted(self, port: Port) -> None:
        port.factory.refuses = True
        client = port.connect()
        port.until(lambda: port.factory.addresses)
        assert client.recv(1) == b""

    def test_a_fault_of_the_factory_is_told(
        self, port: Port, monkeypatch: pytest.MonkeyPatch, logged: LogCapture
    ) -> None:
        """And the next one is accepted."""
        monkeypatch.setattr(port.factory, "buildProtocol", lambda _: 1 / 0)
        client = port.connect()
        port.until(logged.failures)
        assert client.recv(1) == b""
        assert logged.flush_failures(ZeroDivisionError)
        monkeypatch.undo()
        port.guest()

    def test_a_fault_at_the_beginning_is_the_end_of_one(
        self, port: Port, monkeypatch: pytest.MonkeyPatch, logged: LogCapture
    ) -> None:
        monkeypatch.setattr(Guest, "connectionMade", lambda _: 1 / 0)
        client, guest = port.guest()
        port.until(lambda: guest.lost)
        assert logged.flush_failures(ZeroDivisionError)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        monkeypatch.undo()
        client, guest = port.guest()
        client.sendall(b"x")
        port.until(lambda: guest.received)

    def test_what_cannot_be_accepted_is_for_twisted(self, port: Port, logged: LogCapture) -> None:
        """Here there are no descriptors left; it closes the connection, with one that it has kept for that."""

        class Exhausted:
            """The socket, where nobody can be accepted twice."""

            def __init__(self, real: socket.socket) -> None:
                self.real = real
                self.left = 2

            def accept(self) -> Any:
                self.left -= 1
                if self.left >= 0:
                    raise OSError(errno.EMFILE, "too many open files")
                return self.real.accept()

        client = port.connect()
        real, port.port.socket = port.port.socket, Exhausted(port.port.socket)
        port.port.doRead()
        port.port.doRead()
        port.port.socket = real
        assert client.recv(1) == b""
        assert not port.guests
        assert any("EMFILE" in line for line in logged.formats())

    def test_other_ports_stay_as_they_are(self) -> None:
        """Those too that have transports of their own."""
        port: Any = tcp.Port(0, Guests(), reactor=SocketReactor())
        port.transport = object()
        quicken(port)
        assert "doRead" not in vars(port)
        quicken(object())

    def test_with_tls_it_is_as_without(self, tmp_path: Path) -> None:
        """Many in a turn, and one to the reactor."""
        made = context(tmp_path)
        port = Port(most=2, tls=lambda: made)
        clients = [port.connect() for _ in range(3)]
        port.port.doRead()
        assert len(port.guests) == 2
        port.port.doRead()
        assert len(port.guests) == 3
        assert len(port.reactor.readers) == 2  # the port, and all connections
        transport: Any = port.guests[0].transport
        assert type(transport) is TlsConnection
        assert transport.getPeer() == IPv4Address("TCP", *clients[0].getsockname())
        assert transport.getTcpNoDelay()
        for client in clients:
            client.close()
        port.until(lambda: all(guest.lost for guest in port.guests))
        port.close()

    def test_one_that_cannot_be_with_tls_is_closed(self, tmp_path: Path, logged: LogCapture) -> None:
        """It is told, and the next is accepted."""
        contexts = [context(tmp_path), cast(ssl.SSLContext, object())]
        port = Port(tls=contexts.pop)
        clients = [port.connect() for _ in range(2)]
        port.port.doRead()
        assert logged.flush_failures(AttributeError)
        assert clients[0].recv(1) == b""
        assert [type(guest.transport) for guest in port.guests] == [type(None), TlsConnection]
        clients[1].close()
        port.until(lambda: port.guests[1].lost)
        port.close()


class TestReading:
    def test_what_comes(self, port: Port) -> None:
        client, guest = port.guest()
        client.sendall(b"one")
        port.until(lambda: guest.received == b"one")
        other, second = port.guest()
        other.sendall(b"two")
        client.sendall(b"three")
        port.until(lambda: second.received == b"two")
        port.until(lambda: guest.received == b"onethree")

    def test_all_are_one_to_the_reactor(self, port: Port) -> None:
        """While there are any that are to be read."""
        assert len(port.reactor.readers) == 1  # the port
        guests = [port.guest()[1] for _ in range(3)]
        assert len(port.reactor.readers) == 2
        for guest in guests:
            transport: Any = guest.transport
            transport.pauseProducing()
            transport.pauseProducing()
        assert len(port.reactor.readers) == 1
        transport.resumeProducing()
        transport.resumeProducing()
        assert len(port.reactor.readers) == 2

    def test_a_pause(self, port: Port) -> None:
        client, guest = port.guest()
        transport: Any = guest.transport
        transport.pauseProducing()
        client.sendall(b"later")
        other, second = port.guest()
        other.sendall(b"now")
        port.until(lambda: second.received)
        assert not guest.received
        transport.resumeProducing()
        port.until(lambda: guest.received == b"later")

    def test_a_fault_is_the_end_of_one(self, port: Port, logged: LogCapture) -> None:
        client, guest = port.guest()
        other, second = port.guest()
        guest.on_data = lambda: 1 / 0
        client.sendall(b"x")
        other.sendall(b"y")
        port.until(lambda: guest.lost and second.received)
        assert guest.lost is not None
        assert guest.lost.check(ZeroDivisionError)
        assert second.lost is None
        assert logged.flush_failures(ZeroDivisionError)

    def test_one_may_end_another_of_whom_something_has_come(self, port: Port) -> None:
        """It is not read any more."""
        pairs = [port.guest() for _ in range(2)]
        first, second = (guest for _, guest in pairs)
        first.on_data = second.transport.abortConnection  # type: ignore[union-attr]
        second.on_data = first.transport.abortConnection  # type: ignore[union-attr]
        for client, _ in pairs:
            client.sendall(b"x")
        readers = next(each for each in port.reactor.readers if isinstance(each, Readers))
        port.until(lambda: len(readers._epoll.poll(0)) == 2)
        port.until(lambda: first.received or second.received)
        port.until(lambda: first.lost or second.lost)
        assert sorted([first.received, second.received]) == [b"", b"x"]

    def test_a_turn_ends(self, port: Port) -> None:
        """However many have come: those who had none of it are the first of the next."""
        count, at_once = 40, connections._AT_ONCE
        pairs = [port.guest() for _ in range(count)]
        readers = next(each for each in port.reactor.readers if isinstance(each, Readers))
        for client, guest in pairs:
            guest.on_data = lambda: port.reactor.advance(connections._LONGEST_TURN / (at_once + 1))
            client.sendall(b"x")
        port.until(lambda: len(readers._epoll.poll(0)) == count)
        turns: list[int] = []
        while len(turns) < 3:
            readers.doRead()
            turns.append(sum(len(guest.received) for _, guest in pairs))
            for client, guest in pairs:
                if guest.received and len(guest.received) < len(turns) + 1:
                    client.sendall(b"y")  # who has been read wants to be read again
        assert turns[0] == 2 * at_once
        assert all(guest.received for _, guest in pairs)

    def test_the_end_of_the_reactor(self, port: Port) -> None:
        """All are told, as if each were one of its own."""
        guests = [port.guest()[1] for _ in range(2)]
        readers = next(each for each in port.reactor.readers if isinstance(each, Readers))
        assert readers.logPrefix()
        readers.connectionLost(Failure(ConnectionLost()))
        assert all(guest.lost is not None and guest.lost.check(ConnectionLost) for guest in guests)


class TestEnd:
    def test_the_peer_goes(self, port: Port) -> None:
        client, guest = port.guest()
        client.sendall(b"good bye")
        client.close()
        port.until(lambda: guest.lost)
        assert guest.received == b"good bye"
        assert guest.lost is not None
        assert guest.lost.check(ConnectionDone)

    def test_the_peer_resets(self, port: Port) -> None:
        client, guest = port.guest()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        port.until(lambda: guest.lost)
        assert guest.lost is not None
        assert guest.lost.check(ConnectionLost, ConnectionDone)

    def test_what_is_written_is_sent_before_the_end(self, port: Port) -> None:
        """However much it is; nothing that comes is read in the meantime."""
        client, guest = port.guest()
        data = bytes(range(256)) * 40_000
        transport: Any = guest.transport
        transport.write(data)
        transport.loseConnection()
        client.sendall(b"too late")
        client.setblocking(False)
        got = bytearray()

        def take() -> bool:
            try:
                while piece := client.recv(1 << 20):
                    got.extend(piece)
            except BlockingIOError:
                return False
            except ConnectionResetError:  # what came too late was not read
                return True
            return True

        port.until(take)
        port.until(lambda: guest.lost)
        assert got == data
        assert not guest.received

    def test_an_abort_resets(self, port: Port) -> None:
        client, guest = port.guest()
        transport: Any = guest.transport
        transport.abortConnection()
        port.until(lambda: guest.lost)
        assert guest.lost is not None
        assert guest.lost.check(ConnectionAborted)
        with pytest.raises(ConnectionResetError):
            client.recv(1)

    @pytest.mark.parametrize("end", ["peer", "own", "abort"])
    def test_nothing_is_left(self, end: str, port: Port) -> None:
        """Not even to be collected."""
        client, guest = port.guest()
        transport: Any = guest.transport
        gone = weakref.ref(transport)
        gc.disable()
        try:
            if end == "peer":
                client.close()
            elif end == "own":
                transport.loseConnection()
            else:
                transport.abortConnection()
            del transport
            port.until(lambda: guest.lost)
            assert gone() is None
        finally:
            gc.enable()
