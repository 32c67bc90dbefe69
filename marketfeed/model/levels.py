"""The levels of a side of an order book, read and put in place of one another (docs/protocol.md#slow-clients).

1. Prices are compared as decimals; prices and quantities are written as the engine wrote them.
2. Nearly all are short texts, plainly written, and come again and again: what is known of some is remembered. Many that
   are new are looked at together. Numbers, and texts with escapes, are read with care.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from marketfeed.model.decimals import ACCEPTED, PLAIN, Place, in_order, is_decimal, place_of, read_plain

__all__ = ["Level", "Row", "Side", "read_rows", "read_side", "text_of", "write_levels"]

Level = tuple[str | msgspec.Raw, str | msgspec.Raw]
"""Price and quantity, which are written as the engine wrote them."""
Row = tuple[str, str]
"""The same, of texts alone."""

_CACHED = 40  # characters of a decimal, beyond which it is not worth remembering
_REMEMBERED = 16384
_MANY = 16  # that are new, and are looked at together
_MOST_TOGETHER = 2048  # that are remembered of one side

_Raw = msgspec.Raw
_encode = msgspec.json.encode
_levels = msgspec.json.Decoder(list[tuple[_Raw, _Raw]]).decode
_string = msgspec.json.Decoder(str).decode


class Side(msgspec.Struct, eq=False):
    """The levels of one side by the places of their prices, and which of them have a quantity of zero."""

    levels: dict[Place, Level]
    zeros: set[Place]

    def __len__(self) -> int:
        return len(self.levels)

    def copy(self) -> Side:
        return Side(self.levels.copy(), self.zeros.copy())

    def take(self, later: Side, *, drops_zeros: bool) -> None:
        """Put the levels of `later` in the place of those of the same price."""
        self.levels.update(later.levels)
        if drops_zeros:
            for price in later.zeros:
                del self.levels[price]
        elif self.zeros or later.zeros:
            self.zeros.difference_update(later.levels)
            self.zeros |= later.zeros

    def keep_only(self, those: Side, zero: str) -> None:
        """Let every level that is not in `those` have a quantity of zero, written like that."""
        for place in self.levels.keys() - those.levels.keys() - self.zeros:
            self.levels[place] = self.levels[place][0], zero
            self.zeros.add(place)

    def drop_zeros(self) -> None:
        """Keep no level of quantity zero."""
        for price in self.zeros:
            del self.levels[price]
        self.zeros.clear()

    def in_order(self, *, is_descending: bool) -> list[Level]:
        """The levels by price."""
        return [self.levels[place] for place in self.places_in_order(is_descending=is_descending)]

    def places_in_order(self, *, is_descending: bool) -> list[Place]:
        """The places of the levels, sorted."""
        places = list(self.levels)
        in_order(places, is_descending=is_descending)
        return places

    def longest(self) -> int:
        """The bytes of price and quantity in the longest level, as JSON."""
        return max([_size(price) + _size(quantity) for price, quantity in self.levels.values()], default=0)


class _Places(dict[str, Place]):
    """The text of a price → its place. Raises ValueError for what is no decimal, TypeError for what is no text."""

    def __missing__(self, text: str) -> Place:
        place = place_of(text, is_number=False)
        if len(text) <= _CACHED:
            self._remember({text: place})
        return place

    def _remember(self, places: dict[str, Place]) -> None:
        if len(places) > _MOST_TOGETHER:
            return
        if len(self) + len(places) > _REMEMBERED:
            self.clear()
        self.update(places)

    def of(self, prices: Sequence[str]) -> list[Place]:
        """Those of all of these."""
        found = list(map(self.get, prices))
        if None not in found:
            return found  # type: ignore[return-value]
        if found.count(None) > _MANY and max(map(len, prices)) <= PLAIN:
            plain = read_plain(prices)
            if plain is not None:
                self._remember(dict(zip(prices, plain, strict=True)))
                return list(plain)
        return [self[price] for price in prices]


_places = _Places()
_more_than_zero: set[str] = set()
"""Quantities that are decimals, and not 0."""


def _are_zeros(amounts: Sequence[str]) -> list[bool] | None:
    """Which of these are 0; None: none is. Raises ValueError for what is no decimal, TypeError for what is no text."""
    if _more_than_zero.issuperset(amounts):
        return None
    found = read_plain(amounts) if len(amounts) > _MANY else None
    if found is not None:
        return [not amount for amount in found] if 0.0 in found else None
    zeros = [amount not in _more_than_zero and _is_zero(amount) for amount in amounts]
    return zeros if any(zeros) else None


def _is_zero(text: str) -> bool:
    if not is_decimal(text):
        raise ValueError(f"expected {ACCEPTED}")
    if not text.lower().partition("e")[0].strip("+-.0"):
        return True
    if len(text) <= _CACHED:
        if len(_more_than_zero) >= _REMEMBERED:
            _more_than_zero.clear()
        _more_than_zero.add(text)
    return False


def read_rows(rows: Sequence[Row]) -> Side:
    """The levels of one side, as texts without escapes. Raises ValueError or TypeError where some are not."""
    if not rows:
        return Side({}, set())
    prices, amounts = zip(*rows, strict=True)
    places, zeros = _places.of(prices), _are_zeros(amounts)
    levels: dict[Place, Level] = dict(zip(places, rows, strict=True))
    if zeros is None:
        return Side(levels, set())
    return Side(levels, {place for place, is_zero in dict(zip(places, zeros, strict=True)).items() if is_zero})


def read_side(side: bytes | msgspec.Raw) -> Side:
    """The levels of one side, as JSON, however they are written. Raises ValueError or the like where some are none."""
    levels: dict[Place, Level] = {}
    zeros: set[Place] = set()
    for raw_price, raw_quantity in _levels(side):
        price, quantity = bytes(raw_price), bytes(raw_quantity)
        place = _place(price)
        levels[place] = (_Raw(price), _Raw(quantity))
        if _is_nothing(quantity):
            zeros.add(place)
        else:
            zeros.discard(place)
    return Side(levels, zeros)


def _place(token: bytes) -> Place:
    """The place of a decimal that is a JSON string or number."""
    return _places[_string(token)] if token.startswith(b'"') else place_of(token.decode(), is_number=True)


def _is_nothing(token: bytes) -> bool:
    """Whether a decimal that is a JSON string or number is 0."""
    if not token.startswith(b'"'):
        return place_of(token.decode(), is_number=True) == 0
    text = _string(token)
    return text not in _more_than_zero and _is_zero(text)


def text_of(decimal: str | bytes | msgspec.Raw) -> str:
    """A decimal as it is written, in a string or as a number, of a text or of JSON."""
    if isinstance(decimal, str):
        return decimal
    token = bytes(decimal)
    return _string(token) if token.startswith(b'"') else token.decode()


def write_levels(levels: Iterable[Level]) -> bytes:
    """Levels as JSON, in this order."""
    return _encode(list(levels))


def _size(text: str | msgspec.Raw) -> int:
    """The bytes of a price, or of a quantity, as JSON."""
    return len(text) + len('""') if isinstance(text, str) else len(bytes(text))
