"""The port of clients with TLS: what accepted connections become, and what is said of their handshakes.

1. A handshake that fails is counted and logged, at a bounded rate.
2. Who encrypts, the kernel or OpenSSL, can be told from the first handshake on, and is said once.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from ssl import SSLContext
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory
from zope.interface import implementer

from marketfeed.runtime.bounded_log import BoundedLog
from marketfeed.runtime.connections import ReadByReactor, Watch
from marketfeed.runtime.logs import Log
from marketfeed.runtime.tls_connections import OpenSsl, TlsConnection

__all__ = ["TlsFactory", "encrypted"]

_LINES_AT_ONCE = 5
_TCP_ULP = 31  # Linux: what the kernel does for the connection besides TCP


@implementer(IProtocolFactory)
class TlsFactory:
    """The factory of a port on which TLS is spoken; `factory`: that of the protocols inside.

    `context`: what connections are made by that come now. `is_proxied`: a PROXY header comes first. `reactor`: of
    this port. Whoever makes a port for it must call `encrypted`.
    """

    log = Log()
    noisy = False

    def __init__(
        self, reactor: Any, context: Callable[[], SSLContext], factory: IProtocolFactory, *, is_proxied: bool = False
    ) -> None:
        self._context = context
        self._factory = factory
        self._is_proxied = is_proxied
        self._lines = BoundedLog(reactor, self.log, _LINES_AT_ONCE)
        self._has_begun = False
        self.failures = 0
        """Handshakes that have failed, since the start."""

    def buildProtocol(self, address: IAddress) -> IProtocol | None:
        return self._factory.buildProtocol(address)

    def doStart(self) -> None:
        self._factory.doStart()

    def doStop(self) -> None:
        """The port is closed."""
        self._factory.doStop()
        self._lines.close()

    def connection(
        self, skt: socket.socket, protocol: IProtocol, client: tuple[Any, ...], reactor: Any, watch: Watch
    ) -> TlsConnection:
        """One that has been accepted; its socket does not block."""
        ssl: OpenSsl = self._context()._wrap_socket(skt, True)  # type: ignore[attr-defined]  # SSLSocket's own way
        return TlsConnection(skt, protocol, client, reactor, watch, self, ssl, is_proxied=self._is_proxied)

    def transport(
        self, skt: socket.socket, protocol: IProtocol, client: tuple[Any, ...], port: Any, number: int, reactor: Any
    ) -> TlsConnection:
        """The same, as a port of Twisted's asks for the transport of a connection, of TCP or another kind."""
        skt.setblocking(False)
        if skt.family in (socket.AF_INET, socket.AF_INET6):
            skt.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.connection(skt, protocol, client, reactor, ReadByReactor(reactor))

    def begun(self, skt: socket.socket) -> None:
        """See `HandshakeReport`."""
        if not self._has_begun:
            self._has_begun = True
            if _is_encrypted_by_the_kernel(skt):
                self.log.info("the kernel encrypts what clients are sent (kTLS)")
            else:
                self.log.info("OpenSSL encrypts what clients are sent, for kTLS is not to be had")

    def failed(self, peer: Any, fault: str) -> None:
        """See `HandshakeReport`."""
        self.failures += 1
        self._lines.info(
            "",
            "TLS: the handshake with {peer} failed: {fault} ({failures} since the start)",
            peer=_shown(peer),
            fault=fault,
            failures=self.failures,
        )


def encrypted(port: Any, factory: object) -> Any:
    """`port`, which accepts connections for `factory`: with TLS, where that is a `TlsFactory`."""
    if isinstance(factory, TlsFactory):
        port.transport = factory.transport
    return port


def _is_encrypted_by_the_kernel(skt: socket.socket) -> bool:
    try:
        return skt.getsockopt(socket.IPPROTO_TCP, _TCP_ULP, 16).startswith(b"tls")
    except OSError:
        return False


def _shown(peer: Any) -> str:
    if isinstance(peer, IPv4Address | IPv6Address):
        return f"{peer.host}:{peer.port}"
    return "a local socket"
