"""WebSocket by hand, for tests that are about the bytes: handshakes and frames of any kind, good and bad (RFC 6455)."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from typing import Any

__all__ = ["BINARY", "CLOSE", "CONTINUATION", "KEY", "PING", "PONG", "TEXT", "close_code", "deflated"]
__all__ += ["frame", "frames_of", "handshake", "say"]

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def handshake(path: str = "/ws", **headers: str | None) -> bytes:
    """A request to upgrade; a header that is None is left out."""
    fields: dict[str, str | None] = {
        "Host": "localhost",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Version": "13",
    }
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items() if value is not None)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def frame(
    payload: bytes = b"",
    opcode: int = TEXT,
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = b"mask",
    announced: int | None = None,
    length_bytes: int | None = None,
) -> bytes:
    """A client's frame. `announced`: the length in its header; `length_bytes`: on how many bytes, 0, 2 or 8."""
    size = len(payload) if announced is None else announced
    if length_bytes is None:
        length_bytes = 0 if size < 126 else 2 if size < 65536 else 8
    head = bytes((fin << 7 | rsv << 4 | opcode, (mask is not None) << 7 | {0: size, 2: 126, 8: 127}[length_bytes]))
    if length_bytes:
        head += size.to_bytes(length_bytes, "big")
    if mask is None:
        return head + payload
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def deflated(payload: bytes, level: int = 6, mode: int = zlib.Z_SYNC_FLUSH) -> bytes:
    """As a client compresses a message by itself."""
    deflate = zlib.compressobj(level, zlib.DEFLATED, -15)
    return (deflate.compress(payload) + deflate.flush(mode))[:-4]


def say(request: object, **options: Any) -> bytes:
    """A client's frame with a request."""
    return frame(json.dumps(request).encode(), **options)


def frames_of(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Opcode and payload of the frames that a server sent; all must be whole, final and unmasked."""
    at = 0
    while at < len(data):
        first, size = data[at], data[at + 1]
        assert first & 0xF0 == 0x80, f"not the head of a final frame at byte {at}"
        at += 2
        extended = {126: 2, 127: 8}.get(size, 0)
        if extended:
            size = int.from_bytes(data[at : at + extended], "big")
            at += extended
        assert at + size <= len(data), "the last frame is cut"
        yield first & 0x0F, data[at : at + size]
        at += size


def close_code(payload: bytes) -> int:
    """The code of a close frame."""
    return int.from_bytes(payload[:2], "big")
