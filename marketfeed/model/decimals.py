"""Prices and quantities: what they may be, and which are the same (docs/protocol.md#what-the-engine-publishes).

1. Text is a decimal of at most 64 characters whose exponent, if it has one, is from -99 to 99. No price has more, and
   whatever is computed with one stays small.
2. A JSON number may be longer. One that is beyond those bounds is what a double makes of it, as it is for the clients.
3. Equal decimals have equal places however they are spelled, others have not. Places sort as the decimals do.
4. Nearly all are short and plainly written. Many of those are looked at in a few calls for all of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from decimal import Decimal

import msgspec

__all__ = ["ACCEPTED", "PLAIN", "Place", "in_order", "is_decimal", "place_of", "read_plain"]

Place = float | tuple[Decimal]
"""Where a price stands. A float is for the decimal that it is written as; a tuple is for one that no float is."""

ACCEPTED = "a decimal of at most 64 characters, with an exponent from -99 to 99"
PLAIN = 15
"""Digits that a double holds: to a decimal of so many characters, without an exponent, its float is its place."""

_LONGEST = 64
_DECIMAL = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?0*\d{1,2})?", re.ASCII)  # takes linear time
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?0*\d{1,3})?", re.ASCII)
_PLAIN_CHARACTERS = b"0123456789.-,"
_floats = msgspec.json.Decoder(list[float]).decode


def is_decimal(text: str) -> bool:
    """Whether `text` is a decimal within the bounds."""
    return len(text) <= _LONGEST and _DECIMAL.fullmatch(text) is not None


def read_plain(texts: Sequence[str]) -> list[float] | None:
    """What decimals are as floats, where all of `texts` are within the bounds, and written as JSON writes numbers.

    None: some are written in another way, or have an exponent, or are no decimals.
    """
    joined = ",".join(texts).encode()
    if joined.translate(None, _PLAIN_CHARACTERS):
        return None
    try:
        floats = _floats(b"[%b]" % joined)
    except msgspec.DecodeError:
        return None
    if len(floats) != len(texts) or (len(joined) > _LONGEST and max(map(len, texts)) > _LONGEST):
        return None
    return floats


def place_of(text: str, *, is_number: bool) -> Place:
    """The place of a decimal. `is_number`: it is a JSON number, not a string.

    Raises ValueError when it is no decimal, or beyond every bound.
    """
    value = float(text)
    if is_number:
        if not math.isfinite(value):
            raise ValueError("expected a number that a double can hold")
        if not value or not _NUMBER.fullmatch(text):
            return value
    elif not is_decimal(text):
        raise ValueError(f"expected {ACCEPTED}")
    exact = Decimal(text)
    return value if Decimal(repr(value)) == exact else (exact,)


def in_order(places: list[Place], *, is_descending: bool) -> None:
    """Sort `places`."""
    try:
        places.sort(reverse=is_descending)
    except TypeError:  # there are some of both kinds
        places.sort(key=lambda place: place[0] if isinstance(place, tuple) else place, reverse=is_descending)
