"""The answer to a request for a WebSocket: checked as RFC 6455, section 4.2, has it; deflate as in RFC 7692.

An offer of deflate that cannot be taken is declined, as all other extensions are. Of one that is taken both sides
compress each message by itself: ours is the same for all clients then, and theirs needs no memory in between.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator, Mapping
from hashlib import sha1

import msgspec
from autobahn.websocket.compress import PerMessageDeflate, PerMessageDeflateOffer, PerMessageDeflateOfferAccept

from marketfeed.http.head import header_words

__all__ = ["Switch", "switch_protocols"]

_KEY = re.compile(r"[A-Za-z0-9+/]{22}==")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/,@]+)(:\d{1,5})?")
_ORIGIN = re.compile(r"null|[A-Za-z][A-Za-z0-9+.-]*://[^\s/,]*")
_VERSIONS = ("13", "8")
_LONGEST_OFFER = 1024  # characters; longer ones are declined unread
_LEAST_WINDOW = 9  # bits; zlib has none of 8
_MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
_SWITCHING = "HTTP/1.1 101 Switching Protocols\r\nServer: marketfeed\r\nUpgrade: WebSocket\r\nConnection: Upgrade"


class Switch(msgspec.Struct, frozen=True):
    """The answer 101, after which frames are spoken; `deflate`: how messages are compressed, None if they are not."""

    response: bytes
    deflate: PerMessageDeflate | None


def switch_protocols(
    headers: Mapping[str, str], *, compress: bool, protocol: str | None = None, version: str = "HTTP/1.1"
) -> Switch | None:
    """Answer a request with these headers, named in lower case. None: it is no proper handshake.

    `protocol`: the one of the offered subprotocols to speak. `version`: of HTTP, as the request has it.
    """
    key = headers.get("sec-websocket-key", "")
    protocols = headers.get("sec-websocket-protocol")
    offered = [name.strip() for name in protocols.split(",") if name.strip()] if protocols else []
    if not (
        version == "HTTP/1.1"
        and "upgrade" in header_words(headers.get("connection", ""))
        and _KEY.fullmatch(key)
        and _HOST.fullmatch(headers.get("host", ""))
        and ("origin" not in headers or _ORIGIN.fullmatch(headers["origin"]))
        and headers.get("sec-websocket-version") in _VERSIONS
        and len(set(offered)) == len(offered)
    ):
        return None
    lines = [_SWITCHING]
    if protocol is not None:
        lines.append(f"Sec-WebSocket-Protocol: {protocol}")
    lines.append(f"Sec-WebSocket-Accept: {b64encode(sha1((key + _MAGIC).encode()).digest()).decode()}")
    deflate = None
    extensions = headers.get("sec-websocket-extensions")
    offer = _usable_offer(extensions) if compress and extensions else None
    if offer is not None:
        offer.request_no_context_takeover = True  # announced whether or not it was offered
        accepted = PerMessageDeflateOfferAccept(offer, request_no_context_takeover=True, no_context_takeover=True)
        deflate = PerMessageDeflate.create_from_offer_accept(True, accepted)
        lines.append(f"Sec-WebSocket-Extensions: {accepted.get_extension_string()}")
    return Switch("\r\n".join([*lines, "", ""]).encode("latin-1"), deflate)


def _usable_offer(extensions: str) -> PerMessageDeflateOffer | None:
    """The first offer of deflate that can be taken."""
    if len(extensions) > _LONGEST_OFFER:
        return None
    for parameters in _deflate_offers(extensions):
        try:
            offer: PerMessageDeflateOffer = PerMessageDeflateOffer.parse(parameters)
        except Exception:
            continue
        if offer.request_max_window_bits in (0, *range(_LEAST_WINDOW, 16)):
            return offer
    return None


def _deflate_offers(extensions: str) -> Iterator[dict[str, list[str | bool]]]:
    """The parameters of each, by name, as `PerMessageDeflateOffer` takes them: lists of values, True where is none."""
    for extension in extensions.split(","):
        name, *rest = extension.split(";")
        if name.strip().lower() == "permessage-deflate":
            parameters: dict[str, list[str | bool]] = {}
            for key, equals, value in (each.partition("=") for each in rest):
                bare = value.strip().removeprefix('"').removesuffix('"')
                parameters.setdefault(key.strip().lower(), []).append(bare if equals else True)
            yield parameters
