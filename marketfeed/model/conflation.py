"""What stands for several publications of a stream, for those who want it less often than it comes
(docs/protocol.md#rates).

1. Of a kind of which the newest counts, it is the newest. Of one whose messages are merged it is all of them merged, as
   for a client who is slow (docs/protocol.md#slow-clients). Those of depth messages are as many as there are runs
   between which something may be missing, and a snapshot takes the place of what was before it.
2. What stands alone goes as the engine wrote it. What cannot be read, as `--validate warn` or a declared kind may let
   through, stands alone, and nothing is merged across it.
3. What is merged is not read as it comes, but together with others: when it is taken, or when much waits. A book reads
   the same messages, and each is read once for both (`merged_book`).
4. The offset is that of the last publication that is in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from marketfeed.model.book import DepthMessage, Difference
from marketfeed.model.kinds.kind import LossPolicy, StreamKind, View
from marketfeed.model.merged_book import MOST_WAITING, MOST_WAITING_BYTES, READ_IN_US, MergedBook
from marketfeed.model.merging import Message

__all__ = ["Conflation", "new_conflation", "reader_in"]


class Conflation(Protocol):
    """Publications as they come, and what stands for them. It is true while it holds some."""

    def __bool__(self) -> bool: ...

    @property
    def reading_cost(self) -> int:
        """What it takes to take, in µs, about, besides what it always does."""

    def add(self, data: bytes, offset: str) -> None:
        """One more."""

    def take(self) -> list[tuple[str, bytes]]:
        """What stands for all of them, as pairs of offset and data in their order; then it holds none."""

    def close(self) -> None:
        """It is wanted no longer; what it holds is dropped."""


class _Newest:
    __slots__ = ("_last",)

    reading_cost = 0

    def __init__(self) -> None:
        self._last: tuple[str, bytes] | None = None

    def __bool__(self) -> bool:
        return self._last is not None

    def add(self, data: bytes, offset: str) -> None:
        self._last = offset, data

    def take(self) -> list[tuple[str, bytes]]:
        last, self._last = self._last, None
        return [] if last is None else [last]

    def close(self) -> None:
        self._last = None


class _Run:
    """Messages that are merged."""

    __slots__ = ("data", "is_merged", "message", "offset")

    def __init__(self, data: bytes, offset: str, message: Message | None) -> None:
        self.data = data  # of the first
        self.offset = offset
        self.message = message  # None: it cannot be read
        self.is_merged = False

    def take(self, later: Message, offset: str) -> None:
        if not self.is_merged and self.message is not None:
            self.message = self.message.copy()  # what was read may be shared
            self.is_merged = True
        assert self.message is not None
        self.message.take(later)
        self.offset = offset

    def written(self) -> tuple[str, bytes]:
        return self.offset, self.message.to_bytes() if self.is_merged and self.message is not None else self.data


class _Merged:
    __slots__ = ("_book", "_message", "_runs", "_settled", "_size", "_waiting")

    def __init__(self, message: Callable[[bytes], Message], book: MergedBook | None) -> None:
        self._message = message
        self._book = book
        self._waiting: list[tuple[bytes, str]] = []  # not read yet
        self._size = 0  # bytes of these
        self._settled: list[_Run] = []  # those to which nothing happens any more
        self._runs: list[_Run] = []
        if book is not None:
            book.readers[self._merge] = None

    def __bool__(self) -> bool:
        return bool(self._waiting or self._runs)

    @property
    def reading_cost(self) -> int:
        return self._size // READ_IN_US

    def add(self, data: bytes, offset: str) -> None:
        self._waiting.append((data, offset))
        self._size += len(data)
        if len(self._waiting) > MOST_WAITING or (self._size > MOST_WAITING_BYTES and len(self._waiting) > 1):
            self._settle()

    def take(self) -> list[tuple[str, bytes]]:
        waiting = self._waiting
        if len(waiting) == 1 and not (self._runs or self._settled):
            (data, offset), self._waiting, self._size = waiting[0], [], 0
            return [(offset, data)]
        self._settle()
        runs = self._settled + self._runs
        self._settled, self._runs = [], []
        return [run.written() for run in runs]

    def close(self) -> None:
        self._waiting, self._settled, self._runs = [], [], []
        if self._book is not None:
            self._book.readers.pop(self._merge, None)

    def _settle(self) -> None:
        if self._book is not None:
            self._book.settle()  # what it reads need not be read again
        self._merge({})

    def _merge(self, readings: Mapping[int, Message]) -> None:
        """Merge what waits. `readings`: what has been read, by the `id` of its data."""
        waiting, self._waiting, self._size = self._waiting, [], 0
        for data, offset in waiting:
            message = readings.get(id(data)) or self._read(data)
            last = self._runs[-1] if self._runs else None
            if message is None or (last is not None and last.message is None):
                self._settled += self._runs
                self._runs = [_Run(data, offset, message)]
            elif message.is_snapshot:
                self._runs = [_Run(data, offset, message)]
            elif last is not None and last.message is not None and last.message.can_take(message):
                last.take(message, offset)
            else:
                self._runs.append(_Run(data, offset, message))

    def _read(self, data: bytes) -> Message | None:
        try:
            return self._message(data)
        except Exception:  # of any other data it may raise what it likes
            return None


def new_conflation(kind: StreamKind, view: View = View.ENGINE, state: object = None) -> Conflation:
    """One that holds nothing yet, of publications of this kind, which has rates, in this view.

    `state`: that of the stream, with which what is read is shared until it is closed.
    """
    if kind.loss is not LossPolicy.MERGE:
        return _Newest()
    shares = isinstance(state, MergedBook) and reader_in(view, kind) == DepthMessage.parse
    return _Merged(reader_in(view, kind), state if shares and isinstance(state, MergedBook) else None)


def reader_in(view: View, kind: StreamKind) -> Callable[[bytes], Message]:
    """What reads messages of this kind in this view, to merge them."""
    if view is View.DEPTH:
        return Difference.parse
    return kind.message
