"""The fields of a `24hrTicker` that an engine does not give (docs/protocol.md#payloads).

1. What somebody knows, statistics of a day or the book, comes first; for the rest it is as if nothing had been traded
   before: prices are the last one, sums and quantities 0. There are clients who end for each field that is missing.
2. What follows from other fields is consistent with them: the change from the open, high and low around both.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation

import msgspec

__all__ = ["TICKER_FIELDS", "ticker_fields"]

TICKER_FIELDS = ("p", "P", "w", "x", "Q", "b", "B", "a", "A", "o", "h", "l", "v", "q", "O", "C", "F", "L", "n")
"""All of them but for the last price, which is required."""

_DAY = 86_400_000
_ZERO = b'"0.00000000"'
_encode = msgspec.json.encode
_PERCENT = Decimal("0.001")


def ticker_fields(given: Mapping[str, msgspec.Raw], known: Mapping[str, bytes], at: int) -> dict[str, bytes]:
    """Values as JSON for the fields that are not `given`. `known`: some of them; `at`: the time of the event, in ms.

    Raises ValueError where the last price is no decimal.
    """
    if all(name in given for name in TICKER_FIELDS):
        return {}
    last = _text(given["c"])
    have = {name: _text(given[name]) for name in ("o", "h", "l", "p") if name in given}
    have = {**{name: _text(value) for name, value in known.items() if name in ("o", "h", "l")}, **have}
    close = _decimal(last)
    opened = have.get("o") or (_plain(close - _decimal(have["p"])) if "p" in have else last)
    start = _decimal(opened)
    change = close - start
    percent = change / start * 100 if start else Decimal(0)
    flat: dict[str, bytes] = {
        "p": _encode(_plain(change)) if change else _ZERO,
        "P": _encode(_plain(percent.quantize(_PERCENT))),
        "w": _encode(last),
        "x": _encode(opened),
        "o": _encode(opened),
        "h": _encode(max(last, opened, key=_decimal)),
        "l": _encode(min(last, opened, key=_decimal)),
        "O": b"%d" % (at - _DAY),
        "C": b"%d" % at,
        "F": b"-1",
        "L": b"-1",
        "n": b"0",
    }
    return {name: known.get(name) or flat.get(name, _ZERO) for name in TICKER_FIELDS if name not in given}


def _text(value: bytes | msgspec.Raw) -> str:
    """A decimal, which is a JSON string or number, as it is written."""
    token = bytes(value)
    return msgspec.json.decode(token, type=str) if token.startswith(b'"') else token.decode()


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
