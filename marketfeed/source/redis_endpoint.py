"""How to connect to the Redis server: its address as a Twisted endpoint, TLS with the host's name verified."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates

from marketfeed.redis_address import RedisAddress

__all__ = ["CONNECT_SECONDS", "redis_endpoint"]

CONNECT_SECONDS = 10.0

_END_OF_CERTIFICATE = "-----END CERTIFICATE-----"


def redis_endpoint(reactor: Any, address: RedisAddress, ca: str | None) -> IStreamClientEndpoint:
    """Where to connect to. Raises ValueError when `ca`, a file of PEM certificates, cannot be used."""
    if address.path:
        return UNIXClientEndpoint(reactor, address.path, timeout=CONNECT_SECONDS)
    tcp = HostnameEndpoint(reactor, address.host, address.port, timeout=CONNECT_SECONDS)
    if not address.tls:
        return tcp
    trust = trustRootFromCertificates(_certificates(ca)) if ca else None
    return wrapClientTLS(optionsForClientTLS(address.host, trustRoot=trust), tcp)


def _certificates(path: str) -> list[Certificate]:
    try:
        text = Path(path).read_text(encoding="ascii")
        blocks = [block + _END_OF_CERTIFICATE for block in text.split(_END_OF_CERTIFICATE)[:-1]]
        certificates = [Certificate.loadPEM(block.encode()) for block in blocks]
    except OSError as fault:
        raise ValueError(f"{path}: {fault.strerror}") from None
    except Exception:
        certificates = []
    if not certificates:
        raise ValueError(f"{path}: expected certificates in PEM format")
    return certificates
