"""Certificates for tests: an authority, others that it vouches for, and servers.

They have what RFC 5280 demands, for clients that are strict about it, as those of Python 3.13 are.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates

__all__ = ["Authority", "ServerCertificate"]

_PEM = serialization.Encoding.PEM
_SIGNS = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)
_Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """A certificate, its key, and the authorities between it and the one that is trusted."""

    certificate: x509.Certificate
    key: _Key
    between: tuple[x509.Certificate, ...] = ()

    def context(self) -> SSL.Context:
        """What a server needs to show it."""
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.use_certificate(self.certificate)
        context.use_privatekey(self.key)
        return context

    @property
    def pem(self) -> bytes:
        """The certificate alone."""
        return self.certificate.public_bytes(_PEM)

    @property
    def pem_between(self) -> bytes:
        """The authorities in between, nearest first."""
        return b"".join(each.public_bytes(_PEM) for each in self.between)

    def pem_key(self, password: bytes = b"") -> bytes:
        """The key, encrypted if there is a password."""
        how = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        return self.key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, how)

    def write(self, directory: Path) -> tuple[Path, Path]:
        """Put the chain and the key into files; where they are."""
        certificate, key = directory / "server.pem", directory / "server.key"
        certificate.write_bytes(self.pem + self.pem_between)
        key.write_bytes(self.pem_key())
        return certificate, key


class Authority:
    """A CA that signs certificates for servers, and for an authority below it."""

    def __init__(self, above: Authority | None = None) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._identifier = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        name = "the house's own CA" if above is None else "a CA below it"
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        extensions = {x509.BasicConstraints(ca=True, path_length=0 if above else 1): True, _SIGNS: True}
        self.certificate = (above or self)._sign(self._name, self._key, {**extensions, self._identifier: False})
        self._between: tuple[x509.Certificate, ...] = (self.certificate, *above._between) if above else ()

    def issue(self, *names: str, key: _Key | None = None) -> ServerCertificate:
        """A certificate for hosts, by name or address."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a server")])
        hosts = x509.SubjectAlternativeName([_general(name) for name in names])
        return ServerCertificate(self._sign(subject, key, {hosts: True}), key, self._between)

    def write(self, path: Path) -> Path:
        """Put the CA's own certificate into a file."""
        path.write_bytes(self.certificate.public_bytes(_PEM))
        return path

    def client_options(self, host: str = "localhost") -> IOpenSSLClientConnectionCreator:
        """How a client of Twisted connects that trusts nobody else."""
        root = Certificate.loadPEM(self.certificate.public_bytes(_PEM))
        return optionsForClientTLS(host, trustRoot=trustRootFromCertificates([root]))

    def _sign(self, subject: x509.Name, key: _Key, extensions: dict[x509.ExtensionType, bool]) -> x509.Certificate:
        """`extensions`: whether who does not know one is to refuse the certificate."""
        now, day = datetime.now(UTC), timedelta(days=1)
        serial = x509.random_serial_number()
        builder = x509.CertificateBuilder(self._name, subject, key.public_key(), serial, now - day, now + day)
        by = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(self._identifier)
        for extension, is_critical in {**extensions, by: False}.items():
            builder = builder.add_extension(extension, is_critical)
        return builder.sign(self._key, hashes.SHA256())


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
