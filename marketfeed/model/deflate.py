"""permessage-deflate of what the server sends (RFC 7692): each message by itself, so that its bytes suit everybody."""

from __future__ import annotations

import zlib

from marketfeed.model.frames import text_header

__all__ = ["LEAST", "compressed_frame", "inflate", "useful_window"]

LEAST = 200
"""Bytes below which a message is not worth compressing."""
_LEVEL = 4
_FLUSHED = 4  # bytes at the end of a flush that the receiver adds itself
_COMPRESSED = 0x40  # the header's first reserved bit


def useful_window(size: int, window: int) -> int:
    """The bits of a window that make a difference to `size` bytes: where they are equal, the compressed bytes are."""
    return min(window, max(9, size.bit_length()))  # a larger window costs time, and would stay empty


def compressed_frame(payload: bytes, window: int) -> bytes | None:
    """`payload` as one compressed frame for a window of `window` bits; None if that would not make it smaller."""
    size = len(payload)
    if size < LEAST:
        return None
    bits = useful_window(size, window)
    deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, -bits, min(8, bits - 5))
    body = (deflate.compress(payload) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-_FLUSHED]
    if len(body) >= size:
        return None
    header = text_header(len(body))
    return bytes((header[0] | _COMPRESSED,)) + header[1:] + body


def inflate(frame: bytes) -> bytes:
    """The payload of an unmasked frame, compressed or not."""
    start = 2 if frame[1] < 126 else 4 if frame[1] == 126 else 10
    if frame[0] & _COMPRESSED:
        return zlib.decompress(frame[start:] + b"\x00\x00\xff\xff\x03\x00", -15)
    return frame[start:]
