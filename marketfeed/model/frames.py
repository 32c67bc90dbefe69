"""WebSocket framing of what the server sends (RFC 6455, section 5.2): whole, unmasked, uncompressed frames."""

from __future__ import annotations

__all__ = ["text_frame", "text_header"]

_SHORT = [bytes((0x81, size)) for size in range(126)]


def text_header(size: int) -> bytes:
    """The header of a final text frame whose payload has `size` bytes."""
    if size < 126:
        return _SHORT[size]
    if size < 65536:
        return b"\x81\x7e" + size.to_bytes(2, "big")
    return b"\x81\x7f" + size.to_bytes(8, "big")


def text_frame(payload: bytes) -> bytes:
    """`payload`, UTF-8 text, as one frame."""
    return text_header(len(payload)) + payload
