"""A way to a Redis server through TCP, plain or TLS, which can be cut, stalled and led elsewhere."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.system.harness import Harness

__all__ = ["Authority", "Forwarder", "ServerCertificate"]


_PEM = serialization.Encoding.PEM


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def context(self) -> SSL.Context:
        """What a server needs to show it."""
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.use_certificate(self.certificate)
        context.use_privatekey(self.key)
        return context

    def write(self, directory: Path) -> tuple[Path, Path]:
        """Put both into files; where they are."""
        certificate, key = directory / "server.pem", directory / "server.key"
        certificate.write_bytes(self.certificate.public_bytes(_PEM))
        plain = serialization.NoEncryption()
        key.write_bytes(self.key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, plain))
        return certificate, key


class Authority:
    """A CA that signs certificates for servers."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "the house's own CA")])
        extension = x509.BasicConstraints(ca=True, path_length=0)
        self._certificate = self._sign(self._name, self._key, extension)

    def issue(self, *names: str) -> ServerCertificate:
        """A certificate for hosts, by name or address."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a server")])
        hosts = x509.SubjectAlternativeName([_general(name) for name in names])
        return ServerCertificate(self._sign(subject, key, hosts), key)

    def write(self, path: Path) -> Path:
        """Put the CA's own certificate into a file."""
        path.write_bytes(self._certificate.public_bytes(_PEM))
        return path

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType
    ) -> x509.Certificate:
        now, day = datetime.now(UTC), timedelta(days=1)
        serial = x509.random_serial_number()
        builder = x509.CertificateBuilder(self._name, subject, key.public_key(), serial, now - day, now + day)
        return builder.add_extension(extension, critical=True).sign(self._key, hashes.SHA256())


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


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
        if forwarder.answer is not None:
            self.transport.write(forwarder.answer)  # type: ignore[union-attr]
            return
        self.transport.pauseProducing()  # type: ignore[union-attr]
        self.other = _End(forwarder)
        self.other.other = self
        factory = Factory.forProtocol(lambda: self.other)  # type: ignore[arg-type, return-value]
        factory.noisy = False
        made = UNIXClientEndpoint(forwarder.reactor, forwarder.path).connect(factory)
        made.addCallbacks(self._joined, lambda _: self.end())

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
    """Listens on a port of its own, and leads to the Unix socket `path`.

    `certificate`: shown to whoever comes, for TLS; another one may take its place. `answer`: what everybody gets
    instead of being led anywhere. `visitors`: how many have come.
    """

    def __init__(self, harness: Harness, path: str, certificate: ServerCertificate | None = None) -> None:
        self.reactor = harness.reactor
        self.path = path
        self.certificate = certificate
        self.answer: bytes | None = None
        self.visitors = 0
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

    def stall(self) -> None:
        """Let nothing through any more on the ways that there are; new ones are not affected."""
        for end in self.ends:
            end.transport.pauseProducing()  # type: ignore[union-attr]

    def cut(self) -> None:
        """End all ways that there are."""
        for end in list(self.ends):
            end.end()

    async def _close(self) -> None:
        await self._listening.stopListening()
        while self.ends:
            end = next(iter(self.ends))
            end.end()
            await end.lost
