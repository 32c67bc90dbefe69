"""How to connect to the Redis server: its address as a Twisted endpoint, TLS with the host's name verified.

1. Files that cannot be used are found at the start, not at the first attempt to connect, when nobody looks.
2. A certificate of ours is shown, with those that vouch for it, to a server that asks for one. It may be renewed while
   the process runs (see `tls_files`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IStreamClientEndpoint
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates
from zope.interface import implementer

from marketfeed.redis.address import Address, RedisAddress
from marketfeed.redis.tls import RedisTls
from marketfeed.runtime.tls_files import CertificateFiles, KeyAndChain, Renewable

__all__ = ["CONNECT_SECONDS", "check_files", "redis_endpoint", "redis_endpoints"]

CONNECT_SECONDS = 10.0

_END_OF_CERTIFICATE = "-----END CERTIFICATE-----"
_NAMES = ("--redis-key", "--redis-certificate", "")


def redis_endpoint(reactor: Any, address: RedisAddress, tls: RedisTls) -> IStreamClientEndpoint:
    """Where to connect to. Raises ValueError when a file cannot be used: one line, which begins with its option."""
    return redis_endpoints(reactor, address, tls)(address)


def redis_endpoints(reactor: Any, address: Address, tls: RedisTls) -> Callable[[RedisAddress], IStreamClientEndpoint]:
    """What makes the endpoints of all servers that `address` is about. Raises ValueError, as `redis_endpoint` does."""
    files = _Files(reactor.seconds, tls) if address.tls else None

    def make(server: RedisAddress) -> IStreamClientEndpoint:
        if server.path:
            return UNIXClientEndpoint(reactor, server.path, timeout=CONNECT_SECONDS)
        tcp = HostnameEndpoint(reactor, server.host, server.port, timeout=CONNECT_SECONDS)
        return tcp if files is None else wrapClientTLS(files.connections_to(server.host), tcp)

    return make


def check_files(address: Address, tls: RedisTls) -> None:
    """See that TLS can be made, to whichever server. Raises ValueError, as `redis_endpoint` does."""
    if address.tls:
        _Files(time.monotonic, tls)


class _Files:
    """What TLS to any server takes, read once; our certificate may be renewed."""

    def __init__(self, now: Callable[[], float], tls: RedisTls) -> None:
        self._trust = trustRootFromCertificates(_certificates(tls.ca)) if tls.ca else None
        self._ours: Renewable[dict[str, Any]] | None = None
        if tls.certificate is not None and tls.key is not None:
            files = CertificateFiles(tls.key, tls.certificate, names=_NAMES)
            self._ours = Renewable(now, files, self._checked, "redis")

    def _checked(self, read: KeyAndChain) -> dict[str, Any]:
        options = read.as_options()
        optionsForClientTLS("localhost", trustRoot=self._trust, extraCertificateOptions=options)
        return options

    def connections_to(self, host: str) -> IOpenSSLClientConnectionCreator:
        """What makes the TLS side of connections to this host."""
        if self._ours is None:
            return optionsForClientTLS(host, trustRoot=self._trust)
        return _WithCertificate(host, self._trust, self._ours)


@implementer(IOpenSSLClientConnectionCreator)
class _WithCertificate:
    """Makes the TLS side of connections on which we show who we are."""

    def __init__(self, host: str, trust: Any, ours: Renewable[dict[str, Any]]) -> None:
        self._host = host
        self._trust = trust
        self._ours = ours
        self._made: tuple[dict[str, Any], IOpenSSLClientConnectionCreator] | None = None

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        options = self._ours.current()
        if self._made is None or self._made[0] is not options:
            made = optionsForClientTLS(self._host, trustRoot=self._trust, extraCertificateOptions=options)
            self._made = options, made
        return self._made[1].clientConnectionForTLS(tlsProtocol)


def _certificates(path: str) -> list[Certificate]:
    try:
        text = Path(path).read_text(encoding="ascii")
        blocks = [block + _END_OF_CERTIFICATE for block in text.split(_END_OF_CERTIFICATE)[:-1]]
        certificates = [Certificate.loadPEM(block.encode()) for block in blocks]
    except OSError as fault:
        raise ValueError(f"--redis-ca: {path}: {fault.strerror}") from None
    except Exception:
        certificates = []
    if not certificates:
        raise ValueError(f"--redis-ca: {path}: expected certificates in PEM format")
    return certificates
