"""Numbers as they are written: whole ones in options, in queries, in files, and sizes for people."""

from __future__ import annotations

__all__ = ["size", "whole"]


def whole(text: str, digits: int) -> int | None:
    """The number that `text` is, of at most so many digits of ASCII; None: it is no such number.

    Python's `int` takes signs, underscores, blanks and the digits of every script as well, at any length.
    """
    return int(text) if text.isascii() and text.isdigit() and len(text) <= digits else None


def size(count: float) -> str:
    """Bytes as people read them."""
    for unit in ("bytes", "KiB", "MiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
