"""The state of a stream of depth messages: its order book (docs/protocol.md#state-on-subscribe).

1. A book is complete from a snapshot or a seed on, until something may be missing: a jump in the ids, a publication
   that cannot be read, or the loss of the link.
2. After a loss, ids tell: the next update either continues the book, or it jumps. Without ids nothing tells.
3. A seed comes from beside the stream, and is ordered by its ids (`early_updates`). One that is ahead of the stream is
   not given out until the stream has come that far. Where ids do not say the order, no seed is taken.
4. Nothing raises, whatever the engine writes. What is kept is bounded: a book of too many levels is incomplete.
5. A publication is only looked at when it comes. Its levels are merged later (`merged_book`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from marketfeed.model.book import DepthMessage
from marketfeed.model.early_updates import EarlyUpdates
from marketfeed.model.merged_book import MAX_LEVELS, MergedBook, ignore

__all__ = ["MAX_LEVELS", "BookState"]


# All that has to be known of an update at once. Not a class statement: this module is compiled, and msgspec's classes
# are not to be.
_Ids: Any = msgspec.defstruct("_Ids", [("U", Any, None), ("u", Any, None), ("snapshot", Any, None)], gc=False)
_ids = msgspec.json.Decoder(_Ids).decode


class Reader(Protocol):
    """Who has read the publications of the stream: the last one that was plainly written, and what it was read as."""

    data: bytes
    plain: Any


def _or_zero(number: int | None) -> int:
    return number or 0


class BookState(MergedBook):
    """The state of a stream of depth messages: the order book."""

    __slots__ = ("_early", "_is_lost", "_is_unordered", "_live", "_seeded", "numbers", "reached", "reader", "replaced")

    def __init__(self) -> None:
        super().__init__()
        self.reached: Callable[[], object] = ignore  # called when the stream has come as far as a seed ahead of it
        self.replaced: Callable[[bytes], object] | None = (
            None  # called with a snapshot, while the book before it is here
        )
        self.reader: Reader | None = None  # by whom what comes has been read, so that it need not be once more
        self.numbers: Callable[[int | None], int] = _or_zero  # what stands for the last id, where updates have none
        self._early = EarlyUpdates()
        self._live: int | None = None  # the last id on the stream
        self._seeded: int | None = None  # the seed's last id, which the stream has not reached yet
        self._is_lost = False  # since the last publication
        self._is_unordered = False  # the last publication had no ids

    @property
    def last(self) -> int | None:
        """The last id, as far as the state has come; None where there are no ids."""
        return self._live if self._seeded is None else self._seeded

    @property
    def given(self) -> int | None:
        """The last id that the engine has given on the stream."""
        return self._live

    @property
    def number(self) -> int:
        """The last id, or what stands for it; of a seed that nothing has followed yet, its own."""
        if self._live is not None and not self._is_unordered:
            return self._live
        return self.numbers(None if self._is_unordered else self._seeded)

    @property
    def is_complete(self) -> bool:
        """Whether there is a state to give."""
        if self.is_wanting:
            return False
        self.settle()
        return not self.is_wanting

    @property
    def is_wanting(self) -> bool:
        """Whether it is known that there is no state to give. Nothing that waits is merged to find that out."""
        return self._book is None or self._is_lost or not (self._seeded is None or self._live is None)

    @property
    def is_blank(self) -> bool:
        """Whether nothing has come, as far as is known."""
        return self._book is None and self._live is None and not self._is_unordered

    def record(self, data: bytes) -> bool:
        """A publication has come. Whether its ids jump, so that something before it is missing."""
        self._written = self._glimpse = None
        reader = self.reader
        try:
            ids = reader.plain if reader is not None and reader.data is data else _ids(data)
        except (ValueError, RecursionError):
            self._record_unordered()
            return False
        first, last = ids.U, ids.u
        if ids.snapshot is True:
            self._replace(data, last if type(last) is int else None)
        elif type(first) is int and type(last) is int:
            return self._record_ordered(first, last, data)
        elif self._book is None or self._is_lost:
            self._record_unordered()
        else:
            self._is_unordered = True
            self._wait(data)
        return False

    def seed(self, data: bytes) -> bool:
        """A depth message from beside the stream: the whole book, and its last id `u`. Whether it is taken.

        The state may be incomplete still, until the stream has come as far as the seed.
        """
        if self.is_complete:
            return False
        try:
            last = _ids(data).u
            book = DepthMessage.empty()
            book.take(DepthMessage.parse(data))
        except Exception:  # of any other data it may raise what it likes
            return False
        if book.level_count > self.max_levels:
            self.too_large()
            return False
        if type(last) is not int:
            last = None
        early = self._early.behind(last)
        if early is None or not (early or self.last is None or (last is not None and last >= self.last)):
            return False
        self._early.clear()
        self._begin(book, early)
        if not early:
            self._is_unordered = False
            self._seeded = None if last == self._live else last
            if self._is_lost and self._seeded is not None:
                self._live = None
            self._is_lost = False
        return True

    def lose(self) -> None:
        """The link is lost: something may be missing before the next update, whose ids tell."""
        if self._book is not None:
            self.ending()
        self._is_lost = True
        self._written = None
        if self.last is None or self._is_unordered:
            self._forget_book()
            self._early.clear()
            self._live = self._seeded = None
            self._is_unordered = False

    def _replace(self, data: bytes, last: int | None) -> None:
        """A snapshot has come: nothing that was before it matters."""
        if last is not None and last == self._live:
            self._is_lost = False  # it says again what was said: nothing has been missed
        if self.replaced is not None:
            self.replaced(data)
        self._begin(DepthMessage.empty(), [])
        self._early.clear()
        self._live, self._seeded = last, None
        self._is_lost = self._is_unordered = False
        self._wait(data)

    def _record_ordered(self, first: int, last: int, data: bytes) -> bool:
        """An update with ids has come."""
        seeded = self._seeded
        jumps = self._live is not None and (first > self._live + 1 or last < self._live)
        is_reached = not jumps and seeded is not None and last >= seeded
        if is_reached and seeded is not None:
            jumps = first > seeded + 1
        if jumps:
            self._forget_book()
            self._early.clear()
            if self._is_unordered:
                self._early.add_unordered()
        self._live = last
        self._is_lost = self._is_unordered = False
        if is_reached:
            self._seeded = None
            if not jumps:
                self.reached()
        if seeded is not None and not jumps and last <= seeded:
            return False  # the seed has it in it
        if self._book is None:
            self._early.add(first, last, data)
        else:
            self._wait(data)
        return jumps

    def _record_unordered(self) -> None:
        """Something without ids has come that is not merged into a book."""
        self._forget_book()
        self._early.add_unordered()
        self._is_lost = False
        self._is_unordered = True

    def _spoiled(self) -> None:
        self._seeded = None
        if self._live is None or self._is_unordered:  # what has ids is ordered by the last one
            self._early.add_unordered()

    def _forget_book(self) -> None:
        self._end()
        self._seeded = None
