"""TLS for clients: a server endpoint whose certificate can be renewed while the daemon runs.

1. It is described as Twisted describes it: `ssl:8443:privateKey=key.pem:certKey=cert.pem[:extraCertChain=chain.pem]
   [:interface=…][:backlog=…]`, with a backslash before a colon that belongs to a value.
2. The whole of certKey is sent, then what extraCertChain adds: certKey may be a full chain, as certbot writes it.
3. A renewal of the files is noticed, and what is unfit changes nothing (see `tls_files`).
4. TLS 1.2 is the least; the ciphers are Twisted's. Clients show no certificates.
5. Clients who offer protocols (ALPN, RFC 7301) get `http/1.1`, and are refused if that is not among them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from OpenSSL import SSL
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
from marketfeed.model.numbers import whole
from marketfeed.runtime.tls_connections import TlsFactory
from marketfeed.runtime.tls_files import A_KEY, CertificateFiles, KeyAndChain, Renewable, shown

__all__ = ["RenewableTls", "TlsEndpoint", "tls_endpoint"]

_POSITIONAL = ("port", "privateKey", "certKey")
_FIELDS = (*_POSITIONAL, "extraCertChain", "interface", "backlog")
_PROTOCOL = b"http/1.1"

# Twisted's grammar: the first = of an argument ends its name; a backslash takes the meaning from what follows.
_ARGUMENT = re.compile(r"((?:[^\\:=]|\\.)*)(?:(=)((?:[^\\:]|\\.)*))?(:|\Z)", re.DOTALL)


def tls_endpoint(reactor: Any, description: str, opened: IStreamServerEndpoint | None = None) -> TlsEndpoint:
    """The endpoint of a description that begins with `ssl:`. `opened`: its sockets, where they are open already.

    Raises ValueError when it, or a file that it names, cannot be used: one line with the field and what is accepted.
    """
    given = _fields(description)
    key, certificate = given.get("privateKey", ""), given.get("certKey") or given.get("privateKey", "")
    if not key:
        raise ValueError(f"privateKey: missing; expected {A_KEY}")
    port = _number("port", given.get("port", ""), 0)
    backlog = _number("backlog", given.get("backlog", "50"), 1)
    tls = RenewableTls(reactor, CertificateFiles(key, certificate, given.get("extraCertChain", "")))
    return TlsEndpoint(reactor, tls, opened or TCP4ServerEndpoint(reactor, port, backlog, given.get("interface", "")))


@implementer(IStreamServerEndpoint)
class TlsEndpoint:
    """Listens where `endpoint` does, with TLS."""

    def __init__(self, reactor: Any, tls: RenewableTls, endpoint: IStreamServerEndpoint) -> None:
        self._reactor = reactor
        self._tls = tls
        self._endpoint = endpoint

    @property
    def expires_at(self) -> float:
        """When the certificate ends that clients are shown now, in s since 1970."""
        return self._tls.expires_at

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
            raise ValueError(f"{shown(field)}: unknown; expected {', '.join(_FIELDS[:-1])} or {_FIELDS[-1]}")
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


def _number(field: str, text: str, least: int) -> int:
    number = whole(text, 5)
    if number is None or not least <= number < 65536:
        raise ValueError(f"{field}: {shown(text) or 'missing'}; expected a number from {least} to 65535")
    return number


@implementer(IOpenSSLServerConnectionCreator)
class RenewableTls:
    """Makes the TLS side of connections from what is in the files. Raises ValueError when that cannot be used now."""

    def __init__(self, clock: Clock, files: CertificateFiles) -> None:
        self._options = Renewable(clock.seconds, files, _options, "TLS")

    @property
    def expires_at(self) -> float:
        """When the certificate ends that clients are shown now, in s since 1970."""
        self._options.current()
        return self._options.expires_at

    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        connection: SSL.Connection = self._options.current().serverConnectionForTLS(tlsProtocol)
        return connection


def _options(read: KeyAndChain) -> CertificateOptions:
    options = CertificateOptions(**read.as_options(), raiseMinimumTo=TLSVersion.TLSv1_2, enableSessionTickets=True)
    options.getContext().set_alpn_select_callback(_choose_protocol)
    return options


def _choose_protocol(_: SSL.Connection, offered: Sequence[bytes]) -> bytes:
    """Twisted's answers what no client accepts when it has nothing to offer, or nothing that was offered."""
    if _PROTOCOL in offered:
        return _PROTOCOL
    fault = f"no application protocol; expected {_PROTOCOL.decode()} among those offered, or none"
    raise SSL.Error([("", "", fault)])  # the client is told, by the alert of that name
