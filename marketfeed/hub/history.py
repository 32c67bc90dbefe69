"""The past publications of streams, for resume and HISTORY (docs/protocol.md#resume).

1. What `since` returns is everything behind that offset, in order, or it returns nothing: never a part.
2. Text that is no offset of the stream is an offset that is not reached; whatever it is, it does no harm.
3. A stream keeps its newest publications, as many as all streams together may (`histories`).
4. Each publication has a number, which counts up within its stream and is the same whenever it is asked for: for
   clients who need one where the engine gives none (docs/protocol.md#payloads). Between two of which the second does
   not follow the first something may be missing, and so the chain is broken there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from typing import Final, NamedTuple

from marketfeed.boundaries import Dated
from marketfeed.hub.histories import US, Histories

__all__ = ["KEEPING", "History", "Note"]

KEEPING: Final = 128
"""The bytes that it takes to keep a publication, beside its own: they count."""

_FEW: Final = 64  # dropped ones that are not worth moving the rest for
_RATE_SECONDS = 10.0


class Note(NamedTuple):
    """What is known of a publication besides its data. `at`: when it came, in ms since 1970; `number`: among those of
    its stream; `beside`: what was kept with it.
    """

    at: int
    number: int
    beside: bytes = b""


class History(ABC):
    """The past of one stream: its publications and the times at which they came, oldest first. See `offsets`.

    The times are whole numbers of µs, in floats, and each is another one.

    Those before `_start` are dropped. They are moved away only when they are more than the rest, and every list has
    the same length; lists take less memory than deques for the many streams that are quiet.
    """

    __slots__ = (
        *("_beside", "_data", "_gone", "_histories", "_limit", "_start", "_times"),
        "is_closed",
        "is_entered",
        "time",
    )

    def __init__(self, histories: Histories) -> None:
        self._histories = histories
        self._limit = histories.limit
        self._data: list[bytes] = []
        self._times: list[float] = []
        self._start = 0
        self._gone = 0  # places that have been freed: with them an index is a number that stays
        self._beside: dict[int, bytes] = {}  # by such numbers
        self.is_entered = False
        self.is_closed = False
        self.time = 0.0
        """That of the newest publication, kept or not."""

    # What the source says, and what each kind makes of it.

    has_offsets = True
    """Whether publications have a place that a client can name."""
    is_counted = False
    """Whether only this process knows the offsets: nothing of what it has not heard can be found anywhere else."""

    @property
    @abstractmethod
    def latest(self) -> str | None:
        """The offset of the newest publication, or where the stream has come to; None before it has begun."""

    @property
    @abstractmethod
    def has_begun(self) -> bool:
        """Whether there has been any publication, as far as is known."""

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

    # Numbers, for publications to which the engine gives none.

    @property
    @abstractmethod
    def newest_at(self) -> int:
        """When the newest publication came, in ms since 1970."""

    @property
    @abstractmethod
    def newest_place(self) -> tuple[int, int, int | None]:
        """`newest_at`, the number of that publication, and that of the one before it: None where the chain is broken
        between them.
        """

    def jump(self) -> None:  # noqa: B027
        """Let the newest publication not have the number next to the one before it, where numbers are given here."""

    @abstractmethod
    def number(self, now: float, seeded: int | None = None) -> int:
        """The number as far as the stream has come, for what is given out at `now`, and goes on with the next one.

        `seeded`: what a state says it is, that nothing has followed yet.
        """

    def number_at(self, offset: str) -> int | None:
        """The number at `offset`; None where the chain is broken behind it, or it is not reached."""
        at = self._behind(offset)
        return None if at is None else self._number_before(at)

    def number_before(self, count: int) -> int | None:
        """The number before the `count` newest publications, which are kept."""
        return self._number_before(len(self._data) - count)

    @abstractmethod
    def _number_before(self, at: int) -> int | None: ...

    def notes_since(self, offset: str) -> list[Note]:
        """Those of all that `since` returns."""
        at = self._behind(offset)
        return [] if at is None else [self._note(index) for index in range(at, len(self._data))]

    def note(self, offset: str) -> Note | None:
        """That of the publication that has this offset, if it is kept."""
        at = self._behind(offset)
        if at is None or at - 1 < self._start:
            return None
        return self._note(at - 1)

    def notes_of_newest(self, limit: int, skipped: int = 0) -> list[Note]:
        """Those of the `limit` newest publications, besides the `skipped` newest."""
        end = max(self._start, len(self._data) - skipped)
        return [self._note(index) for index in range(max(self._start, end - limit), end)]

    @abstractmethod
    def _note(self, at: int) -> Note: ...

    def is_too_old(self, time: float) -> bool:
        """Whether what was at `time`, in µs, is longer ago than publications are kept, at the newest of them."""
        return self.time - time > self._histories.seconds * US

    def keep_beside(self, text: bytes) -> None:
        """Keep something with the newest publication, if that is kept."""
        if self.kept:
            self._beside[self._gone + len(self._data) - 1] = text
            self._histories.size += len(text)

    # What is kept.

    @property
    def oldest(self) -> float | None:
        """When the oldest publication that is kept came, in µs; None: none is."""
        return None if self._start == len(self._times) else self._times[self._start]

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
        at = bisect_left(times, (now - _RATE_SECONDS) * US, start)
        whole = at > start or self.kept < self._limit
        seconds = _RATE_SECONDS if whole else max(0.001, now - times[start] / US)
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

    def newest(self, limit: int, max_bytes: int, skipped: int = 0) -> list[tuple[str, bytes]]:
        """The newest publications, besides the `skipped` newest: at most `limit` and `max_bytes` bytes of data, oldest
        first.
        """
        data = self._data
        at = end = max(self._start, len(data) - skipped)
        least = max(self._start, at - max(limit, 0))
        while at > least and (max_bytes := max_bytes - len(data[at - 1])) >= 0:
            at -= 1
        return self._entries(at)[: end - at]

    @abstractmethod
    def count_from(self, offset: str) -> int | None:
        """How many publications there have been from this offset on, that one among them; those that are not kept may
        be left out. None: it is no offset of the stream, as far as is known.
        """

    def first_from(self, time: float, limit: int, max_bytes: int) -> list[Dated]:
        """The first publications that came at `time`, in s, or later: as many as `newest` would give, oldest first."""
        at = bisect_left(self._times, time * US, self._start)
        end = at
        while end < len(self._data) and end - at < limit and (max_bytes := max_bytes - len(self._data[end])) >= 0:
            end += 1
        return self._dated(at, end)

    def last_until(self, time: float, limit: int, max_bytes: int) -> list[Dated]:
        """The same of the last ones that came at `time` or earlier."""
        end = bisect_right(self._times, time * US, self._start)
        at = end
        while at > self._start and end - at < limit and (max_bytes := max_bytes - len(self._data[at - 1])) >= 0:
            at -= 1
        return self._dated(at, end)

    def _dated(self, at: int, end: int) -> list[Dated]:
        entries, times = self._entries(at)[: end - at], self._times[at:end]
        return [Dated(offset, int(time) // 1000, data) for (offset, data), time in zip(entries, times, strict=True)]

    def close(self) -> None:
        """Drop everything, and keep nothing any more: the stream is not followed."""
        self.drop(self.kept)
        self._limit = 0
        if not self.is_closed:
            self.is_closed = True
            if self.is_entered:
                self._histories.leave()

    @abstractmethod
    def _behind(self, offset: str) -> int | None:
        """The index of the first publication behind `offset`; None if some are not here, or it is no offset."""

    @abstractmethod
    def _entries(self, at: int) -> list[tuple[str, bytes]]:
        """The offsets and data of all publications from this index on."""

    def _keep(self, data: bytes, time: float) -> None:
        """Add a publication to the lists, of which the offsets have grown already. `time`: in µs."""
        self._data.append(data)
        self._times.append(time)
        histories = self._histories
        histories.size += len(data) + KEEPING
        if not self.is_entered:
            self.is_entered = True
            histories.enter(self, time)
        if len(self._data) - self._start > self._limit:
            self.drop(1)
        if histories.size > histories.max_bytes:
            histories.trim()

    def drop_until(self, time: float) -> None:
        """Drop what came before this time, as the oldest publication did."""
        self.drop(max(1, bisect_left(self._times, time, self._start) - self._start))  # 1: a clock may be set back

    def drop(self, count: int) -> None:
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
        if self._beside:
            self._drop_beside(start, end)
        self._start = end
        if end == len(data) or (end >= _FEW and 2 * end >= len(data)):
            self._move(end)

    def _drop_beside(self, start: int, end: int) -> None:
        for number in range(self._gone + start, self._gone + end):
            self._histories.size -= len(self._beside.pop(number, b""))

    def _move(self, count: int) -> None:
        """Free the places of the first `count` publications, which are dropped."""
        del self._data[:count]
        del self._times[:count]
        self._gone += count
        self._start = 0
