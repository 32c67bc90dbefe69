"""Whole numbers as they are written in options, in queries, in files: with digits, and nothing else."""

from __future__ import annotations

__all__ = ["whole"]


def whole(text: str, digits: int) -> int | None:
    """The number that `text` is, of at most so many digits of ASCII; None: it is no such number.

    Python's `int` takes signs, underscores, blanks and the digits of every script as well, at any length.
    """
    return int(text) if text.isascii() and text.isdigit() and len(text) <= digits else None
