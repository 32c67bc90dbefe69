"""Redis' protocol as it is written (RESP, an array of bulk strings)."""

from __future__ import annotations

__all__ = ["pack"]


def pack(*words: bytes | str) -> bytes:
    """A command as it is sent."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        data = word.encode() if isinstance(word, str) else word
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)
