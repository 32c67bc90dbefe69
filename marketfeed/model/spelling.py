"""How prices and quantities are written for clients who keep a book by their texts (docs/protocol.md#payloads).

There are clients who keep a book by the texts of its prices: to them `1000.5` and `1000.50` are two levels.

1. A rule is a number of decimals: a price has so many at least, and more only where it needs them. An engine that is
   consistent keeps to one, with a number of decimals or with none that is superfluous, and its prices stay as they are.
2. The rules that all prices so far have kept to are known. A price that keeps to none of them is written anew, by the
   first that is left. So what has been written once is never written in another way.
3. A quantity of zero is one text, by which a level is deleted; others stay as they are. All are strings.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal

import msgspec

from marketfeed.model.decimals import place_of

__all__ = ["AMOUNTS", "ZERO", "PriceSpelling", "spelled_levels"]

ZERO = "0.00000000"
"""A quantity of zero."""

_REMEMBERED = 16384
_string = msgspec.json.Decoder(str).decode
_PLAIN = re.compile(r"(?:0|[1-9][0-9]*)(?:\.([0-9]+))?", re.ASCII)
_MOST_DECIMALS = 400  # more than any price has


class _Spelling(dict[str, str]):
    """Text as the engine has written it → as it is to be written. Raises ValueError for what is no decimal.

    `kept`: some that are to be written as they are, for a look at many in one call.
    """

    __slots__ = ("kept",)

    def __init__(self) -> None:
        super().__init__()
        self.kept: set[str] = set()

    def __missing__(self, text: str) -> str:
        spelled = self.spell(text, is_number=False)
        if len(self) >= _REMEMBERED:
            self.clear()
            self.kept.clear()
        self[text] = spelled
        if spelled == text:
            self.kept.add(text)
        return spelled

    def spell(self, text: str, *, is_number: bool) -> str:
        """What is written as `text`, a JSON number or the text of a string. Raises ValueError when it is no decimal."""
        raise NotImplementedError

    def keeps(self, value: str | float) -> bool:
        """Whether what is written as `value` is to be written as it is: a string, spelled like that."""
        return isinstance(value, str) and self[value] == value

    def of(self, value: str | msgspec.Raw) -> str:
        """The same, of a text or of JSON."""
        if isinstance(value, str):
            return self[value]
        token = bytes(value)
        return self[_string(token)] if token.startswith(b'"') else self.spell(token.decode(), is_number=True)


class PriceSpelling(_Spelling):
    """The prices of one stream."""

    __slots__ = ("_least", "_most")

    def __init__(self) -> None:
        super().__init__()
        self._least, self._most = 0, _MOST_DECIMALS  # the rules that are left

    def spell(self, text: str, *, is_number: bool) -> str:
        found = _PLAIN.fullmatch(text)
        if found is None or not self._keep_to(found[1] or ""):
            text = _written(text, self._least, is_number=is_number)
            self._keep_to(text.partition(".")[2])
        return text

    def _keep_to(self, decimals: str) -> bool:
        """Leave the rules by which a price has these decimals; False: there are none."""
        most = len(decimals)
        least = most if decimals.endswith("0") else 0
        least, most = max(least, self._least), min(most, self._most)
        if least > most:
            return False
        self._least, self._most = least, most
        return True


class _Amounts(_Spelling):
    """Quantities, of all streams."""

    __slots__ = ()

    def spell(self, text: str, *, is_number: bool) -> str:
        return ZERO if place_of(text, is_number=is_number) == 0 else text


AMOUNTS = _Amounts()
"""The quantities of all streams."""


def spelled_levels(
    levels: Iterable[tuple[str | msgspec.Raw, str | msgspec.Raw]], prices: PriceSpelling
) -> list[tuple[str, str]]:
    """Levels as texts. `prices`: those of their stream. Raises ValueError where something is no decimal."""
    price_of, amount_of = prices.of, AMOUNTS.of
    return [(price_of(price), amount_of(amount)) for price, amount in levels]


def _written(text: str, decimals: int, *, is_number: bool) -> str:
    place = place_of(text, is_number=is_number)
    exact = place[0] if isinstance(place, tuple) else Decimal(repr(place))
    whole, _, fraction = format(exact, "f").partition(".")
    fraction = fraction.rstrip("0").ljust(decimals, "0")
    if whole == "-0" and not fraction.strip("0"):
        whole = "0"
    return f"{whole}.{fraction}" if fraction else whole
