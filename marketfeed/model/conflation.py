"""What stands for several publications of a stream, for those who want it less often than it comes
(docs/protocol.md#rates).

1. Of a kind of which the newest counts, it is the newest. Of one whose messages are merged it is all of them merged, as
   for a client who is slow (docs/protocol.md#slow-clients). Those of depth messages are as many as there are runs
   between which something may be missing, and a snapshot takes the place of what was before it.
2. What stands alone goes as the engine wrote it. What cannot be read, as `--validate warn` or a declared kind may let
   through, stands alone, and nothing is merged across it.
3. The offset is that of the last publication that is in it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from marketfeed.model.book import Difference
from marketfeed.model.kinds.kind import LossPolicy, StreamKind, View
from marketfeed.model.merging import Message

__all__ = ["Conflation", "new_conflation", "reader_in"]


class Conflation(Protocol):
    """Publications as they come, and what stands for them. It is true while it holds some."""

    def __bool__(self) -> bool: ...

    def add(self, data: bytes, offset: str) -> None:
        """One more."""

    def take(self) -> list[tuple[str, bytes]]:
        """What stands for all of them, as pairs of offset and data in their order; then it holds none."""


class _Newest:
    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: tuple[str, bytes] | None = None

    def __bool__(self) -> bool:
        return self._last is not None

    def add(self, data: bytes, offset: str) -> None:
        self._last = offset, data

    def take(self) -> list[tuple[str, bytes]]:
        last, self._last = self._last, None
        return [] if last is None else [last]


class _Run:
    """Messages that are merged."""

    __slots__ = ("data", "is_merged", "message", "offset")

    def __init__(self, data: bytes, offset: str, message: Message | None = None) -> None:
        self.data = data  # of the first
        self.offset = offset
        self.message = message  # None: it was not read yet, or cannot be
        self.is_merged = False

    def written(self) -> tuple[str, bytes]:
        return self.offset, self.message.to_bytes() if self.is_merged and self.message is not None else self.data


class _Merged:
    __slots__ = ("_message", "_runs", "_settled")

    def __init__(self, message: Callable[[bytes], Message]) -> None:
        self._message = message
        self._settled: list[_Run] = []  # those to which nothing happens any more
        self._runs: list[_Run] = []

    def __bool__(self) -> bool:
        return bool(self._runs)

    def add(self, data: bytes, offset: str) -> None:
        runs = self._runs
        if not runs:  # the first is not read before there is a second
            runs.append(_Run(data, offset))
            return
        last = runs[-1]
        if last.message is None:
            last.message = self._read(last.data)
        message = self._read(data)
        if last.message is None or message is None:
            self._settled += runs
            self._runs = [_Run(data, offset, message)]
        elif message.is_snapshot:
            self._runs = [_Run(data, offset, message)]
        elif last.message.can_take(message):
            last.message.take(message)
            last.is_merged = True
            last.offset = offset
        else:
            runs.append(_Run(data, offset, message))

    def take(self) -> list[tuple[str, bytes]]:
        runs = self._settled + self._runs
        self._settled, self._runs = [], []
        return [run.written() for run in runs]

    def _read(self, data: bytes) -> Message | None:
        try:
            return self._message(data)
        except Exception:  # of any other data it may raise what it likes
            return None


def new_conflation(kind: StreamKind, view: View = View.ENGINE) -> Conflation:
    """One that holds nothing yet, of publications of this kind, which has rates, in this view."""
    if kind.loss is not LossPolicy.MERGE:
        return _Newest()
    return _Merged(reader_in(view, kind))


def reader_in(view: View, kind: StreamKind) -> Callable[[bytes], Message]:
    """What reads messages of this kind in this view, to merge them."""
    if view is View.DEPTH:
        return Difference.parse
    return kind.message
