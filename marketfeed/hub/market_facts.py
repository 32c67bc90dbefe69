"""What is known here of a market besides what its engine says of it: its best prices, and the statistics of its day."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from marketfeed.boundaries import Statistics
from marketfeed.model.book_state import BookState
from marketfeed.model.spelling import spelled_levels

if TYPE_CHECKING:
    from marketfeed.hub.stream import LiveStream

__all__ = ["MarketFacts"]

_encode = msgspec.json.encode


class MarketFacts:
    """`Statistics` of the books that are kept. `find`: a stream by its name; `others`: who knows more, if somebody."""

    def __init__(self, find: Callable[[str], LiveStream | None]) -> None:
        self._find = find
        self.others: Statistics | None = None

    def of(self, market: str) -> Mapping[str, bytes]:
        state = self._book(market)
        best = {} if state is None else _best(state)
        return best if self.others is None else {**self.others.of(market), **best}

    def looking_cost(self, market: str) -> int:
        """What it takes to find the best prices, in µs, about."""
        state = self._book(market)
        return 0 if state is None else state.looking_cost

    def _book(self, market: str) -> BookState | None:
        stream = self._find(f"depth@{market}")
        state = None if stream is None else stream.state
        return state if isinstance(state, BookState) else None

    def best(self, market: str) -> dict[str, bytes]:
        """The best prices, with their quantities: those of the fields `b`, `B`, `a` and `A` that are known."""
        state = self._book(market)
        return {} if state is None else _best(state)


def _best(state: BookState) -> dict[str, bytes]:
    best = state.best(1)
    if best is None:
        return {}
    facts: dict[str, bytes] = {}
    for levels, names in ((best.bids, "bB"), (best.asks, "aA")):
        try:
            for level in spelled_levels(levels, state.prices):
                facts.update(zip(names, map(_encode, level), strict=True))
        except ValueError:  # a number that is longer than any price is its book's affair
            continue
    return facts
