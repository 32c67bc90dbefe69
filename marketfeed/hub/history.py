"""The past publications of streams, for resume and HISTORY (docs/protocol.md).

1. What `since` returns is everything behind that offset, in order, or it returns nothing: never a part.
2. An offset holds in its epoch only, or where the source gives the offsets, as far as that source's own order reaches.
   Text that is no offset of the stream is an offset that is not reached; whatever it is, it does no harm.
3. A stream keeps its newest publications: so many, and so old. All streams together keep so many bytes; beyond that
   the oldest publication goes first, whichever stream has it.
4. What is kept costs nothing until it is used or dropped: a stream in which nothing happens is not looked at.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import Iterator

from marketfeed.model.entry_ids import ORIGIN, parse_id, read_id

__all__ = ["KEEPING", "CountedHistory", "EntryHistory", "Histories", "History"]

KEEPING = 128
"""The bytes that it takes to keep a publication, beside its own: they count."""

_FEW = 64  # dropped ones that are not worth moving the rest for
_EXPIRED_TOGETHER = 50  # histories
_EXPIRED_IN_US = 4  # one of them, about
_DIGITS = 20  # of the largest number in 64 bits


class Histories:
    """The bounds of all histories of a process, and what they take.

    `limit`: publications of one stream; `seconds`: their age; `max_bytes`: of all streams together. With 0
    publications or bytes nothing is kept, and offsets go on.
    """

    __slots__ = ("_closed", "_oldest", "_order", "limit", "max_bytes", "seconds", "size")

    def __init__(self, limit: int, seconds: float, max_bytes: int) -> None:
        self.limit = limit if max_bytes > 0 else 0
        self.seconds = seconds
        self.max_bytes = max_bytes
        self.size = 0
        # One entry for each history that keeps something, and for some that do not any more. Its time is the one of
        # the history's oldest publication, or was it once: it is put right when it comes to the top.
        self._oldest: list[tuple[float, int, _History]] = []
        self._order = 0
        self._closed = 0  # entries of histories that are closed

    def expire(self, now: float) -> None:
        """Drop what is older than it may be. `now`: seconds of the clock that `add` has been told."""
        for _ in self.expiring(now):
            pass

    def expiring(self, now: float) -> Iterator[int]:
        """The same for a few histories at a time. Yields what the next of them take, in µs, about."""
        until = now - self.seconds
        while self._with_older(until) is not None:
            yield _EXPIRED_TOGETHER * _EXPIRED_IN_US
            for _ in range(_EXPIRED_TOGETHER):
                history = self._with_older(until)
                if history is None:
                    break
                history._drop_until(until)

    def _with_older(self, until: float) -> _History | None:
        """The history that keeps the oldest publication of all, if that came before this time."""
        history = self._with_oldest()
        return history if history is not None and history._times[history._start] < until else None

    def _enter(self, history: _History, now: float) -> None:
        """This history has begun to keep something."""
        self._order += 1  # no two entries are equal, so that histories are never compared
        heapq.heappush(self._oldest, (now, self._order, history))

    def _leave(self) -> None:
        """A history that has an entry is closed. Entries of closed ones are never more than the others, or few."""
        self._closed += 1
        if self._closed > _FEW and 2 * self._closed > len(self._oldest):
            self._oldest = [entry for entry in self._oldest if not entry[2]._is_closed]
            heapq.heapify(self._oldest)
            self._closed = 0

    def _trim(self) -> None:
        """Drop the oldest publications until the rest is no more than all may have."""
        while self.size > self.max_bytes and (history := self._with_oldest()) is not None:
            history._drop(1)

    def _with_oldest(self) -> _History | None:
        """The history that keeps the oldest publication of all."""
        oldest = self._oldest
        while oldest:
            time, order, history = oldest[0]
            if history._start == len(history._times):
                heapq.heappop(oldest)
                history._is_entered = False
                self._closed -= history._is_closed
            elif (actual := history._times[history._start]) == time:
                return history
            else:
                heapq.heapreplace(oldest, (actual, order, history))
        return None


class _History(ABC):
    """What the two kinds of histories share: publications and the times at which they came, oldest first.

    Those before `_start` are dropped. They are moved away only when they are more than the rest, and every list has
    the same length; lists take less memory than deques for the many streams that are quiet.
    """

    __slots__ = ("_data", "_histories", "_is_closed", "_is_entered", "_limit", "_start", "_times")

    def __init__(self, histories: Histories) -> None:
        self._histories = histories
        self._limit = histories.limit
        self._data: list[bytes] = []
        self._times: list[float] = []
        self._start = 0
        self._is_entered = False
        self._is_closed = False

    @property
    def kept(self) -> int:
        """How many publications are kept."""
        return len(self._data) - self._start

    def since(self, offset: str) -> list[tuple[str, bytes]] | None:
        """Every publication behind `offset`, oldest first; None if they are not all here, or it is no offset."""
        at = self._behind(offset)
        return None if at is None else self._entries(at)

    def reaches(self, offset: str) -> bool:
        """Whether every publication behind `offset` is here: `since` is not None."""
        return self._behind(offset) is not None

    def size_since(self, offset: str, overhead: int, most: int) -> int | None:
        """The bytes of what `since` returns, with `overhead` for each. None where that is None, or they exceed `most`.

        Many that are too many are not looked at one by one.
        """
        at = self._behind(offset)
        if at is None:
            return None
        size = (len(self._data) - at) * overhead
        if size <= most:
            size += sum(map(len, self._data[at:]))
        return size if size <= most or not size else None

    def newest(self, limit: int, max_bytes: int) -> list[tuple[str, bytes]]:
        """The newest publications, at most `limit` and `max_bytes` bytes of data, oldest first."""
        data = self._data
        at = len(data)
        least = max(self._start, at - max(limit, 0))
        while at > least and (max_bytes := max_bytes - len(data[at - 1])) >= 0:
            at -= 1
        return self._entries(at)

    def close(self) -> None:
        """Drop everything, and keep nothing any more: the stream is not followed."""
        self._drop(self.kept)
        self._limit = 0
        if not self._is_closed:
            self._is_closed = True
            if self._is_entered:
                self._histories._leave()

    @abstractmethod
    def _behind(self, offset: str) -> int | None:
        """The index of the first publication behind `offset`; None if some are not here, or it is no offset."""

    @abstractmethod
    def _entries(self, at: int) -> list[tuple[str, bytes]]:
        """The offsets and data of all publications from this index on."""

    def _keep(self, data: bytes, now: float) -> None:
        """Add a publication to the lists, of which the offsets have grown already."""
        self._data.append(data)
        self._times.append(now)
        histories = self._histories
        histories.size += len(data) + KEEPING
        if not self._is_entered:
            self._is_entered = True
            histories._enter(self, now)
        if len(self._data) - self._start > self._limit:
            self._drop(1)
        if histories.size > histories.max_bytes:
            histories._trim()

    def _drop_until(self, time: float) -> None:
        """Drop what came before this time, as the oldest publication did."""
        self._drop(max(1, bisect_left(self._times, time, self._start) - self._start))  # 1: a clock may be set back

    def _drop(self, count: int) -> None:
        """Drop the `count` oldest publications."""
        start = self._start
        end = start + count
        data = self._data
        if count == 1:
            self._histories.size -= len(data[start]) + KEEPING
            data[start] = b""
        else:
            self._histories.size -= sum(map(len, data[start:end])) + count * KEEPING
            data[start:end] = [b""] * count
        self._start = end
        if end == len(data) or (end >= _FEW and 2 * end >= len(data)):
            self._move(end)

    def _move(self, count: int) -> None:
        """Free the places of the first `count` publications, which are dropped."""
        del self._data[:count]
        del self._times[:count]
        self._start = 0


class CountedHistory(_History):
    """The history of a stream whose source knows no offsets: they are `<epoch>-<number of the publication>`."""

    __slots__ = ("_count", "_epoch", "_head")

    def __init__(self, histories: Histories, epoch: str) -> None:
        super().__init__(histories)
        self._count = 0
        self._epoch = epoch
        self._head = epoch + "-"

    @property
    def latest(self) -> str:
        """The offset of the newest publication, or the one behind which the stream begins."""
        return f"{self._head}{self._count}"

    @property
    def first_after(self) -> str:
        """The offset behind which everything is kept."""
        return f"{self._head}{self._count - self.kept}"

    def add(self, data: bytes, now: float, offset: str | None = None) -> None:
        """Keep a publication that came at `now`, in seconds. Its offset is `latest` then; `offset` is not looked at."""
        self._count += 1
        if self._limit:
            self._keep(data, now)

    def _behind(self, offset: str) -> int | None:
        epoch, dash, number = offset.rpartition("-")
        if not dash or epoch != self._epoch or not _is_number(number):
            return None
        missed = self._count - int(number)
        return len(self._data) - missed if 0 <= missed <= self.kept else None

    def pass_over(self, offset: str) -> None:
        """Nothing: a source without offsets has nothing to pass over."""

    def new_epoch(self, epoch: str) -> None:
        """Drop everything: something may have been missed, and no offset from before holds any more."""
        self._drop(self.kept)
        self._count = 0
        self._epoch = epoch
        self._head = epoch + "-"

    def _entries(self, at: int) -> list[tuple[str, bytes]]:
        first = self._count - len(self._data) + at + 1
        return [(f"{self._head}{number}", data) for number, data in enumerate(self._data[at:], first)]


class EntryHistory(_History):
    """The history of a stream whose offsets are its source's: ids of Redis entries, `<milliseconds>-<number>`."""

    __slots__ = ("_first_after", "_latest", "_offsets", "_void_before")

    def __init__(self, histories: Histories) -> None:
        super().__init__(histories)
        self._first_after: str | None = None
        self._latest: str | None = None
        self._offsets: list[str] = []
        self._void_before = ORIGIN

    @property
    def latest(self) -> str | None:
        """The offset of the newest publication, or where the stream has come to; None before it has begun."""
        return self._latest

    @property
    def first_after(self) -> str | None:
        """The offset behind which everything is kept; None before the stream has begun."""
        return self._first_after

    def begin(self, after: str) -> None:
        """The source delivers from behind `after` on. What is kept stays only if that is where it ends.

        Raises ValueError when it is no offset.
        """
        if after != self._latest:
            self.reset(after)

    def reset(self, after: str) -> None:
        """Drop everything, and begin behind `after`. Raises ValueError when it is no offset."""
        begin = parse_id(after)
        if begin is None:
            raise ValueError(f"not an offset: {after!r}")
        if begin < self._void_before:  # ids have been set back
            self._void_before = ORIGIN
        self._drop(self.kept)
        self._first_after = self._latest = after

    def make_void(self) -> None:
        """Something before `latest` was never heard: all lower offsets are void, wherever the past is kept."""
        if self._latest is not None:
            self._void_before = read_id(self._latest)

    def is_void(self, offset: str) -> bool:
        """Whether something may be missing before this offset that whoever comes with it was not told of."""
        after = parse_id(offset)
        return after is not None and after < self._void_before

    def add(self, data: bytes, now: float, offset: str | None = None) -> None:
        """Keep a publication that came at `now`, in seconds; `latest` is its offset then.

        Offsets have to rise. Before the stream has begun it is not kept: the stream begins behind it.
        Raises ValueError when there is no offset.
        """
        if offset is None:
            raise ValueError("a publication without its offset")
        if self._latest is None:
            self.begin(offset)
        elif self._limit:
            self._latest = offset
            self._offsets.append(offset)
            self._keep(data, now)
        else:
            self._latest = self._first_after = offset

    def _behind(self, offset: str) -> int | None:
        if self._first_after is None or self._latest is None:
            return None
        after = parse_id(offset)
        if after is None or not read_id(self._first_after) <= after <= read_id(self._latest):
            return None
        return bisect_right(self._offsets, after, self._start, key=read_id)

    def is_behind(self, offset: str) -> bool:
        """Whether the stream has not come as far as `offset`; what is no offset is not ahead of anything."""
        place = parse_id(offset)
        return place is not None and (self._latest is None or read_id(self._latest) < place)

    def pass_over(self, offset: str) -> None:
        """The source has an entry there that was no good publication: the end moves on, and nothing is kept."""
        if self._latest is None or not self._limit:
            self._first_after = offset
        self._latest = offset

    def _entries(self, at: int) -> list[tuple[str, bytes]]:
        return list(zip(self._offsets[at:], self._data[at:], strict=True))

    def _drop(self, count: int) -> None:
        if count:
            self._first_after = self._offsets[self._start + count - 1]
        super()._drop(count)

    def _move(self, count: int) -> None:
        super()._move(count)
        del self._offsets[:count]


History = CountedHistory | EntryHistory


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _DIGITS
