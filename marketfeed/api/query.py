"""The parameters of a request for market data, as Binance's clients send them (docs/market-data.md#errors).

1. What cannot be used is a `BadQuery`, which names the parameter and what is accepted, and repeats no byte of it.
2. A parameter that nobody knows is nobody's.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qs

import msgspec

from marketfeed.model.kinds.values import is_market
from marketfeed.model.numbers import whole

__all__ = [
    "BAD_COMBINATION",
    "BAD_INTERVAL",
    "BAD_SYMBOL",
    "ILLEGAL",
    "MISSING",
    "BadQuery",
    "Query",
]

ILLEGAL, MISSING, BAD_INTERVAL, BAD_SYMBOL, BAD_COMBINATION = -1100, -1102, -1120, -1121, -1128
_MOST_SYMBOLS = 200
_DIGITS = 16
_MARKET = "1 to 64 of the characters A-Z a-z 0-9 . _ -"
_TIME_UNITS = ("millisecond", "MILLISECOND")
_TIME_ZONES = ("0", "+0", " 0", "-0", "0:00", "00:00", "+00:00", " 00:00", "-00:00")
_texts = msgspec.json.Decoder(list[str])


class BadQuery(Exception):
    """A request cannot be answered as it is: Binance's code, and why, for the client to read."""

    def __init__(self, text: str, code: int = ILLEGAL) -> None:
        super().__init__(text)
        self.text = text
        self.code = code


class Query:
    """What stands behind the `?`, and in the headers, which are named in lower case."""

    __slots__ = ("_fields",)

    def __init__(self, text: str, headers: Mapping[str, str] | None = None) -> None:
        self._fields = parse_qs(text, keep_blank_values=True)
        unit = (headers or {}).get("x-mbx-time-unit")
        for given in (unit, self.text("timeUnit")):
            if given is not None and given not in _TIME_UNITS:
                raise BadQuery("timeUnit: expected MILLISECOND, in which all times are, or nothing")
        zone = self.text("timeZone")
        if zone is not None and zone not in _TIME_ZONES:
            raise BadQuery("timeZone: expected 0, in which all times are, or nothing")

    def text(self, name: str) -> str | None:
        """A parameter as it was sent; None: it was not. Raises `BadQuery` where it was sent twice."""
        values = self._fields.get(name)
        if values is None:
            return None
        if len(values) > 1:
            raise BadQuery(f"{name}: expected one value")
        return values[0]

    def symbol(self) -> str:
        """The one market that is meant, as it was spelled. Raises `BadQuery`."""
        values = self._fields.get("symbol", [])
        if not any(values):
            raise BadQuery("symbol is mandatory: a market as in its streams' names, such as TATA_INR", MISSING)
        if len(values) > 1 or not is_market(values[0]):
            raise BadQuery(f"symbol: expected one market, {_MARKET}")
        return values[0]

    def symbols(self) -> list[str] | str | None:
        """The markets that are meant: one, a list of some, or None, which is all. Raises `BadQuery`."""
        text = self.text("symbols")
        if text is None:
            return self.symbol() if "symbol" in self._fields else None
        if "symbol" in self._fields:
            raise BadQuery("expected symbol or symbols, not both", BAD_COMBINATION)
        try:
            symbols = _texts.decode(text)
        except (ValueError, RecursionError):
            symbols = []
        if not 1 <= len(symbols) <= _MOST_SYMBOLS or not all(map(is_market, symbols)):
            expected = f'a list of at most {_MOST_SYMBOLS} markets as JSON, such as ["TATA_INR","INFY_INR"]'
            raise BadQuery(f"symbols: expected {expected}")
        return list(dict.fromkeys(symbols))

    def number(self, name: str) -> int | None:
        """A whole number, 0 or more; None: there is none. Raises `BadQuery`."""
        text = self.text(name)
        number = None if text is None else whole(text, _DIGITS)
        if text is not None and number is None:
            raise BadQuery(f"{name}: expected a whole number, 0 or more (up to {_DIGITS} digits)")
        return number

    def limit(self, usual: int, most: int) -> int:
        """How many are wanted, and no more than `most`. Raises `BadQuery`."""
        text = self.text("limit")
        if text is None:
            return usual
        limit = whole(text, _DIGITS) or 0
        if limit < 1:
            raise BadQuery(f"limit: expected a whole number, 1 or more; no more than {most} are given")
        return min(limit, most)
