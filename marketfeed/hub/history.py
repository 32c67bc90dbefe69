"""The past publications of streams, for resume and HISTORY (docs/protocol.md#resume).

1. What `since` returns is everything behind that offset, in order, or it returns nothing: never a part.
2. Text that is no offset of the stream is an offset that is not reached; whatever it is, it does no harm.
3. A stream keeps its newest publications: so many, and so old. All streams together keep so many bytes; beyond that
   the oldest publication goes first, whichever stream has it.
4. What is kept costs nothing until it is used or dropped: a stream in which nothing happens is not looked at.
"""

from __future__ import annotations

import heapq
import re
import secrets
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Iterator
from itertools import count

__all__ = ["KEEPING", "Histories", "History", "is_epoch"]

KEEPING = 128
"""The bytes that it takes to keep a publication, beside its own: they count."""

_EPOCH = re.compile(r"[0-9a-f]{8}\.[0-9a-f]{1,16}")
_FEW = 64  # dropped ones that are not worth moving the rest for
_RATE_SECONDS = 10.0
_EXPIRED_TOGETHER = 50  # histories
_EXPIRED_IN_US = 4  # one of them, about


def is_epoch(text: str) -> bool:
    """Whether this is what `Histories.new_epoch` makes, in this process or another one."""
    return _EPOCH.fullmatch(text) is not None


class Histories:
    """The bounds of all histories of a process, and what they take.

    `limit`: publications of one stream; `seconds`: their age; `max_bytes`: of all streams together. With 0
    publications or bytes nothing is kept, and offsets go on.
    """

    __slots__ = ("_closed", "_numbers", "_oldest", "_order", "epochs", "limit", "max_bytes", "seconds", "size")

    def __init__(self, limit: int, seconds: float, max_bytes: int) -> None:
        self.limit = limit if max_bytes > 0 else 0
        self.seconds = seconds
        self.max_bytes = max_bytes
        self.size = 0
        # One entry for each history that keeps something, and for some that do not any more. Its time is the one of
        # the history's oldest publication, or was it once: it is put right when it comes to the top.
        self._oldest: list[tuple[float, int, History]] = []
        self._order = 0
        self._closed = 0  # entries of histories that are closed
        self.epochs = secrets.token_hex(4)
        """What all epochs of this process begin with, up to a full stop."""
        self._numbers = count()

    def new_epoch(self) -> str:
        """An epoch that there has never been, in no other process either."""
        return f"{self.epochs}.{next(self._numbers):x}"

    def expiring(self, now: float) -> Iterator[int]:
        """Drop what is older than it may be, of a few histories at a time. `now`: s of the clock that `add` is told.

        Yields what the next of them take, in µs, about.
        """
        until = now - self.seconds
        while self._with_older(until) is not None:
            yield _EXPIRED_TOGETHER * _EXPIRED_IN_US
            for _ in range(_EXPIRED_TOGETHER):
                history = self._with_older(until)
                if history is None:
                    break
                history._drop_until(until)

    def _with_older(self, until: float) -> History | None:
        """The history that keeps the oldest publication of all, if that came before this time."""
        history = self._with_oldest()
        return history if history is not None and history._times[history._start] < until else None

    def _enter(self, history: History, now: float) -> None:
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

    def _with_oldest(self) -> History | None:
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


class History(ABC):
    """The past of one stream: its publications and the times at which they came, oldest first. See `offsets`.

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

    # What the source says, and what each kind makes of it.

    is_counted = False
    """Whether only this process knows the offsets: nothing of what it has not heard can be found anywhere else."""

    @property
    @abstractmethod
    def latest(self) -> str | None:
        """The offset of the newest publication, or where the stream has come to; None before it has begun."""

    @abstractmethod
    def add(self, data: bytes, now: float, offset: str | None = None) -> None:
        """Keep a publication that came at `now`, in seconds; `latest` is its offset then."""

    def pass_over(self, offset: str) -> None:  # noqa: B027
        """The source has an entry there that was no good publication: the end moves on, and nothing is kept."""

    def skips(self, after: str | None) -> bool:
        """Whether what comes next, behind `after`, is not what follows the newest publication."""
        return False

    @abstractmethod
    def confirm(self, after: str | None) -> bool:
        """The source delivers from behind `after` on. Whether something may be missing before that."""

    def miss(self) -> bool:
        """Something before `latest` was never heard. Whether all that is kept is void by it."""
        return False

    @abstractmethod
    def fail(self, offset: str | None) -> None:
        """A publication, which had this offset, was not passed on: nobody resumes from before it."""

    def is_void(self, offset: str) -> bool:
        """Whether something may be missing before this offset that whoever comes with it was not told of."""
        return False

    def is_behind(self, offset: str) -> bool:
        """Whether the stream has not come as far as `offset`; what is no offset is not ahead of anything."""
        return False

    # What is kept.

    @property
    def kept(self) -> int:
        """How many publications are kept."""
        return len(self._data) - self._start

    @property
    def size(self) -> int:
        """The bytes of those publications."""
        return sum(map(len, self._data))

    def rate(self, now: float) -> float | None:
        """Publications a second, of the last ten seconds or as many of them as are kept; None: nothing is kept ever."""
        if not self._limit:
            return None
        times, start = self._times, self._start
        at = bisect_left(times, now - _RATE_SECONDS, start)
        whole = at > start or self.kept < self._limit
        seconds = _RATE_SECONDS if whole else max(0.001, now - times[start])
        return (len(times) - at) / seconds

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
