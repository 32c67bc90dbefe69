"""The fields of a `24hrTicker` that an engine does not give (docs/protocol.md#payloads).

1. What somebody knows, statistics of a day or the book, comes first; for the rest it is as if nothing had been traded
   before: prices are the last one, sums and quantities 0. There are clients who end for each field that is missing.
2. What follows from other fields is consistent with them: the change from the open, high and low around both.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from functools import lru_cache

import msgspec

from marketfeed.model.decimals import is_decimal
from marketfeed.model.levels import text_of

__all__ = ["DAY", "TICKER_FIELDS", "ticker_fields"]

TICKER_FIELDS = ("p", "P", "w", "x", "Q", "b", "B", "a", "A", "o", "h", "l", "v", "q", "O", "C", "F", "L", "n")
"""All of them but for the last price, which is required."""

_ALL = frozenset(TICKER_FIELDS)
_PRICES = tuple([name for name in TICKER_FIELDS if name not in "OC"])
DAY = 86_400_000
"""ms."""
_ZERO = b'"0.00000000"'
_encode = msgspec.json.encode
_PERCENT = Decimal("0.001")


def ticker_fields(given: Mapping[str, msgspec.Raw], known: Mapping[str, bytes]) -> dict[str, bytes]:
    """Values as JSON for the fields that are not `given`. `known`: some of them.

    When the day begins and ends (`O`, `C`) is among them only if it is known.

    Raises ValueError where the last price is no decimal.
    """
    if given.keys() >= _ALL:
        return {}
    opened = _decimal_in(given.get("o")) or _decimal_in(known.get("o"))
    change = "" if opened else _decimal_in(given.get("p"))
    flat = _prices(text_of(given["c"]), opened, change)
    return {name: value for name, value in {**flat, **known}.items() if name not in given}


def _decimal_in(token: bytes | msgspec.Raw | None) -> str:
    """A decimal of JSON as text; empty: it is none, and says nothing of other fields."""
    try:
        text = "" if token is None else text_of(token)
    except msgspec.DecodeError:
        return ""
    return text if is_decimal(text) else ""


@lru_cache(maxsize=1024)
def _prices(last: str, opened: str, change: str) -> dict[str, bytes]:
    """All but the times, by the last price and that of the open, if it is known, or else the change between the two."""
    close = _decimal(last)
    opened = opened or (_plain(close - _decimal(change)) if change else last)
    start = _decimal(opened)
    percent = (close - start) / start * 100 if start else Decimal(0)
    return {
        **dict.fromkeys(_PRICES, _ZERO),
        "p": _encode(_plain(close - start)) if close != start else _ZERO,
        "P": _encode(_plain(percent.quantize(_PERCENT))),
        "w": _encode(last),
        "x": _encode(opened),
        "o": _encode(opened),
        "h": _encode(max(last, opened, key=_decimal)),
        "l": _encode(min(last, opened, key=_decimal)),
        "F": b"-1",
        "L": b"-1",
        "n": b"0",
    }


def _decimal(text: str) -> Decimal:
    try:
        found = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"no decimal: {text!r}") from None
    if not found.is_finite():
        raise ValueError(f"no decimal: {text!r}")
    return found


def _plain(value: Decimal) -> str:
    return format(value, "f")
