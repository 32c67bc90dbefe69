"""A way to a server through TCP, plain or TLS, which can be cut, stalled and led elsewhere."""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.certificates import Authority, ServerCertificate
from tests.system.harness import Harness

__all__ = ["Authority", "Forwarder", "ServerCertificate"]


class _End(Protocol):
    """One of the two ends of a way; what it hears goes to the other one."""

    def __init__(self, forwarder: Forwarder) -> None:
        self._forwarder = forwarder
        self.other: _End | None = None
        self.lost: Deferred[None] = Deferred()
        self.is_gone = False

    def connectionMade(self) -> None:
        self._forwarder.ends.add(self)

    def dataReceived(self, data: bytes) -> None:
        self.lead_on(data)

    def lead_on(self, data: bytes) -> None:
        if self.other is not None and not self.other.is_gone:
            self.other.transport.write(data)  # type: ignore[union-attr]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.is_gone = True
        self._forwarder.ends.discard(self)
        if self.other is not None:
            self.other.end()
        self.lost.callback(None)

    def end(self) -> None:
        if self.connected and not self.is_gone:
            self.transport.abortConnection()  # type: ignore[union-attr]


class _Near(_End):
    """The end of whoever came to the forwarder."""

    def connectionMade(self) -> None:
        super().connectionMade()
        forwarder = self._forwarder
        forwarder.visitors += 1
        if forwarder.is_shut:
            self.end()
            return
        if forwarder.answer is not None:
            self.transport.write(forwarder.answer)  # type: ignore[union-attr]
            return
        self.transport.pauseProducing()  # type: ignore[union-attr]
        self.other = _End(forwarder)
        self.other.other = self
        factory = Factory.forProtocol(lambda: self.other)  # type: ignore[arg-type, return-value]
        factory.noisy = False
        made = forwarder.way_on().connect(factory)
        made.addCallbacks(self._joined, lambda _: self.end())

    def dataReceived(self, data: bytes) -> None:
        forwarder = self._forwarder
        if forwarder.room is None:
            self.lead_on(data)
            return
        self.lead_on(data[: forwarder.room])
        forwarder.led += data[: forwarder.room]
        forwarder.room -= len(data)
        if forwarder.room < 0:
            forwarder.room = 0
            if self.other is not None:
                self.other.transport.loseConnection()  # type: ignore[union-attr] # behind what was led on

    def _joined(self, far: _End) -> None:
        if self.is_gone:
            far.end()
        else:
            self.transport.resumeProducing()  # type: ignore[union-attr]


@implementer(IOpenSSLServerConnectionCreator)
class _Tls:
    """Shows whoever comes the certificate of the moment."""

    def __init__(self, forwarder: Forwarder) -> None:
        self._forwarder = forwarder

    def serverConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:
        assert self._forwarder.certificate is not None
        return SSL.Connection(self._forwarder.certificate.context(), None)


class Forwarder:
    """Listens on a port of its own, and leads to the Unix socket `path`, or to the port `path` of 127.0.0.1.

    `certificate`: shown to whoever comes, for TLS; another one may take its place. `answer`: what everybody gets
    instead of being led anywhere. `visitors`: how many have come. `room`: so many bytes are led on yet, which are then
    in `led`, and with the next one the way ends; None: there is no end.
    """

    def __init__(self, harness: Harness, path: str | int, certificate: ServerCertificate | None = None) -> None:
        self.reactor = harness.reactor
        self.path = path
        self.certificate = certificate
        self.answer: bytes | None = None
        self.visitors = 0
        self.room: int | None = None
        self.led = b""
        self.is_shut = False
        self.ends: set[_End] = set()
        factory = Factory.forProtocol(lambda: _Near(self))  # type: ignore[arg-type, return-value]
        factory.noisy = False
        if certificate is None:
            self._listening = self.reactor.listenTCP(0, factory, interface="127.0.0.1")
        else:
            self._listening = self.reactor.listenSSL(0, factory, _Tls(self), interface="127.0.0.1")
        harness.on_close(self._close)

    @property
    def port(self) -> int:
        return int(self._listening.getHost().port)

    def way_on(self) -> Any:
        """The endpoint that it leads to."""
        if isinstance(self.path, str):
            return UNIXClientEndpoint(self.reactor, self.path)
        return TCP4ClientEndpoint(self.reactor, "127.0.0.1", self.path)

    def stall(self) -> None:
        """Let nothing through any more on the ways that there are; new ones are not affected."""
        for end in self.ends:
            end.transport.pauseProducing()  # type: ignore[union-attr]

    def go_on(self) -> None:
        """Let everything through again."""
        for end in self.ends:
            end.transport.resumeProducing()  # type: ignore[union-attr]

    def cut(self) -> None:
        """End all ways that there are."""
        for end in list(self.ends):
            end.end()

    def shut(self) -> None:
        """End all ways that there are, and those of whoever comes until it is opened."""
        self.is_shut = True
        self.cut()

    def open(self) -> None:
        """Lead everybody on again who comes."""
        self.is_shut = False

    async def _close(self) -> None:
        await self._listening.stopListening()
        while self.ends:
            end = next(iter(self.ends))
            end.end()
            await end.lost
