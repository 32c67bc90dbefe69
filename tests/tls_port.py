"""A port with TLS over real sockets, without a reactor that runs: its time and its turns are the test's.

Nothing here depends on how fast the kernel is: what is awaited is awaited until it is there.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.main import CONNECTION_LOST
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from marketfeed.runtime.connections import Readers
from marketfeed.runtime.listener import server_endpoint
from marketfeed.runtime.tls_connections import TlsConnection
from tests.guard import DEADLINE

__all__ = ["SocketReactor", "TlsClient", "TlsPort"]

_STEP_MS = 20
_Result = TypeVar("_Result")


class SocketReactor(Clock):
    """A reactor that looks at its sockets when `turn` is called, and whose time stands still otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[Any] = set()
        self.writers: set[Any] = set()
        self.listening: list[tuple[int, Any, int, str]] = []
        self.port: Any = None
        self.turns = 0
        """Descriptors that were found to be ready."""

    def listenTCP(self, port: int, factory: object, backlog: int = 50, interface: str = "") -> Any:
        self.listening.append((port, factory, backlog, interface))
        self.port = type("Port", (), {"transport": None})()
        return self.port

    def addReader(self, reader: Any) -> None:
        self.readers.add(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.discard(reader)

    def addWriter(self, writer: Any) -> None:
        self.writers.add(writer)

    def removeWriter(self, writer: Any) -> None:
        self.writers.discard(writer)

    def turn(self, wait_ms: int = 0) -> None:
        """Read from and write to what is ready, as Twisted's epoll reactor does."""
        poll = select.poll()
        ready = {each.fileno(): each for each in self.readers | self.writers}
        for number, each in ready.items():
            poll.register(
                number, (select.POLLIN if each in self.readers else 0) | (select.POLLOUT if each in self.writers else 0)
            )
        for number, event in poll.poll(wait_ms):
            self.turns += 1
            self._serve(ready[number], event)
        self.advance(0)

    def _serve(self, each: Any, event: int) -> None:
        why = None
        if event & (select.POLLHUP | select.POLLERR) and not event & select.POLLIN:
            why = CONNECTION_LOST
        if not why and event & select.POLLIN and each in self.readers:
            why = each.doRead()
        if not why and event & select.POLLOUT and each in self.writers:
            why = each.doWrite()
        if why:
            each.connectionLost(Failure(why))


class TlsPort:
    """What listens where a description says, with `factory` inside."""

    def __init__(self, description: str, factory: IProtocolFactory) -> None:
        self.reactor = SocketReactor()
        server_endpoint(self.reactor, description).listen(factory)
        ((self.number, self.factory, self.backlog, self.interface),) = self.reactor.listening
        self.readers = Readers(self.reactor)
        self._sockets: list[socket.socket] = []

    def accept(self) -> tuple[Any, TlsConnection, socket.socket]:
        """A new connection: the protocol and the transport here, and the client's socket."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            client = socket.create_connection(listening.getsockname())
            skt, address = listening.accept()
        client.setblocking(False)
        skt.setblocking(False)
        self._sockets.append(client)
        protocol = self.factory.buildProtocol(IPv4Address("TCP", *address))
        transport = self.factory.connection(skt, protocol, address, self.reactor, self.readers)
        protocol.makeConnection(transport)
        return protocol, transport, client

    def connect(self, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> TlsClient:
        """A client whose handshake is done. Raises ssl.SSLError when it fails."""
        client = TlsClient(self, context, session)
        client.finish(client.tls.do_handshake)
        return client

    def until(self, holds: Callable[[], Any]) -> None:
        """Turn until it holds."""
        end = time.monotonic() + DEADLINE
        while not holds():
            assert time.monotonic() < end, "it never does"
            self.reactor.turn(_STEP_MS)

    def close(self) -> None:
        """End all connections."""
        for each in self._sockets:
            each.close()
        self.readers.connectionLost(Failure(CONNECTION_LOST))
        for transport in self.reactor.readers | self.reactor.writers:
            transport.connectionLost(Failure(CONNECTION_LOST))


class TlsClient:
    """A client's side, by OpenSSL as Python has it, and what is said on the wire. `before`: sent before TLS."""

    def __init__(
        self, port: TlsPort, context: ssl.SSLContext, session: ssl.SSLSession | None = None, before: bytes = b""
    ) -> None:
        self._port = port
        self.server, self.transport, self.socket = port.accept()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost", session=session)
        self.received = b""
        self.is_over = False
        """The server has closed the connection."""
        self.was_reset = False
        if before:
            self.socket.send(before)

    def finish(self, step: Callable[[], _Result]) -> _Result:
        """Do a step, exchanging bytes with the server as long as it needs some."""
        end = time.monotonic() + DEADLINE
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:
                assert time.monotonic() < end, "it never ends"
                self.exchange()
                continue
            except ssl.SSLError:
                self.exchange()
                raise
            self.exchange()
            return result

    def exchange(self) -> None:
        """Send what there is to send, give the server a turn, and take what has come."""
        self.send_out()
        self._port.reactor.turn(0)
        self.take_in(_STEP_MS)

    def send_out(self, most: int = -1) -> None:
        """Send at most so many bytes of what there is; the server may have to read them."""
        left = memoryview(self._outgoing.read(most))
        while left:
            try:
                left = left[self.socket.send(left) :]
            except BlockingIOError:
                self._port.reactor.turn(_STEP_MS)
            except OSError:
                return

    @property
    def has_more_to_send(self) -> bool:
        return self._outgoing.pending > 0

    def take_in(self, wait_ms: int = 0) -> None:
        """What has come from the server."""
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        if not self.is_over and (poll.poll(0) or (not self._port.reactor.turn(0) and poll.poll(wait_ms))):
            try:
                data = self.socket.recv(1_000_000)
            except OSError:
                data, self.was_reset = b"", True
            self.received += data
            if data:
                self._incoming.write(data)
            else:
                self.is_over = True
                self._incoming.write_eof()

    @property
    def error(self) -> int:
        """What the kernel has noted of the connection: 0, unless it was reset, be it behind its end."""
        return self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def echo(self, text: bytes) -> bytes:
        """What comes back for a text."""
        self.tls.write(text)
        return self.finish(lambda: self.tls.read(100))

    def good_bye(self) -> None:
        """Say that this is the end, and await the answer."""
        self.finish(self.tls.unwrap)

    @property
    def certificate(self) -> bytes | None:
        """The server's, in DER."""
        return self.tls.getpeercert(binary_form=True)
