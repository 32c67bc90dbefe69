"""An order book, the updates that wait to be merged into it, and what is told of it.

1. Updates are merged when somebody asks, or when many wait, and each is read once for all who want to have it read
   (`readers`). A snapshot waits by itself however large it is, for the next one takes its place.
2. Nothing raises, whatever the engine writes: what cannot be read, or is too much, ends the book. Before a book ends,
   whoever watches it sees it once more (`ending`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import msgspec

from marketfeed.model.book import DepthMessage, Prices, WrittenBook
from marketfeed.model.ladder import BestLevels, Ladder, best_levels
from marketfeed.model.spelling import PriceSpelling, spelled_levels

__all__ = ["MAX_LEVELS", "MOST_WAITING", "MOST_WAITING_BYTES", "READ_IN_US", "MergedBook", "Readings", "ignore"]

MAX_LEVELS = 10_000
MOST_WAITING, MOST_WAITING_BYTES = 64, 256 * 1024
"""So many messages wait to be read, and so many bytes of these."""
_FEW_LIMITS = 4
READ_IN_US = 16
"""Bytes of messages."""
_WRITTEN_IN_US = 2  # levels
_SEEN_IN_US = 25  # the same, by who looks for the best of them once
_SHORTEST = len("[1,1],")  # bytes of a level
_encode = msgspec.json.encode

Readings = Mapping[int, DepthMessage]
"""Updates that were read, by the `id` of their data. They are shared: whoever merges others into one copies it."""


def ignore() -> None:
    """Nobody listens."""


class MergedBook:
    """A book, or none. Whoever inherits says whether it is `is_complete`, and hears when it is `_spoiled`."""

    __slots__ = (
        "_book",
        "_glimpse",
        "_is_watched",
        "_ladder",
        "_pending",
        "_size",
        "_written",
        "ending",
        "lost",
        "max_levels",
        "prices",
        "readers",
        "too_large",
    )

    def __init__(self) -> None:
        self.max_levels = MAX_LEVELS  # of both sides
        self.too_large: Callable[[], object] = ignore  # called when the book, or a seed, has more
        self.ending: Callable[[], object] = ignore  # called before the book ends, while it is what it was
        self.lost: Callable[[], object] = ignore  # called when it had in it what cannot be kept, and is dropped
        self.readers: dict[Callable[[Readings], None], None] = {}  # called with updates as they are read
        self.prices = PriceSpelling()  # how they are written for clients who keep them by their texts
        self._book: DepthMessage | None = None  # without what waits; None: there is none
        self._pending: list[bytes] = []
        self._size = 0  # bytes that wait
        self._written: WrittenBook | None = None
        self._glimpse: tuple[int, BestLevels] | None = None  # the best levels as they were last asked for
        self._is_watched = False
        self._ladder: Ladder | None = None  # while somebody watches the best levels

    @property
    def is_complete(self) -> bool:
        """Whether there is a book to give. What waits is merged to find that out."""
        raise NotImplementedError

    def _spoiled(self) -> None:
        """It had in it what cannot be kept, and is dropped."""
        raise NotImplementedError

    @property
    def number(self) -> int:
        """Its last id, or what stands for it."""
        raise NotImplementedError

    @property
    def last(self) -> int | None:
        """Its last id; None where there are no ids."""
        raise NotImplementedError

    @property
    def level_count(self) -> int:
        """Its levels, of both sides, without what waits to be merged."""
        return 0 if self._book is None else self._book.level_count

    @property
    def reading_cost(self) -> int:
        """What it takes to merge what waits, in µs, about."""
        return self._size // READ_IN_US

    @property
    def may_be_too_large(self) -> bool:
        """Whether it may turn out that it has too many levels, as what waits is merged."""
        return self.level_count + self._size // _SHORTEST > self.max_levels

    @property
    def beginning(self) -> object:
        """The same for as long as the book goes on from one and the same beginning; None: there is no book."""
        return self._book

    @property
    def cost(self) -> int:
        """What it takes to write the book, in µs, about; nothing while it is as it was last written."""
        return 0 if self._written is not None else self.level_count // _WRITTEN_IN_US

    @property
    def looking_cost(self) -> int:
        """What it takes to find the best levels, in µs, about."""
        return self.reading_cost + (0 if self._ladder is not None else self.level_count // _SEEN_IN_US)

    # What is told of it.

    def snapshot(self) -> bytes | None:
        """The book as one depth message that replaces every other, best levels first; None while it is incomplete.

        It has the other fields of the newest message.
        """
        written = self._write()
        return None if written is None else written.snapshot

    def depth(self, limit: int) -> bytes | None:
        """The book as Binance's REST answer, with at most `limit` levels of each side; None while it is incomplete."""
        written = self._write()
        if written is None:
            return None
        text = written.depths.get(limit)
        if text is None:
            bids, asks = [
                _encode(spelled_levels(side[: max(limit, 0)], self.prices)) for side in (written.bids, written.asks)
            ]
            text = b'{"lastUpdateId":%d,"bids":%b,"asks":%b}' % (self.number, bids, asks)
            if len(written.depths) < _FEW_LIMITS:
                written.depths[limit] = text
        return text

    def _write(self) -> WrittenBook | None:
        if not self.is_complete:
            return None
        if self._written is None and self._book is not None:
            try:
                self._written = WrittenBook.of(self._book, self.last)
            except Exception:  # a price that is no number has no place
                self._spoil()
        return self._written

    def best(self, most: int) -> BestLevels | None:
        """At most so many levels of each side, best first; None while the book is incomplete."""
        if not self.is_complete or self._book is None:
            return None
        try:
            if not self._is_watched:
                if self._glimpse is None or self._glimpse[0] != most:
                    self._glimpse = most, best_levels(self._book, most)
                return self._glimpse[1]
            if self._ladder is None:
                self._ladder = Ladder(self._book)
            return self._ladder.best(most)
        except Exception:  # a price that is no number has no place
            self._spoil()
            return None

    def watch(self, ending: Callable[[], object]) -> None:
        """Somebody asks for the best levels all the time: from now on all levels are kept in order.

        `ending`: called before the book ends, while it is what it was.
        """
        self._is_watched = True
        self.ending = ending

    def look_away(self) -> None:
        """Nobody does any more."""
        self._is_watched = False
        self.ending = ignore
        self._ladder = None

    def gone_from(self, snapshot: bytes) -> Prices | None:
        """The prices of the book that are not in this snapshot; None where the book is not known, or nothing of it."""
        if not self.is_complete or self._book is None:
            return None
        try:
            return self._book.gone_from(DepthMessage.parse(snapshot))
        except Exception:  # of data that `--validate warn` let through it may raise what it likes
            return None

    # What it is made of.

    def settle(self) -> None:
        """Merge what waits."""
        if self._pending and self._book is not None:
            readings = self._merge(len(self._pending))
            for read in list(self.readers):
                read(readings)

    def settling(self) -> Iterator[int]:
        """Merge what waits, a message at a time. Yields what the next one takes, in µs, about."""
        for _ in range(len(self._pending)):  # and not what comes meanwhile, for there might be no end to it
            if self._pending:
                yield len(self._pending[0]) // READ_IN_US
                self._merge(1)

    def _begin(self, book: DepthMessage, pending: list[bytes]) -> None:
        """From now on it is `book`, into which these are to be merged."""
        self._book = book
        self._pending = pending
        self._size = sum(map(len, pending))
        self._written = self._ladder = self._glimpse = None

    def _wait(self, data: bytes) -> None:
        """One more update, or a snapshot."""
        self._pending.append(data)
        self._size += len(data)
        if len(self._pending) > 1 and (self._size > MOST_WAITING_BYTES or len(self._pending) > MOST_WAITING):
            self.settle()

    def _merge(self, count: int) -> Readings:
        """Merge the first of what waits. What cannot be read, or is too much, ends the book."""
        readings: dict[int, DepthMessage] = {}
        book = self._book
        if book is None:
            return readings
        merged, rest, self._pending = self._pending[:count], self._pending[count:], []
        self._size -= sum(map(len, merged))
        for data in merged:
            try:
                update = readings[id(data)] = DepthMessage.parse(data)
                if book.level_count + update.level_count > self.max_levels:
                    self.ending()  # perhaps it will be too much
                book.take(update)
                if self._ladder is not None:
                    self._ladder.take(update)
            except Exception:  # of data that `--validate warn` let through it may raise what it likes
                self._spoil()
                return readings
            if book.level_count > self.max_levels:
                self._drop()
                self._spoiled()
                self.lost()
                self.too_large()
                return readings
        self._pending = rest
        return readings

    def _spoil(self) -> None:
        """It would have in it what cannot be kept."""
        self._end()
        self._spoiled()
        self.lost()

    def _end(self) -> None:
        """There is none any more."""
        if self._book is not None:
            self.ending()
        self._drop()

    def _drop(self) -> None:
        """The same, where another one takes its place, or it is no book any more."""
        self._book = self._written = self._ladder = self._glimpse = None
        self._pending = []
        self._size = 0
