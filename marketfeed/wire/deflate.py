"""permessage-deflate of what the server sends (RFC 7692): each message by itself, so that its bytes suit everybody."""

from __future__ import annotations

import zlib

from marketfeed.wire.frames import text_header

__all__ = [
    "LARGE",
    "LEAST",
    "compressed_body",
    "compressed_frame",
    "frame_around",
    "inflate",
    "shared_window",
    "useful_window",
]

LEAST = 200
"""Bytes below which a message is not worth compressing."""
LARGE = 2048
"""Bytes from which on what stands around a publication need not be compressed with it."""
_LEVEL = 4
_FLUSHED = 4  # bytes at the end of a flush that the receiver adds itself
_EMPTY = b"\0"  # the rest of an empty block is what the receiver adds
_COMPRESSED = 0x40  # the header's first reserved bit


def useful_window(size: int, window: int) -> int:
    """The bits of a window that make a difference to `size` bytes: where they are equal, the compressed bytes are."""
    return min(window, max(9, size.bit_length()))  # a larger window costs time, and would stay empty


def compressed_frame(payload: bytes, window: int) -> bytes | None:
    """`payload` as one compressed frame for a window of `window` bits; None if that would not make it smaller."""
    size = len(payload)
    if size < LEAST:
        return None
    body = _deflated(payload, window)[:-_FLUSHED]
    return _framed(body) if len(body) < size else None


def shared_window(window: int) -> int:
    """The bits of the window for which large data are compressed: a few kinds, for each is another compression."""
    return window - window % 3


def compressed_body(data: bytes, window: int) -> bytes:
    """`data` by itself, compressed for a window of `window` bits or more: the same for all that may stand around it."""
    return _deflated(data, shared_window(window))


def frame_around(head: bytes, body: bytes, tail: bytes) -> bytes:
    """What `compressed_body` has made of some data as one frame, with `head` before and `tail` behind the data."""
    if not tail:
        return _framed(_stored(head) + body[:-_FLUSHED])
    return _framed(b"".join((_stored(head), body, _stored(tail), _EMPTY)))


def _deflated(payload: bytes, window: int) -> bytes:
    bits = useful_window(len(payload), window)
    deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, -bits, min(8, bits - 5))
    return deflate.compress(payload) + deflate.flush(zlib.Z_SYNC_FLUSH)


def _stored(text: bytes) -> bytes:
    """A block that is not compressed (RFC 1951, section 3.2.4), where another one has ended with a byte."""
    size = len(text)
    return b"\0%b%b%b" % (size.to_bytes(2, "little"), (size ^ 0xFFFF).to_bytes(2, "little"), text) if text else b""


def _framed(body: bytes) -> bytes:
    header = text_header(len(body))
    return bytes((header[0] | _COMPRESSED,)) + header[1:] + body


def inflate(frame: bytes) -> bytes:
    """The payload of an unmasked frame, compressed or not."""
    start = 2 if frame[1] < 126 else 4 if frame[1] == 126 else 10
    if frame[0] & _COMPRESSED:
        return zlib.decompress(frame[start:] + b"\x00\x00\xff\xff\x03\x00", -15)
    return frame[start:]
