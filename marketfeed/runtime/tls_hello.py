"""What comes first on a connection with TLS, looked at before OpenSSL reads it: a PROXY header, then a ClientHello.

Pure: bytes that have come so far, and what they are. Nothing that is read here is kept.
"""

from __future__ import annotations

from typing import NamedTuple

from twisted.internet.interfaces import IAddress
from twisted.protocols.haproxy._exceptions import InvalidProxyHeader
from twisted.protocols.haproxy._v1parser import V1Parser
from twisted.protocols.haproxy._v2parser import V2Parser

__all__ = ["LONGEST_FIRST", "ProxyHeader", "offered_protocols", "proxy_header"]

LONGEST_FIRST = 16384
"""Bytes that are looked at: a PROXY header and a ClientHello that take more are looked at no further."""

_HANDSHAKE = 22  # RFC 8446, section 5.1
_CLIENT_HELLO = 1  # section 4
_ALPN = 16  # RFC 7301, section 3.1
_LONGEST_V1 = 107  # the PROXY protocol, section 2.1, with the line's end


class ProxyHeader(NamedTuple):
    """How many bytes it takes, and whose connection it says this is; without addresses it is the proxy's own."""

    size: int
    source: IAddress | None
    destination: IAddress | None


def proxy_header(data: bytes) -> ProxyHeader | None:
    """The header of the PROXY protocol, version 1 or 2, with which `data` begins; None: more is needed to tell.

    Raises ValueError where it begins with none.
    """
    if data[:12] == V2Parser.PREFIX[: len(data)]:
        size = 16 + int.from_bytes(data[14:16], "big")
        if len(data) < size or len(data) < 16:
            return None
        header = data[:size]
    elif data[:6] == b"PROXY "[: len(data)]:
        end = data.find(b"\r\n", 0, _LONGEST_V1)
        if end < 0:
            if len(data) >= _LONGEST_V1:
                raise ValueError
            return None
        header, size = data[:end], end + 2
        if header == b"PROXY UNKNOWN":  # for which Twisted expects more
            return ProxyHeader(size, None, None)
    else:
        raise ValueError
    try:
        info = V2Parser.parse(header) if header[:1] == b"\r" else V1Parser.parse(header)
    except (InvalidProxyHeader, ValueError, LookupError):
        raise ValueError from None
    return ProxyHeader(size, info.source, info.destination)


def offered_protocols(data: bytes) -> list[bytes] | None:
    """The protocols that a ClientHello offers (ALPN, RFC 7301), which may be none; None: more is needed to tell.

    What is no ClientHello offers none: OpenSSL says what is wrong with it.
    """
    message = b""
    at = 0
    while True:  # a message may come in several records
        if data[at : at + 1] not in (b"", b"\x16"):
            return []
        if len(data) < at + 5:
            return None
        end = at + 5 + int.from_bytes(data[at + 3 : at + 5], "big")
        message += data[at + 5 : end]
        if message and message[0] != _CLIENT_HELLO:
            return []
        if len(message) >= 4 and len(message) >= (size := 4 + int.from_bytes(message[1:4], "big")):
            return _alpn(message[4:size])
        if len(data) < end:
            return None
        at = end


def _alpn(hello: bytes) -> list[bytes]:
    """RFC 8446, section 4.1.2: version, random, session, ciphers, compressions, and then the extensions."""
    at = 34
    for width in (1, 2, 1):
        at += width + int.from_bytes(hello[at : at + width], "big")
    at += 2
    while at + 4 <= len(hello):
        kind, size = int.from_bytes(hello[at : at + 2], "big"), int.from_bytes(hello[at + 2 : at + 4], "big")
        if kind == _ALPN:
            return _names(hello[at + 6 : at + 4 + size])
        at += 4 + size
    return []


def _names(text: bytes) -> list[bytes]:
    names = []
    at = 0
    while at < len(text):
        end = at + 1 + text[at]
        names.append(text[at + 1 : end])
        at = end
    return names
