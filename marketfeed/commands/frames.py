"""WebSocket frames from a client's side (RFC 6455, section 5): cut out of what a server sends, and written. Pure.

1. The server is not trusted: what one message may take is bounded, and what no server may send is refused.
2. A message that is not complete is left for later, with whatever stands behind it.
"""

from __future__ import annotations

import os
import zlib
from typing import NamedTuple

__all__ = ["CLOSE", "MAX_MESSAGE", "NO_CODE", "PING", "PONG", "BadFrames", "Control", "Cut", "cut", "masked_frame"]

MAX_MESSAGE = 16 * 1024 * 1024
"""Bytes of a message; a server that sends a longer one is not believed."""
NO_CODE = 1005  # RFC 6455, section 7.1.5

_CONTINUATION, _TEXT, _BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
_FIN, _DEFLATED = 0x80, 0x40
_CONTROLS = (_FIN | CLOSE, _FIN | PING, _FIN | PONG)
_BEGINNINGS = (_TEXT, _BINARY, _DEFLATED | _TEXT, _DEFLATED | _BINARY)
_END_OF_BLOCK = b"\x00\x00\xff\xff"  # which RFC 7692, section 7.2.1, leaves out


class BadFrames(ValueError):
    """The bytes are no frames that a server may send; the message says what they are."""


class Control(NamedTuple):
    """A control frame."""

    opcode: int
    payload: bytes

    @property
    def close_code(self) -> int:
        """Of a close: its code, `NO_CODE` where it has none."""
        return int.from_bytes(self.payload[:2], "big") if self.payload else NO_CODE


Cut = tuple[bytes | None, list[Control], int]
"""A message, or None; the control frames before it or amid it; and where they end."""


def masked_frame(payload: bytes, opcode: int = _TEXT) -> bytes:
    """A frame as a client sends it, with a mask that nobody foresees."""
    size = len(payload)
    if size < 126:
        head = bytes((_FIN | opcode, 0x80 | size))
    elif size < 65536:
        head = bytes((_FIN | opcode, 0xFE)) + size.to_bytes(2, "big")
    else:
        head = bytes((_FIN | opcode, 0xFF)) + size.to_bytes(8, "big")
    mask = os.urandom(4)
    whole = (mask * (size // 4 + 1))[:size]
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(whole, "big")
    return head + mask + masked.to_bytes(size, "big")


def cut(data: bytes, at: int = 0, *, may_deflate: bool = True) -> Cut | None:
    """The next message or control frame from `at` on; None when it is not complete. Raises `BadFrames`.

    `may_deflate`: the server may, for it was asked to.
    """
    parts: list[bytes] = []
    controls: list[Control] = []
    kind = _CONTINUATION
    while True:
        if len(data) - at < 2:
            return None
        first, size = data[at], data[at + 1]
        start = at + 2
        if size > 125:
            if size > 127:
                raise BadFrames("a masked frame")
            start = at + (4 if size == 126 else 10)
            size = int.from_bytes(data[at + 2 : start], "big")
        if size + sum(map(len, parts)) > MAX_MESSAGE:
            raise BadFrames(f"a message of more than {MAX_MESSAGE} bytes")
        at = start + size
        if at > len(data):
            return None
        payload = data[start:at]
        if first in _CONTROLS and size <= 125:
            controls.append(Control(first & 0x0F, payload))
            if not parts:
                return None, controls, at
            continue
        opcode = first & 0x7F
        if not parts and opcode in _BEGINNINGS and (may_deflate or not opcode & _DEFLATED):
            kind = opcode
        elif not parts or opcode != _CONTINUATION:
            raise BadFrames(f"a frame that begins with {first:#04x}")
        parts.append(payload)
        if first & _FIN:
            message = payload if len(parts) == 1 else b"".join(parts)
            if kind & _DEFLATED:
                message = _inflate(message)
            if kind & _TEXT and not message.isascii():
                _check_text(message)
            return message, controls, at


def _check_text(message: bytes) -> None:
    try:
        message.decode()
    except UnicodeDecodeError:
        raise BadFrames("a text that is not UTF-8") from None


def _inflate(data: bytes) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        message = inflater.decompress(data + _END_OF_BLOCK, MAX_MESSAGE)
    except zlib.error:
        raise BadFrames("a message that cannot be inflated") from None
    if inflater.unconsumed_tail:
        raise BadFrames(f"a message of more than {MAX_MESSAGE} bytes")
    return message
