"""Which values of fields are good: decimals, markets and levels; and which plain publications are, by their values.

1. Good values come again and again: some are remembered, and looking there first takes half of what a cache takes.
   What is too long to be worth it does not come here (`fields`).
2. This is on the way of each publication, and compiled (tools/compiling.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import chain
from typing import Any, Final

from marketfeed.model.decimals import is_decimal, read_plain

__all__ = [
    "Decimal",
    "are_good_decimals",
    "are_plain",
    "good_decimals",
    "good_markets",
    "is_good_decimal",
    "is_good_depth",
    "is_good_market",
    "is_good_ticker",
    "is_good_trade",
    "is_market",
]

_MARKET: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_REMEMBERED: Final = 8192  # decimals, and markets
_FEW: Final = 64  # levels; more of them are looked at together

Decimal = str | int | float

good_decimals: Final[set[Decimal]] = set()
good_markets: Final[set[str]] = set()


def is_good_decimal(value: Decimal) -> bool:
    """Whether `value`, which is worth remembering, is a decimal."""
    return (not isinstance(value, str) or is_decimal(value)) and _remember(value, good_decimals)


def is_good_market(text: str) -> bool:
    """`is_market`, of what is worth remembering."""
    return is_market(text) and _remember(text, good_markets)


def _remember(value: Any, good: set[Any]) -> bool:
    if len(good) >= _REMEMBERED:
        good.clear()
    good.add(value)
    return True


def is_market(text: str) -> bool:
    """Whether a stream can have this market."""
    return _MARKET.fullmatch(text) is not None


def are_good_decimals(levels: list[Any]) -> bool:
    """Whether all prices and quantities, which are worth remembering, are decimals."""
    if good_decimals.issuperset(chain.from_iterable(levels)):
        return True
    return all(value in good_decimals or is_good_decimal(value) for value in chain.from_iterable(levels))


def are_plain(*sides: Iterable[Any]) -> bool:
    """Whether these levels are sure to be good. All of them are looked at together."""
    try:
        return read_plain(list(chain.from_iterable(chain(*sides)))) is not None
    except TypeError:  # some are numbers
        return False


def is_good_trade(trade: Any) -> bool:
    """Whether it is sure that nothing is wrong with a trade that is a `Plain`;"""
    return (
        (trade.p in good_decimals or is_good_decimal(trade.p))
        and (trade.q in good_decimals or is_good_decimal(trade.q))
        and (trade.s in good_markets or is_good_market(trade.s))
    )


def is_good_ticker(ticker: Any) -> bool:
    """The same of a ticker;"""
    return (ticker.c in good_decimals or is_good_decimal(ticker.c)) and (
        ticker.s in good_markets or is_good_market(ticker.s)
    )


def is_good_depth(depth: Any) -> bool:
    """and of a depth message."""
    bids, asks = depth.b, depth.a
    if len(asks) + len(bids) > _FEW and are_plain(asks, bids):
        return True
    return are_good_decimals(asks) and are_good_decimals(bids)
