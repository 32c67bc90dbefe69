"""The levels of a book in order, kept so from update to update, for those who look at the best of them all the time.

1. A change of a few levels costs a few steps, however many levels there are. Many that change together are sorted anew.
2. Levels are given as texts, whether the engine wrote strings or numbers, in its spelling.
3. Prices that no float stands for are sorted when somebody looks. That is slow, and hardly ever so.
"""

from __future__ import annotations

from bisect import bisect_left

import msgspec

from marketfeed.model.book import DepthMessage, Side
from marketfeed.model.decimals import Place, in_order

__all__ = ["BestLevels", "Ladder", "TextLevel"]

TextLevel = tuple[str, str]
"""Price and quantity."""

_MANY = 8
"""An update of more than such a part of the levels is no longer looked at level by level."""

_string = msgspec.json.Decoder(str)


class BestLevels(msgspec.Struct, frozen=True, gc=False):
    """The best levels of a book, best first, and what is known of it. `time`: of the newest message, as it says it."""

    bids: list[TextLevel]
    asks: list[TextLevel]
    time: int | None


class _Rungs:
    """The levels of one side."""

    __slots__ = ("_best", "_is_descending", "_is_plain", "_kept", "_places", "_side", "_texts")

    def __init__(self, side: Side, *, is_descending: bool) -> None:
        self._side = side
        self._is_descending = is_descending
        self._texts: dict[Place, TextLevel] = {}
        self._best: list[TextLevel] = []
        self._sort()

    def _sort(self) -> None:
        self._texts.clear()
        self._kept = 0  # how many are the best ones yet that somebody has asked for
        self._is_plain = True
        self._places: list[Place] = list(self._side.levels)
        try:
            self._places.sort()
        except TypeError:
            self._is_plain = False
        if self._places and type(self._places[0]) is not float:
            self._is_plain = False

    def take(self, later: Side) -> None:
        """The side has taken these levels."""
        places, texts, zeros, is_descending = self._places, self._texts, later.zeros, self._is_descending
        if not self._is_plain:
            texts.clear()
            self._kept = 0
            return
        kept = self._kept
        if len(later) * _MANY > len(places) + _MANY * _MANY:
            self._sort()
            return
        for place in later.levels:
            if type(place) is not float:
                self._is_plain = False
                texts.clear()
                self._kept = 0
                return
            texts.pop(place, None)
            at = bisect_left(places, place)
            if (len(places) - at <= kept) if is_descending else (at < kept):
                kept = 0
            is_here = at < len(places) and places[at] == place
            if place in zeros:
                if is_here:
                    del places[at]
            elif not is_here:
                places.insert(at, place)
        self._kept = kept

    def best(self, most: int) -> list[TextLevel]:
        """At most so many; the same list for as long as nothing of it has changed."""
        if self._kept == most:
            return self._best
        if not self._is_plain:
            places = list(self._side.levels)
            in_order(places, is_descending=self._is_descending)
            places = places[:most]
        else:
            places = self._places[: -most - 1 : -1] if self._is_descending else self._places[:most]
        texts = self._texts
        self._best = [texts.get(place) or self._text(place) for place in places]
        self._kept = most
        return self._best

    def _text(self, place: Place) -> TextLevel:
        price, quantity = self._side.levels[place]
        texts = _text(price), _text(quantity)
        if len(self._texts) > len(self._places):
            self._texts.clear()
        self._texts[place] = texts
        return texts


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


def _text(token: str | msgspec.Raw) -> str:
    if isinstance(token, str):
        return token
    written = bytes(token)
    if not written.startswith(b'"'):
        return written.decode()
    return _string.decode(written) if b"\\" in written else written[1:-1].decode()
