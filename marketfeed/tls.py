"""TLS for clients: a server endpoint whose certificate can be renewed while the daemon runs.

1. It is described as Twisted describes it: `ssl:8443:privateKey=key.pem:certKey=cert.pem[:extraCertChain=chain.pem]
   [:interface=…][:backlog=…]`, with a backslash before a colon that belongs to a value.
2. The whole of certKey is sent, then what extraCertChain adds: certKey may be a full chain, as certbot writes it.
3. When a connection comes in, and at most every two seconds, the files are looked at. If any has changed, all are
   read again, and connections from then on get what is in them. Those that exist go on as they are.
4. Files that cannot be used, as in the middle of a renewal, change nothing; what is wrong with them is logged once.
5. TLS 1.2 is the least; the ciphers are Twisted's. Clients show no certificates.
6. Clients who offer protocols (ALPN, RFC 7301) get `http/1.1`, and are refused if that is not among them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL
from OpenSSL.crypto import X509, PKey
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import (
    IListeningPort,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.internet.ssl import CertificateOptions, TLSVersion
from zope.interface import implementer

from marketfeed.boundaries import Clock
from marketfeed.logs import Log
from marketfeed.tls_connections import TlsFactory, cause

__all__ = ["CertificateFiles", "RenewableTls", "tls_endpoint"]

_LOOK_SECONDS = 2.0
_POSITIONAL = ("port", "privateKey", "certKey")
_FIELDS = (*_POSITIONAL, "extraCertChain", "interface", "backlog")
_PROTOCOL = b"http/1.1"
_A_KEY = "a PEM file with an unencrypted private key"
_A_CHAIN = "a PEM file of certificates"
_BEGIN = re.compile(rb"-----BEGIN (?:X509 )?CERTIFICATE")

# Twisted's grammar: the first = of an argument ends its name; a backslash takes the meaning from what follows.
_ARGUMENT = re.compile(r"((?:[^\\:=]|\\.)*)(?:(=)((?:[^\\:]|\\.)*))?(:|\Z)", re.DOTALL)


def tls_endpoint(reactor: Any, description: str) -> IStreamServerEndpoint:
    """The endpoint of a description that begins with `ssl:`.

    Raises ValueError when it, or a file that it names, cannot be used: one line with the field and what is accepted.
    """
    given = _fields(description)
    key, certificate = given.get("privateKey", ""), given.get("certKey") or given.get("privateKey", "")
    if not key:
        raise ValueError(f"privateKey: missing; expected {_A_KEY}")
    port = _number("port", given.get("port", ""), 0)
    backlog = _number("backlog", given.get("backlog", "50"), 1)
    tls = RenewableTls(reactor, CertificateFiles(key, certificate, given.get("extraCertChain", "")))
    return _TlsEndpoint(reactor, tls, TCP4ServerEndpoint(reactor, port, backlog, given.get("interface", "")))


@implementer(IStreamServerEndpoint)
class _TlsEndpoint:
    """Listens where `endpoint` does, with TLS."""

    def __init__(self, reactor: Any, tls: IOpenSSLServerConnectionCreator, endpoint: IStreamServerEndpoint) -> None:
        self._reactor = reactor
        self._tls = tls
        self._endpoint = endpoint

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        return self._endpoint.listen(TlsFactory(self._reactor, self._tls, factory))


def _fields(description: str) -> dict[str, str]:
    given = {}
    positional = iter(_POSITIONAL)
    for name, value in list(_arguments(description))[1:]:
        field = name or next(positional, "")
        if not field:
            raise ValueError(f"{value[:200]!r}: expected a name before it, as in certKey=server.pem")
        if field not in _FIELDS:
            raise ValueError(f"{_shown(field)}: unknown; expected {', '.join(_FIELDS[:-1])} or {_FIELDS[-1]}")
        given[field] = value
    return given


def _arguments(description: str) -> Iterator[tuple[str, str]]:
    """What stands between the colons: (name, value), with an empty name where there is none."""
    at, end = 0, ":"
    while end:
        found = _ARGUMENT.match(description, at)
        if found is None:
            raise ValueError("it ends with a backslash; expected a character behind it")
        name, equals, value, end = found.groups(default="")
        yield (_plain(name), _plain(value)) if equals else ("", _plain(name))
        at = found.end()


def _plain(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def _shown(text: str) -> str:
    return repr(text[:200])[1:-1]


def _number(field: str, text: str, least: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6 and least <= int(text) < 65536):
        raise ValueError(f"{field}: {_shown(text) or 'missing'}; expected a number from {least} to 65535")
    return int(text)


class CertificateFiles(msgspec.Struct, frozen=True):
    """Paths of PEM files. `certificate`: the server's certificate, first; `extra_chain`: may be empty."""

    private_key: str
    certificate: str
    extra_chain: str = ""

    def absolute(self) -> CertificateFiles:
        """The same files, wherever the process goes."""
        paths = (self.private_key, self.certificate, self.extra_chain)
        return CertificateFiles(*(path and os.path.abspath(path) for path in paths))

    def stamp(self) -> tuple[tuple[int, int, int], ...]:
        """Something that is another one as soon as any of the files has been written or replaced."""
        return tuple(_stamp(path) for path in (self.private_key, self.certificate, self.extra_chain) if path)


def _stamp(path: str) -> tuple[int, int, int]:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return 0, 0, 0  # reading it will tell why
    return status.st_mtime_ns, status.st_size, status.st_ino


class _Credentials(msgspec.Struct, frozen=True):
    """What connections are made from, and when its certificate expires."""

    options: CertificateOptions
    valid_until: str


@implementer(IOpenSSLServerConnectionCreator)
class RenewableTls:
    """Makes the TLS side of connections from what is in the files. Raises ValueError when that cannot be used now."""

    log = Log()

    def __init__(self, clock: Clock, files: CertificateFiles) -> None:
        self._clock = clock
        self._files = files.absolute()  # twistd changes the directory later
        self._stamp = self._files.stamp()
        self._credentials = _load(files)
        self._fault = ""
        self._next_look = clock.seconds() + _LOOK_SECONDS

    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        if self._clock.seconds() >= self._next_look:
            self._next_look = self._clock.seconds() + _LOOK_SECONDS
            self._look()
        connection: SSL.Connection = self._credentials.options.serverConnectionForTLS(tlsProtocol)
        return connection

    def _look(self) -> None:
        stamp = self._files.stamp()  # before the files are read: what is written meanwhile is seen the next time
        if stamp == self._stamp and not self._fault:
            return
        self._stamp = stamp
        try:
            self._credentials = _load(self._files)
        except ValueError as error:
            if str(error) != self._fault:
                self.log.warn("TLS: the certificate in use stays, for its renewal is unfit: {fault}", fault=str(error))
            self._fault = str(error)
            return
        self._fault = ""
        until = self._credentials.valid_until
        self.log.info("TLS: new connections get the renewed certificate, valid until {until}", until=until)


def _load(files: CertificateFiles) -> _Credentials:
    """Read the files, and see that they fit together. Raises ValueError."""
    key = _read_key(files.private_key)
    chain = _read_chain("certKey", files.certificate)
    if not _fit(chain[0], key):
        raise _unfit("certKey", files.certificate, "its first certificate is not of the key in privateKey", "that one")
    if files.extra_chain:
        chain += [each for each in _read_chain("extraCertChain", files.extra_chain) if each not in chain]
    try:
        options = CertificateOptions(
            privateKey=PKey.from_cryptography_key(key),  # type: ignore[arg-type]  # of a type that can sign, or it fails
            certificate=X509.from_cryptography(chain[0]),
            extraCertChain=[X509.from_cryptography(each) for each in chain[1:]],
            raiseMinimumTo=TLSVersion.TLSv1_2,
            enableSessionTickets=True,
        )
        options.getContext().set_alpn_select_callback(_choose_protocol)
    except Exception as error:
        raise _unfit("certKey", files.certificate, cause(error), "a certificate that OpenSSL accepts") from None
    return _Credentials(options, chain[0].not_valid_after_utc.date().isoformat())


def _choose_protocol(_: SSL.Connection, offered: Sequence[bytes]) -> bytes:
    """Twisted's answers what no client accepts when it has nothing to offer, or nothing that was offered."""
    if _PROTOCOL in offered:
        return _PROTOCOL
    fault = f"no application protocol; expected {_PROTOCOL.decode()} among those offered, or none"
    raise SSL.Error([("", "", fault)])  # the client is told, by the alert of that name


def _read_key(path: str) -> PrivateKeyTypes:
    text = _read("privateKey", path, _A_KEY)
    try:
        return load_pem_private_key(text, None)
    except TypeError:
        raise _unfit("privateKey", path, "the key is encrypted", _A_KEY) from None
    except Exception:
        raise _unfit("privateKey", path, "no key can be read", _A_KEY) from None


def _read_chain(field: str, path: str) -> list[x509.Certificate]:
    text = _read(field, path, _A_CHAIN)
    try:
        chain = x509.load_pem_x509_certificates(text)
    except Exception:
        raise _unfit(field, path, "no certificates can be read", _A_CHAIN) from None
    if len(chain) != len(_BEGIN.findall(text)):  # one that is cut short was passed over
        raise _unfit(field, path, "not all of its certificates can be read", _A_CHAIN)
    return chain


def _read(field: str, path: str, accepted: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise _unfit(field, path, error.strerror or "cannot be read", accepted) from None
    except ValueError:
        raise _unfit(field, path, "no path", accepted) from None


def _fit(certificate: x509.Certificate, key: PrivateKeyTypes) -> bool:
    try:
        return certificate.public_key() == key.public_key()
    except Exception:
        return False  # a kind of key that is unknown here


def _unfit(field: str, path: str, fault: str, accepted: str) -> ValueError:
    return ValueError(f"{field}: {_shown(path)}: {fault}; expected {accepted}")
