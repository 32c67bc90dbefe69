"""Candles of trades that came in the order of their times, each worked out by itself: slow, and plain."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, localcontext
from itertools import groupby
from typing import NamedTuple

from marketfeed.model.intervals import Calendar

__all__ = ["Sold", "rows_of"]


class Sold(NamedTuple):
    """A trade. `time`: in ms since 1970; `is_maker`: the buyer was the maker."""

    number: int
    time: int
    price: str
    quantity: str
    is_maker: bool


Plain = tuple[int, str, str, str, str, Decimal, int, Decimal, int, Decimal, Decimal]
"""A row, its sums as decimals."""


def rows_of(interval: str, trades: Sequence[Sold], calendar: Calendar) -> list[Plain]:
    """Their candles, oldest first."""
    found: list[Plain] = []
    with localcontext() as context:
        context.prec = 500
        for start, group in groupby(trades, lambda each: calendar.start(interval, each.time)):
            inside = list(group)
            buys = [each for each in inside if not each.is_maker]
            found.append(
                (
                    start,
                    inside[0].price,
                    max(inside, key=lambda each: Decimal(each.price)).price,
                    min(inside, key=lambda each: Decimal(each.price)).price,
                    inside[-1].price,
                    sum((Decimal(each.quantity) for each in inside), Decimal()),
                    calendar.next(interval, start) - 1,
                    sum((Decimal(each.quantity) * Decimal(each.price) for each in inside), Decimal()),
                    len(inside),
                    sum((Decimal(each.quantity) for each in buys), Decimal()),
                    sum((Decimal(each.quantity) * Decimal(each.price) for each in buys), Decimal()),
                )
            )
    return found
