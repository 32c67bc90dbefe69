"""WebSocket framing (RFC 6455, section 5.2): what the server sends, and the one shape in which most requests come.

1. What is written is whole, unmasked, uncompressed frames.
2. What is read is a masked text frame that is a whole message and all that came; whatever differs is `None`, and for
   a reader of the whole protocol.
"""

from __future__ import annotations

from typing import Final

__all__ = ["HEADERS", "frame_end", "masked_text", "text_frame", "text_header"]

_FEW: Final = 4096


def text_header(size: int) -> bytes:
    """The header of a final text frame whose payload has `size` bytes."""
    if size < 126:
        return bytes((0x81, size))
    if size < 65536:
        return b"\x81\x7e" + size.to_bytes(2, "big")
    return b"\x81\x7f" + size.to_bytes(8, "big")


HEADERS: Final = [text_header(size) for size in range(_FEW)]
"""`text_header` of payloads that have fewer bytes than there are of these, as nearly all have."""


def text_frame(payload: bytes) -> bytes:
    """`payload`, UTF-8 text, as one frame."""
    size = len(payload)
    return (HEADERS[size] if size < _FEW else text_header(size)) + payload


def frame_end(frames: bytes, at: int) -> int:
    """Where the frame ends that byte `at` of whole, unmasked frames is in, or `at` itself where none has begun."""
    end = 0
    while end < at:
        size = frames[end + 1]
        extended = {126: 2, 127: 8}.get(size, 0)
        if extended:
            size = int.from_bytes(frames[end + 2 : end + 2 + extended], "big")
        end += 2 + extended + size
    return end


def masked_text(data: bytes) -> bytes | None:
    """The payload, UTF-8, when `data` is exactly one final, masked, uncompressed text frame of 1 byte to 64 KiB."""
    if len(data) < 7 or data[0] != 0x81:
        return None
    length = data[1]
    if 0x80 < length < 0xFE:
        start, size = 6, length - 0x80
    elif length == 0xFE and (size := int.from_bytes(data[2:4], "big")) >= 126:
        start = 8
    else:
        return None
    if len(data) != start + size:
        return None
    mask = (data[start - 4 : start] * (-(-size // 4)))[:size]
    payload = (int.from_bytes(data[start:], "big") ^ int.from_bytes(mask, "big")).to_bytes(size, "big")
    if not payload.isascii():
        try:
            payload.decode()
        except UnicodeDecodeError:
            return None
    return payload
