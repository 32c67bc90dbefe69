"""An order book's levels, from depth messages. Pure.

1. A message with `snapshot` replaces all levels; any other changes those that it names; a quantity of 0 removes one.
2. Prices are compared as decimals, and spelled as the engine spelled them last.
3. Both sides are sorted at any time, best first.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from decimal import Decimal
from math import isfinite

import msgspec

__all__ = ["Depth", "Ladder", "Level"]

Level = tuple[str, str]
"""A price and its quantity, as the engine spells them."""
_Spelled = str | int | float


class Depth(msgspec.Struct, frozen=True, gc=False):
    """What a book needs of a depth message."""

    a: list[list[_Spelled]]
    b: list[list[_Spelled]]
    U: int | None = None
    u: int | None = None
    snapshot: bool = False


class _Side:
    """One side of a book."""

    def __init__(self) -> None:
        self._prices: list[Decimal] = []  # ascending
        self._levels: dict[Decimal, Level] = {}

    def __len__(self) -> int:
        return len(self._prices)

    def put(self, change: list[_Spelled]) -> None:
        price, quantity = _spelled(change[0]), _spelled(change[1])
        key, amount = Decimal(price), float(quantity)
        if not (key.is_finite() and isfinite(amount)):
            raise ValueError(f"{price}, {quantity} is no level")
        if amount:
            if key not in self._levels:
                insort(self._prices, key)
            self._levels[key] = (price, quantity)
        elif self._levels.pop(key, None) is not None:
            del self._prices[bisect_left(self._prices, key)]

    def clear(self) -> None:
        self._prices.clear()
        self._levels.clear()

    def lowest(self, count: int | None) -> list[Level]:
        return [self._levels[price] for price in self._prices[:count]]

    def highest(self, count: int | None) -> list[Level]:
        start = 0 if count is None else max(0, len(self._prices) - count)
        return [self._levels[price] for price in reversed(self._prices[start:])]


class Ladder:
    """Bids and asks."""

    def __init__(self) -> None:
        self._bids = _Side()
        self._asks = _Side()

    def __len__(self) -> int:
        """How many levels there are on both sides."""
        return len(self._bids) + len(self._asks)

    def apply(self, message: Depth) -> None:
        """Work a message in. Raises ArithmeticError, LookupError or ValueError for one whose levels are none; the
        levels are good for nothing then.
        """
        if message.snapshot:
            self.clear()
        for change in message.a:
            self._asks.put(change)
        for change in message.b:
            self._bids.put(change)

    def clear(self) -> None:
        """There are none."""
        self._bids.clear()
        self._asks.clear()

    def bids(self, count: int | None = None) -> list[Level]:
        """At most so many, the highest price first."""
        return self._bids.highest(count)

    def asks(self, count: int | None = None) -> list[Level]:
        """At most so many, the lowest price first."""
        return self._asks.lowest(count)


def _spelled(value: _Spelled) -> str:
    """A number, where the engine writes numbers, as it would be written shortest."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value if isinstance(value, str) else str(value)
