"""The levels of a book in order, kept so from update to update, for those who look at the best of them all the time.

1. A change of a few levels costs a few steps, however many levels there are, and next to nothing where no level comes
   or goes. Many that come or go together are sorted anew.
2. Levels are given as texts, whether the engine wrote strings or numbers, in its spelling.
3. Prices that no float stands for are sorted when somebody looks. That is slow, and hardly ever so.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from heapq import nlargest, nsmallest
from typing import Any

import msgspec

from marketfeed.model.book import DepthMessage
from marketfeed.model.decimals import Place
from marketfeed.model.levels import Level, Row, Side, text_of

__all__ = ["BestLevels", "Ladder", "best_levels"]

_MANY = 8
"""An update of more than such a part of the levels is no longer looked at level by level."""

_FLOATS = frozenset([float])


class BestLevels(msgspec.Struct, frozen=True, gc=False):
    """The best levels of a book, best first, and what is known of it. `time`: of the newest message, as it says it."""

    bids: list[Row]
    asks: list[Row]
    time: int | None


def best_levels(book: DepthMessage, most: int) -> BestLevels:
    """At most so many levels of each side, for who looks once."""
    return BestLevels(_best(book.bids, most, nlargest), _best(book.asks, most, nsmallest), book.time)


def _best(side: Side, most: int, find: Callable[[int, Iterable[Any]], list[Any]]) -> list[Row]:
    try:
        places = find(most, side.levels)
    except TypeError:  # there are floats and tuples
        places = side.places_in_order(is_descending=find is nlargest)
    return [_row(side.levels[place]) for place in places[:most]]


class _Rungs:
    """The levels of one side."""

    __slots__ = ("_best", "_edge", "_is_descending", "_is_plain", "_kept", "_known", "_places", "_side")

    def __init__(self, side: Side, *, is_descending: bool) -> None:
        self._side = side
        self._is_descending = is_descending
        self._best: list[Row] = []
        self._edge: Any = None  # the worst of these; None: there are no more
        self._sort()

    def _sort(self) -> None:
        self._known: set[Place] = set(self._side.levels)
        self._places: list[Place] = list(self._known)
        self._kept = 0  # how many are the best ones yet that somebody has asked for
        self._is_plain = True
        try:
            self._places.sort()
        except TypeError:
            self._be_slow()
        else:
            if self._places and type(self._places[0]) is not float:
                self._be_slow()

    def _be_slow(self) -> None:
        """There are prices that no float stands for."""
        self._is_plain = False
        self._kept = 0
        self._known.clear()
        self._places.clear()

    def take(self, later: Side) -> None:
        """The side has taken these levels."""
        changed = later.levels
        if not changed:
            return
        if not self._is_plain:
            self._kept = 0
            return
        known, places = self._known, self._places
        moved = [place for place in changed if place not in known]  # those that come
        if later.zeros:
            moved = [place for place in moved if place not in later.zeros]
            moved += known & later.zeros  # and those that go
        if not _FLOATS.issuperset(map(type, moved)):
            self._be_slow()
            return
        if len(moved) * _MANY > len(places) + _MANY * _MANY:
            self._sort()
            return
        if self._kept and self._reaches_best(changed):
            self._kept = 0
        for place in moved:
            at = bisect_left(places, place)
            if place in known:
                del places[at]
                known.remove(place)
            else:
                places.insert(at, place)
                known.add(place)

    def _reaches_best(self, changed: Iterable[Place]) -> bool:
        """Whether some of these places are among those of the best levels."""
        if self._edge is None:
            return True
        try:
            return bool(max(changed) >= self._edge if self._is_descending else min(changed) <= self._edge)
        except TypeError:  # a level that no float stands for is gone, and was never there
            return True

    def best(self, most: int) -> list[Row]:
        """At most so many; the same list for as long as nothing of it has changed, and as many are asked for."""
        if self._kept >= most:
            return self._best if self._kept == most else self._best[:most]
        if self._is_plain:
            places = self._places[: -most - 1 : -1] if self._is_descending else self._places[:most]
        else:
            places = self._side.places_in_order(is_descending=self._is_descending)[:most]
        levels = self._side.levels
        self._best = [_row(levels[place]) for place in places]
        self._edge = places[-1] if len(places) == most else None
        self._kept = most
        return self._best


class Ladder:
    """The levels of `book`, in order for as long as it is told of all that the book takes."""

    __slots__ = ("_asks", "_bids", "_book")

    def __init__(self, book: DepthMessage) -> None:
        self._book = book
        self._bids = _Rungs(book.bids, is_descending=True)
        self._asks = _Rungs(book.asks, is_descending=False)

    def take(self, later: DepthMessage) -> None:
        """The book has taken this message."""
        self._bids.take(later.bids)
        self._asks.take(later.asks)

    def best(self, most: int) -> BestLevels:
        """At most so many levels of each side."""
        return BestLevels(self._bids.best(most), self._asks.best(most), self._book.time)


def _row(level: Level) -> Row:
    """A level as texts."""
    price, quantity = level
    return (price, quantity) if type(price) is str and type(quantity) is str else (text_of(price), text_of(quantity))
