"""What the fields of publications may hold: decimals, levels and markets (docs/protocol.md#what-the-engine-publishes).

1. A decimal is checked, never converted. One in a string is within the bounds of `decimals`; a number must be one that
   a double can hold, as it is for the clients.
2. Good values come again and again: some are remembered, and looking there first takes half of what a cache takes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Annotated, Any

import msgspec

from marketfeed.model.decimals import ACCEPTED, is_decimal, read_plain

__all__ = [
    "ANYTHING",
    "Decimal",
    "Level",
    "Plain",
    "Shape",
    "Short",
    "ShortDecimal",
    "are_good_decimals",
    "are_plain",
    "bad_decimal",
    "bad_market",
    "good_decimals",
    "good_markets",
    "is_good_decimal",
    "is_good_market",
    "is_market",
]

_MARKET = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SHOWN = 40  # characters of a bad value, the most that a fault repeats
_CACHED = 40  # characters of a decimal, beyond which it is not worth remembering
_REMEMBERED = 8192  # decimals, and markets

Decimal = str | int | float
Level = tuple[Decimal, Decimal]
"""A price and a quantity."""

Short = Annotated[str, msgspec.Meta(max_length=_CACHED)]
ShortDecimal = Short | int | float
"""What is worth remembering."""


class Plain(msgspec.Struct, gc=False):
    """A publication that is plainly written: decimals are `ShortDecimal`, integers are written as such."""

    def is_good(self) -> bool:
        """Whether it is sure that nothing is wrong with it."""
        raise NotImplementedError

    def has_few_lists(self, data: bytes) -> bool:
        """Whether that is known at a glance, where `data` holds no further objects."""
        return False


class Shape(msgspec.Struct, frozen=True):
    """What the publications of a kind must hold.

    `fields`: a type that msgspec decodes, of the required ones. `fault`: what is wrong with such an object besides, or
    None. `plain`: the same for what is plainly written, as nearly all is, where both agree; None: only the careful way.
    """

    fields: Any
    fault: Callable[[Any], str | None]
    plain: type[Plain] | None


ANYTHING = Shape(dict[str, msgspec.Raw], lambda _: None, None)
"""Any JSON object."""


good_decimals: set[Decimal] = set()
good_markets: set[str] = set()


def is_good_decimal(value: Decimal) -> bool:
    """Whether `value`, which is worth remembering, is a decimal."""
    if isinstance(value, str) and not is_decimal(value):
        return False
    if len(good_decimals) >= _REMEMBERED:
        good_decimals.clear()
    good_decimals.add(value)
    return True


def is_good_market(text: str) -> bool:
    """`is_market`, of what is worth remembering."""
    if _MARKET.fullmatch(text) is None:
        return False
    if len(good_markets) >= _REMEMBERED:
        good_markets.clear()
    good_markets.add(text)
    return True


def is_market(text: str) -> bool:
    """Whether a stream can have this market."""
    return _MARKET.fullmatch(text) is not None


def are_good_decimals(levels: list[Level]) -> bool:
    """Whether all prices and quantities, which are worth remembering, are decimals."""
    if good_decimals.issuperset(chain.from_iterable(levels)):
        return True
    return all(value in good_decimals or is_good_decimal(value) for value in chain.from_iterable(levels))


def are_plain(asks: Iterable[Level], bids: Iterable[Level]) -> bool:
    """Whether these levels are sure to be good. All of them are looked at together."""
    try:
        return read_plain(list(chain.from_iterable(chain(asks, bids)))) is not None  # type: ignore[arg-type]
    except TypeError:  # some are numbers
        return False


def bad_decimal(field: str, value: Decimal) -> str | None:
    """What is wrong with the value of a field that is to be a decimal, or None."""
    if type(value) is not str or value in good_decimals:
        return None
    if not (is_good_decimal(value) if len(value) <= _CACHED else is_decimal(value)):
        return f"expected {ACCEPTED}, got {value[:_SHOWN]!r} - at `$.{field}`"
    return None


def bad_market(value: str) -> str | None:
    """What is wrong with the value of `s`, or None."""
    return None if is_market(value) else f"expected a market, got {value[:_SHOWN]!r} - at `$.s`"
