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

__all__ = ["CONNECT_SECONDS", "check_files", "redis_endpoint"]

CONNECT_SECONDS = 10.0

_END_OF_CERTIFICATE = "-----END CERTIFICATE-----"
_NAMES = ("--redis-key", "--redis-certificate", "")


def redis_endpoint(reactor: Any, address: RedisAddress, tls: RedisTls) -> IStreamClientEndpoint:
    """Where to connect to. Raises ValueError when a file cannot be used: one line, which begins with its option."""
    if address.path:
        return UNIXClientEndpoint(reactor, address.path, timeout=CONNECT_SECONDS)
    tcp = HostnameEndpoint(reactor, address.host, address.port, timeout=CONNECT_SECONDS)
    return wrapClientTLS(_connections(reactor.seconds, address.host, tls), tcp) if address.tls else tcp


def check_files(address: Address, tls: RedisTls) -> None:
    """See that TLS can be made, to whichever server. Raises ValueError, as `redis_endpoint` does."""
    if address.tls:
        _connections(time.monotonic, "localhost", tls)


def _connections(now: Callable[[], float], host: str, tls: RedisTls) -> IOpenSSLClientConnectionCreator:
    trust = trustRootFromCertificates(_certificates(tls.ca)) if tls.ca else None
    if tls.certificate is None or tls.key is None:
        return optionsForClientTLS(host, trustRoot=trust)
    return _WithCertificate(now, host, trust, CertificateFiles(tls.key, tls.certificate, names=_NAMES))


@implementer(IOpenSSLClientConnectionCreator)
class _WithCertificate:
    """Makes the TLS side of connections on which we show who we are."""

    def __init__(self, now: Callable[[], float], host: str, trust: Any, files: CertificateFiles) -> None:
        def make(read: KeyAndChain) -> IOpenSSLClientConnectionCreator:
            return optionsForClientTLS(host, trustRoot=trust, extraCertificateOptions=read.as_options())

        self._creators = Renewable(now, files, make, "redis")

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        return self._creators.current().clientConnectionForTLS(tlsProtocol)


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
