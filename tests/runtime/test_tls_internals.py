"""One test for each internal of Twisted and of the standard library that connections with TLS lean on.

One that fails after an update says what has to be looked at again in `marketfeed.runtime.tls_connections`,
`tls_factory` and `tls_hello`.
"""

from __future__ import annotations

import ast
import gc
import inspect
import socket
import ssl
import textwrap
import weakref
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any, cast

import pytest
from twisted.internet import tcp
from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.protocols.haproxy._exceptions import (
    InvalidNetworkProtocol,
    InvalidProxyHeader,
    MissingAddressData,
)
from twisted.protocols.haproxy._v1parser import V1Parser
from twisted.protocols.haproxy._v2parser import V2Parser
from twisted.python.failure import Failure

from marketfeed.boundaries import LONGEST_SEND
from marketfeed.runtime.connections import AcceptedConnection, ReadByReactor
from marketfeed.runtime.tls_connections import OpenSsl, TlsConnection
from tests.certificates import Authority
from tests.internals import reads
from tests.tls_port import SocketReactor

V2 = b"\r\n\r\n\0\r\nQUIT\n"


def methods(of: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    """What it has of Twisted's, overridden or not."""
    for each in of.__mro__:
        if each.__module__.startswith("twisted."):
            yield from ((name, member) for name, member in vars(each).items() if inspect.isfunction(member))


class Pair:
    """Two sockets, one of them a server's by `_wrap_socket`, and a client that has shaken hands with it."""

    def __init__(self, directory: Path) -> None:
        authority = Authority()
        certificate, key = authority.issue("localhost").write(directory)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        trusting = ssl.create_default_context(cafile=str(authority.write(directory / "ca.pem")))
        self.socket, far = socket.socketpair()
        self.socket.setblocking(False)
        far.setblocking(False)
        self.ssl: OpenSsl = context._wrap_socket(self.socket, True)  # type: ignore[attr-defined]
        self.client = trusting.wrap_socket(far, server_hostname="localhost", do_handshake_on_connect=False)
        left = [self.client.do_handshake, self.ssl.do_handshake]
        while left:
            for step in list(left):
                try:
                    step()
                except ssl.SSLWantReadError:
                    continue
                left.remove(step)

    def close(self) -> None:
        self.socket.close()
        self.client.close()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    pair = Pair(tmp_path)
    yield pair
    pair.close()


class TestWrapSocket:
    """`SSLContext._wrap_socket(socket, server_side)`, which is what `SSLSocket` is made of."""

    def test_all_that_is_asked_of_it_is_there(self, pair: Pair) -> None:
        """Under the names of `OpenSsl`."""
        for name in ("do_handshake", "read", "write", "pending", "shutdown"):
            assert callable(getattr(pair.ssl, name)), name

    def test_what_is_read_is_of_one_record(self, pair: Pair) -> None:
        """`pending` says what is left of it; without more it wants to read."""
        pair.client.send(b"abcdef")
        pair.client.send(b"gh")
        assert (pair.ssl.read(4), pair.ssl.pending()) == (b"abcd", 2)
        assert (pair.ssl.read(100), pair.ssl.pending()) == (b"ef", 0)
        assert pair.ssl.read(100) == b"gh"
        with pytest.raises(ssl.SSLWantReadError):
            pair.ssl.read(100)

    def test_a_record_is_taken_whole_or_not_at_all(self, pair: Pair) -> None:
        """What it did not take may lie elsewhere when it is offered again; all arrives once."""
        sent = 0
        while True:
            try:
                assert pair.ssl.write(bytes(LONGEST_SEND)) == LONGEST_SEND
            except ssl.SSLWantWriteError:
                break
            sent += LONGEST_SEND
        got = 0
        is_offered = True
        while is_offered or got < sent:
            try:
                got += len(pair.client.recv(LONGEST_SEND))
            except ssl.SSLWantReadError:
                pass
            if is_offered:
                try:
                    sent += pair.ssl.write(memoryview(bytearray(LONGEST_SEND)))
                    is_offered = False
                except ssl.SSLWantWriteError:
                    pass
        assert got == sent

    def test_the_end_is_no_data_or_an_error_of_the_system(self, pair: Pair) -> None:
        """The peer's good-bye is the one, a socket that ends without it the other."""
        with pytest.raises(ssl.SSLWantReadError):
            pair.client.unwrap()
        try:
            assert pair.ssl.read(100) == b""
        except ssl.SSLZeroReturnError:
            pass
        pair.client.close()
        with pytest.raises((BrokenPipeError, ssl.SSLError)):
            pair.ssl.shutdown()

    def test_it_keeps_nobody_alive(self, pair: Pair) -> None:
        """Neither the socket nor itself is in a cycle."""
        left = weakref.ref(pair.socket)
        gc.disable()
        try:
            pair.socket.close()
            del pair.socket
            assert left() is None
        finally:
            gc.enable()
            pair.socket = socket.socket()


class TestProxyParsers:
    """Twisted's, which take a whole header, and know nothing of the connection."""

    @pytest.mark.parametrize(
        ("parser", "header"),
        [
            (V1Parser, b"PROXY TCP4 203.0.113.7 192.0.2.1 5000 443"),
            (V2Parser, V2 + b"\x21\x11\0\x0c" + bytes([203, 0, 113, 7, 192, 0, 2, 1]) + b"\x13\x88\x01\xbb"),
        ],
    )
    def test_a_header_names_two_addresses(self, parser: Any, header: bytes) -> None:
        info = parser.parse(header)
        assert info.source == IPv4Address("TCP", "203.0.113.7", 5000)
        assert info.destination == IPv4Address("TCP", "192.0.2.1", 443)

    def test_addresses_of_version_6(self) -> None:
        addresses = socket.inet_pton(socket.AF_INET6, "2001:db8::7") + socket.inet_pton(socket.AF_INET6, "2001:db8::1")
        for info in (
            V2Parser.parse(V2 + b"\x21\x21\0\x24" + addresses + b"\x13\x88\x01\xbb"),
            V1Parser.parse(b"PROXY TCP6 2001:db8::7 2001:db8::1 5000 443"),
        ):
            assert isinstance(info.source, IPv6Address)
            assert (ip_address(info.source.host), info.source.port) == (ip_address("2001:db8::7"), 5000)

    def test_a_header_of_the_proxy_itself_names_none(self) -> None:
        """In version 1 it says so with words behind it, and without them it is an error: which is ours to know."""
        assert V2Parser.parse(V2 + b"\x20\x00\0\x00").source is None
        assert V1Parser.parse(b"PROXY UNKNOWN a b 1 2").source is None
        with pytest.raises(InvalidNetworkProtocol):
            V1Parser.parse(b"PROXY UNKNOWN")

    def test_the_prefix_of_version_2(self) -> None:
        assert V2Parser.PREFIX == V2

    @pytest.mark.parametrize("header", [b"PROXY", b"PROXY TCP5 a b 1 2", b"PROXY TCP4 a b", b"PROXY TCP4 a b c d"])
    def test_what_is_wrong_with_version_1(self, header: bytes) -> None:
        """Errors of one family, or those that a number or a name has."""
        with pytest.raises((InvalidProxyHeader, ValueError)):
            V1Parser.parse(header)

    @pytest.mark.parametrize("rest", [b"\x11\x11\0\x0c", b"\x21\x91\0\x00", b"\x21\x11\0\x02ab", b"\x25\x11\0\x00"])
    def test_what_is_wrong_with_version_2(self, rest: bytes) -> None:
        with pytest.raises((InvalidProxyHeader, ValueError, LookupError)):
            V2Parser.parse(V2 + rest)

    def test_their_errors_are_of_one_family(self) -> None:
        assert issubclass(InvalidNetworkProtocol, InvalidProxyHeader)
        assert issubclass(MissingAddressData, InvalidProxyHeader)


class TestTransport:
    """Twisted's `tcp.Server` and what it is made of."""

    NEVER_RUN = frozenset({"__init__", "__repr__", "startTLS", "_fromConnectedSocket"})
    """What ours replaces or has no use for."""

    def test_a_port_makes_its_transport_of_these(self) -> None:
        """Socket, protocol, the peer as the kernel has it, the port, a number, the reactor."""
        source = textwrap.dedent(inspect.getsource(tcp.Port.doRead))
        calls = [
            [getattr(argument, "id", getattr(argument, "attr", "self")) for argument in node.args]
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "transport"
        ]
        assert calls == [["skt", "protocol", "addr", "self", "s", "reactor"]]
        assert tcp.Port.transport is tcp.Server

    def test_what_the_constructor_would_have_set(self) -> None:
        """Ours calls `FileDescriptor`'s alone: what else it would set is set here too, or read by nobody."""
        ours, theirs = socket.socketpair()
        reactor: Any = SocketReactor()
        server = tcp.Server(ours, Protocol(), ("127.0.0.1", 1), None, 0, reactor)  # type: ignore[arg-type]
        watch, report, openssl = ReadByReactor(reactor), cast(Any, None), cast(Any, None)
        mine = TlsConnection(ours, Protocol(), ("127.0.0.1", 1), reactor, watch, report, openssl, is_proxied=False)
        missing = {name for name in vars(server) if not hasattr(mine, name)}
        own = vars(TlsConnection) | vars(AcceptedConnection)
        replaced = {name for name in own if inspect.isfunction(own[name])}
        for name in missing:
            readers = {reader for reader, function in methods(TlsConnection) if name in reads(function)}
            assert readers <= self.NEVER_RUN | replaced, f"{name} is read by {readers}"
        for each in (ours, theirs):
            each.close()

    def test_what_waits_to_be_sent(self) -> None:
        """Two places have it, and an offset says how much of the first has gone."""
        descriptor = FileDescriptor(cast(Any, SocketReactor()))
        descriptor.connected = True
        assert (descriptor.dataBuffer, descriptor.offset, descriptor._tempDataLen) == (b"", 0, 0)
        descriptor.write(b"abc")
        assert len(descriptor.dataBuffer) - descriptor.offset + descriptor._tempDataLen == 3
        descriptor.writeSomeData = lambda data: 2  # type: ignore[method-assign, assignment, return-value]
        descriptor.doWrite()
        assert len(descriptor.dataBuffer) - descriptor.offset + descriptor._tempDataLen == 1

    def test_when_the_end_is_said(self) -> None:
        """`_postLoseConnection`, when all has been sent; what it returns is why the connection ends."""
        descriptor = FileDescriptor(cast(Any, SocketReactor()))
        descriptor.connected = True
        descriptor.disconnecting = True
        descriptor.writeSomeData = lambda data: 0  # type: ignore[method-assign, assignment, return-value]
        descriptor._postLoseConnection = lambda: CONNECTION_DONE  # type: ignore[method-assign, assignment, return-value]
        assert descriptor.doWrite() is CONNECTION_DONE

    def test_who_is_aborted_reads_and_writes_no_more(self) -> None:
        """`_aborting` says so, from the call on, while the connection is there until the next turn."""
        ours, theirs = socket.socketpair()
        clock: Any = SocketReactor()
        server = tcp.Server(ours, Protocol(), ("127.0.0.1", 1), None, 0, clock)  # type: ignore[arg-type]
        assert not server._aborting
        server.abortConnection()
        assert server._aborting
        assert not server.disconnected
        cast(Clock, clock).advance(0)
        assert server.disconnected
        theirs.close()

    def test_what_is_left_of_one_that_is_gone(self) -> None:
        """Neither its protocol nor its socket: both would be in a cycle with it."""
        ours, theirs = socket.socketpair()
        reactor: Any = SocketReactor()
        server = tcp.Server(ours, Protocol(), ("127.0.0.1", 1), None, 0, reactor)  # type: ignore[arg-type]
        server.connectionLost(Failure(CONNECTION_DONE))
        assert not {"protocol", "socket", "fileno"} & set(vars(server))
        theirs.close()
