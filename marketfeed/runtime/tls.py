"""TLS for clients: a server endpoint whose certificate can be renewed while the daemon runs.

1. It is described as Twisted describes it: `ssl:8443:privateKey=key.pem:certKey=cert.pem[:extraCertChain=chain.pem]
   [:interface=…][:backlog=…]`, with a backslash before a colon that belongs to a value. `privateKey2`, `certKey2` and
   `extraCertChain2` are those of a key of another kind, EC beside RSA.
2. The whole of certKey is sent, then what extraCertChain adds: certKey may be a full chain, as certbot writes it.
3. A renewal of the files is noticed, and what is unfit changes nothing (see `tls_files`).
4. TLS 1.2 is the least; the ciphers are Twisted's. Clients show no certificates, and nobody negotiates anew. Who comes
   back is known by a ticket, to the process that has given it, until the certificate is renewed.
5. Clients who offer protocols (ALPN, RFC 7301) get `http/1.1`, and are refused if that is not among them.
6. A PROXY header comes before TLS, as the protocol has it.
"""

from __future__ import annotations

import os
import re
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from zope.interface import implementer

from marketfeed.model.numbers import whole
from marketfeed.runtime.tls_connections import PROTOCOL
from marketfeed.runtime.tls_factory import TlsFactory, encrypted
from marketfeed.runtime.tls_files import A_KEY, CertificateFiles, KeyAndChain, Renewable, shown

__all__ = ["TlsEndpoint", "tls_endpoint"]

_POSITIONAL = ("port", "privateKey", "certKey")
_SECOND = ("privateKey2", "certKey2", "extraCertChain2")
_FIELDS = (*_POSITIONAL, "extraCertChain", *_SECOND, "interface", "backlog")

_CIPHERS = (  # for TLS 1.2, as Twisted's `CertificateOptions` has them; those of TLS 1.3 are all good
    "@SECLEVEL=2:ECDH+AESGCM:ECDH+CHACHA20:DH+AESGCM:DH+CHACHA20:ECDH+AES256:DH+AES256:ECDH+AES128:DH+AES:RSA+AESGCM:"
    "RSA+AES:!aNULL:!MD5:!DSS"
)
_ENABLE_KTLS = 0x8 if ssl.OPENSSL_VERSION_INFO >= (3,) else 0  # ssl.OP_ENABLE_KTLS, from Python 3.12 on

# Twisted's grammar: the first = of an argument ends its name; a backslash takes the meaning from what follows.
_ARGUMENT = re.compile(r"((?:[^\\:=]|\\.)*)(?:(=)((?:[^\\:]|\\.)*))?(:|\Z)", re.DOTALL)


def tls_endpoint(
    reactor: Any, description: str, opened: IStreamServerEndpoint | None = None, *, is_proxied: bool = False
) -> TlsEndpoint:
    """The endpoint of a description that begins with `ssl:`. `opened`: its sockets, where they are open already.

    `is_proxied`: each connection begins with a header of the PROXY protocol.
    Raises ValueError when it, or a file that it names, cannot be used: one line with the field and what is accepted.
    """
    given = _fields(description)
    key, certificate = given.get("privateKey", ""), given.get("certKey") or given.get("privateKey", "")
    if not key:
        raise ValueError(f"privateKey: missing; expected {A_KEY}")
    port = _number("port", given.get("port", ""), 0)
    backlog = _number("backlog", given.get("backlog", "50"), 1)
    files = CertificateFiles(key, certificate, given.get("extraCertChain", ""), second=_second(given))
    contexts = Renewable(reactor.seconds, files, _context, "TLS")
    endpoint = opened or TCP4ServerEndpoint(reactor, port, backlog, given.get("interface", ""))
    return TlsEndpoint(reactor, contexts, endpoint, is_proxied=is_proxied)


@implementer(IStreamServerEndpoint)
class TlsEndpoint:
    """Listens where `endpoint` does, with TLS. `contexts`: by which connections are made."""

    def __init__(
        self, reactor: Any, contexts: Renewable[ssl.SSLContext], endpoint: IStreamServerEndpoint, *, is_proxied: bool
    ) -> None:
        self._reactor = reactor
        self._contexts = contexts
        self._endpoint = endpoint
        self._is_proxied = is_proxied

    @property
    def expires_at(self) -> float:
        """When the certificate ends that clients are shown now, or the first of two, in s since 1970."""
        self._contexts.current()
        return self._contexts.expires_at

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        inside = TlsFactory(self._reactor, self._contexts.current, factory, is_proxied=self._is_proxied)
        return self._endpoint.listen(inside).addCallback(lambda port: encrypted(port, inside))


def _second(given: dict[str, str]) -> CertificateFiles | None:
    """The files of the second key, if there is one."""
    named = [field for field in _SECOND if given.get(field)]
    if not named:
        return None
    key = given.get("privateKey2", "")
    if not key:
        raise ValueError(f"privateKey2: missing; expected {A_KEY}, for there is {named[0]}")
    return CertificateFiles(key, given.get("certKey2") or key, given.get("extraCertChain2", ""), _SECOND)


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


def _context(read: KeyAndChain) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | _ENABLE_KTLS
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)  # who goes without a word has not said good-bye
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols([PROTOCOL])
    context.num_tickets = 1  # each costs as much as all else of a handshake in Python, and one is used
    part: KeyAndChain | None = read
    while part is not None:
        with _as_file(part.as_pem()) as path:
            context.load_cert_chain(path)
        part = part.second
    return context


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """A file that only this process can read, for OpenSSL, which reads keys from nowhere else. None on a disk, if the
    system has any.
    """
    if hasattr(os, "memfd_create"):
        with os.fdopen(os.memfd_create("key"), "wb") as file:
            file.write(content)
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        with tempfile.NamedTemporaryFile() as named:
            named.write(content)
            named.flush()
            yield named.name
