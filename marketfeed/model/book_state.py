"""The state of a stream of depth messages: its order book (docs/protocol.md#state-on-subscribe).

1. A book is complete from a snapshot or a seed on, until something may be missing: a jump in the ids, a publication
   that cannot be read, or the loss of the link.
2. After a loss, ids tell: the next update either continues the book, or it jumps. Without ids nothing tells.
3. A seed comes from beside the stream, and is ordered by its ids (`early_updates`). One that is ahead of the stream is
   not given out until the stream has come that far. Where ids do not say the order, no seed is taken.
4. Nothing raises, whatever the engine writes. What is kept is bounded: a book of too many levels is incomplete.
5. A publication is only looked at when it comes. Its levels are merged when somebody asks, or when many wait. A
   snapshot waits by itself however large it is, for the next one takes its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from marketfeed.model.book import DepthMessage, Prices, WrittenBook
from marketfeed.model.early_updates import EarlyUpdates
from marketfeed.model.ladder import BestLevels, Ladder, best_levels
from marketfeed.model.spelling import PriceSpelling, spelled_levels

__all__ = ["MAX_LEVELS", "BookState"]

MAX_LEVELS = 10_000
_PENDING = 64  # updates that wait to be merged into the book
_PENDING_BYTES = 256 * 1024
_FEW_LIMITS = 4
_READ_IN_US = 16  # bytes
_WRITTEN_IN_US = 2  # levels


class _Ids(msgspec.Struct, gc=False):
    """All that has to be known of an update at once."""

    U: Any = None
    u: Any = None
    snapshot: Any = None


_ids = msgspec.json.Decoder(_Ids).decode


_encode = msgspec.json.encode


def _ignore() -> None: ...


def _or_zero(number: int | None) -> int:
    return number or 0


class BookState:
    """The state of a stream of depth messages: the order book."""

    __slots__ = (
        "_book",
        "_early",
        "_is_lost",
        "_is_unordered",
        "_is_watched",
        "_ladder",
        "_live",
        "_pending",
        "_seeded",
        "_size",
        "_written",
        "max_levels",
        "numbers",
        "prices",
        "reached",
        "replaced",
        "too_large",
    )

    def __init__(self) -> None:
        self.max_levels = MAX_LEVELS  # of both sides
        self.too_large: Callable[[], object] = _ignore  # called when the book, or a seed, has more
        self.reached: Callable[[], object] = _ignore  # called when the stream has come as far as a seed ahead of it
        self.replaced: Callable[[bytes], object] | None = (
            None  # called with a snapshot, while the book before it is here
        )
        self.numbers: Callable[[int | None], int] = _or_zero  # what stands for the last id, where updates have none
        self.prices = PriceSpelling()  # how they are written for clients who keep them by their texts
        self._book: DepthMessage | None = None  # without what waits; None: there is no book
        self._pending: list[bytes] = []
        self._size = 0  # bytes that wait
        self._early = EarlyUpdates()
        self._live: int | None = None  # the last id on the stream
        self._seeded: int | None = None  # the seed's last id, which the stream has not reached yet
        self._is_lost = False  # since the last publication
        self._is_unordered = False  # the last publication had no ids
        self._written: WrittenBook | None = None
        self._is_watched = False
        self._ladder: Ladder | None = None  # of the book, while somebody watches the best levels

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
        self._settle()
        return not self.is_wanting

    @property
    def is_wanting(self) -> bool:
        """Whether it is known that there is no state to give. Nothing that waits is merged to find that out."""
        return self._book is None or self._is_lost or not (self._seeded is None or self._live is None)

    @property
    def level_count(self) -> int:
        """Its levels, of both sides, without what waits to be merged."""
        return 0 if self._book is None else self._book.level_count

    @property
    def is_blank(self) -> bool:
        """Whether nothing has come, as far as is known."""
        return self._book is None and self._live is None and not self._is_unordered

    @property
    def beginning(self) -> object:
        """The same for as long as the book goes on from one and the same beginning; None: there is no book."""
        return self._book

    def settling(self) -> Iterator[int]:
        """Merge what waits, a message at a time. Yields what the next one takes, in µs, about."""
        for _ in range(len(self._pending)):  # and not what comes meanwhile, for there might be no end to it
            if self._pending:
                yield len(self._pending[0]) // _READ_IN_US
                self._settle(most=1)

    @property
    def cost(self) -> int:
        """What it takes to write the book, in µs, about; nothing while it is as it was last written."""
        if self._written is not None or self._book is None:
            return 0
        return self._book.level_count // _WRITTEN_IN_US

    def record(self, data: bytes) -> bool:
        """A publication has come. Whether its ids jump, so that something before it is missing."""
        self._written = None
        try:
            ids = _ids(data)
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
        self._book = book
        self._ladder = None
        self._pending = early
        self._size = sum(map(len, early))
        self._written = None
        if not early:
            self._is_unordered = False
            self._seeded = None if last == self._live else last
            if self._is_lost and self._seeded is not None:
                self._live = None
            self._is_lost = False
        return True

    def lose(self) -> None:
        """The link is lost: something may be missing before the next update, whose ids tell."""
        self._is_lost = True
        self._written = None
        if self.last is None or self._is_unordered:
            self._forget_book()
            self._early.clear()
            self._live = self._seeded = None
            self._is_unordered = False

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

    def gone_from(self, snapshot: bytes) -> Prices | None:
        """The prices of the book that are not in this snapshot; None where the book is not known, or nothing of it."""
        if not self.is_complete or self._book is None:
            return None
        try:
            return self._book.gone_from(DepthMessage.parse(snapshot))
        except Exception:  # of data that `--validate warn` let through it may raise what it likes
            return None

    def best(self, most: int) -> BestLevels | None:
        """At most so many levels of each side, best first; None while the book is incomplete."""
        if not self.is_complete or self._book is None:
            return None
        try:
            if not self._is_watched:
                return best_levels(self._book, most)
            if self._ladder is None:
                self._ladder = Ladder(self._book)
            return self._ladder.best(most)
        except Exception:  # a price that is no number has no place
            self._spoil()
            return None

    def watch(self) -> None:
        """Somebody asks for the best levels all the time: from now on all levels are kept in order."""
        self._is_watched = True

    def look_away(self) -> None:
        """Nobody does any more."""
        self._is_watched = False
        self._ladder = None

    def _replace(self, data: bytes, last: int | None) -> None:
        """A snapshot has come: nothing that was before it matters."""
        if self.replaced is not None:
            self.replaced(data)
        self._forget_book()
        self._early.clear()
        self._book = DepthMessage.empty()
        self._live = last
        self._is_lost = self._is_unordered = False
        self._wait(data)

    def _record_ordered(self, first: int, last: int, data: bytes) -> bool:
        """An update with ids has come."""
        jumps = self._live is not None and (first > self._live + 1 or last < self._live)
        was_unordered = self._is_unordered
        self._live = last
        self._is_lost = self._is_unordered = False
        if self._seeded is not None and not jumps:
            if last < self._seeded:
                return False  # the seed has it in it
            seeded, self._seeded = self._seeded, None
            jumps = first > seeded + 1
            if not jumps:
                self.reached()
            if last == seeded:
                return False
        if jumps:
            self._forget_book()
            self._early.clear()
            if was_unordered:
                self._early.add_unordered()
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

    def _wait(self, data: bytes) -> None:
        self._pending.append(data)
        self._size += len(data)
        if len(self._pending) > 1 and (self._size > _PENDING_BYTES or len(self._pending) > _PENDING):
            self._settle()

    def _settle(self, most: int | None = None) -> None:
        """Merge what waits into the book, or the first of it. What cannot be read, or is too much, ends the book."""
        book = self._book
        if book is None or not self._pending:
            return
        settled = self._pending[:most]
        try:
            for data in settled:
                update = DepthMessage.parse(data)
                book.take(update)
                if self._ladder is not None:
                    self._ladder.take(update)
                if book.level_count > self.max_levels:
                    self._spoil()
                    self.too_large()
                    return
        except Exception:  # of data that `--validate warn` let through it may raise what it likes
            self._spoil()
            return
        del self._pending[: len(settled)]
        self._size -= sum(map(len, settled))

    def _spoil(self) -> None:
        """The book has in it what cannot be kept. What has ids is ordered by the last one."""
        self._forget_book()
        if self._live is None or self._is_unordered:
            self._early.add_unordered()

    def _forget_book(self) -> None:
        self._book = None
        self._pending.clear()
        self._size = 0
        self._seeded = None
        self._written = None
        self._ladder = None

    def _write(self) -> WrittenBook | None:
        if not self.is_complete:
            return None
        if self._written is None and self._book is not None:
            try:
                self._written = WrittenBook.of(self._book, self.last)
            except Exception:  # a price that is no number has no place
                self._spoil()
        return self._written
