"""The kinds of history, by who gives the offsets: this process, which counts, or the source, or nobody.

An offset holds in its epoch only, or where the source gives the offsets, as far as that source's own order reaches.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from hashlib import blake2b

from marketfeed.hub.histories import US, WHOLE, Histories, is_epoch
from marketfeed.hub.history import History, Note
from marketfeed.model.entry_ids import ORIGIN, parse_id, read_id
from marketfeed.model.numbers import whole

__all__ = ["CountedHistory", "EntryHistory", "NoHistory", "digest", "note_of", "number_of"]

_DIGITS = 20  # of the largest number in 64 bits

_ENDS = 1024  # bytes at either end of a publication that count for its digest: it takes the same time for all


def digest(data: bytes) -> bytes:
    """Sixteen bytes that are the same for the same publication, and for others hardly ever."""
    read = data if len(data) <= 2 * _ENDS else b"%d %b%b" % (len(data), data[:_ENDS], data[-_ENDS:])
    return blake2b(read, digest_size=16).digest()


class CountedHistory(History):
    """The history of a stream whose source knows no offsets: they are `<epoch>-<number of the publication>`.

    The numbers that clients see are the times in µs.
    """

    __slots__ = ("_before", "_count", "_head", "_last", "_previous")

    is_counted = True

    def __init__(self, histories: Histories, epoch: str | None = None) -> None:
        super().__init__(histories)
        self._count = 0
        self._head = f"{histories.new_epoch() if epoch is None else epoch}-"
        self._last: float | None = None  # with which the chain goes on; None: it is broken
        self._previous: float | None = None  # the same, before the newest publication
        self._before: float | None = None  # the same, before the first of the lists

    @property
    def latest(self) -> str:
        return self.at(self._count)

    @property
    def has_begun(self) -> bool:
        return self._count > 0

    @property
    def epoch(self) -> str:
        """What offsets begin with, which are those of this epoch."""
        return self._head[:-1]

    @property
    def count(self) -> int:
        """How many publications there have been in this epoch; the number of the newest."""
        return self._count

    def at(self, number: int) -> str:
        """The offset of the publication of this number."""
        return f"{self._head}{number}"

    def foreign(self, offset: str) -> tuple[str, int] | None:
        """The epoch and the number of an offset that another process may have given; None: none has."""
        epoch, _, text = offset.rpartition("-")
        number = whole(text, _DIGITS) if epoch != self.epoch and is_epoch(epoch) else None
        return None if number is None else (epoch, number)

    def newest_digests(self, most: int) -> list[bytes]:
        """Of the newest publications that are kept, `most` at most, oldest first: equal ones have equal ones."""
        return [digest(data) for data in self._data[max(self._start, len(self._data) - most) :]]

    def add(self, data: bytes, now: float, offset: str | None = None) -> None:
        self._count += 1
        time = now * US + WHOLE - WHOLE
        if time <= self.time:
            time = self.time + 1
        self._previous = self._last
        self._last = self.time = time
        if self._limit:
            self._keep(data, time)

    def jump(self) -> None:
        self.time += 1
        self._last = self.time
        if self._limit:
            self._times[-1] = self.time

    @property
    def newest_at(self) -> int:
        return int(self.time) // 1000

    @property
    def newest_place(self) -> tuple[int, int, int | None]:
        number, previous = int(self.time), self._previous
        return number // 1000, number, None if previous is None else int(previous)

    def number(self, now: float, seeded: int | None = None) -> int:
        if self._last is None:
            self.time = max(self.time + 1, now * US + WHOLE - WHOLE)
            self._last = self._before = self.time if seeded is None else float(seeded)
        return int(self._last)

    def _number_before(self, at: int) -> int | None:
        before = self._times[at - 1] if at else self._before
        return None if before is None else int(before)

    def _note(self, at: int) -> Note:
        time = int(self._times[at])
        return Note(time // 1000, time, self._beside.get(self._gone + at, b""))

    def _number_of(self, offset: str) -> int | None:
        return whole(offset.removeprefix(self._head), _DIGITS) if offset.startswith(self._head) else None

    def count_from(self, offset: str) -> int | None:
        number = self._number_of(offset)
        return None if number is None or number > self._count else self._count - number + 1

    def _behind(self, offset: str) -> int | None:
        number = self._number_of(offset)
        if number is None:
            return None
        missed = self._count - number
        return len(self._data) - missed if 0 <= missed <= self.kept else None

    def confirm(self, after: str | None) -> bool:
        """Drop everything, in any case: no offset from before holds any more."""
        if self._data:
            self.drop(self.kept)
        self._last = self._before = None
        self.time += 1  # what comes next is not the next number, whatever the clock says
        self._count = 0
        self._head = self._histories.new_epoch() + "-"
        return True

    def fail(self, offset: str | None) -> None:
        self.confirm(None)

    def _entries(self, at: int) -> list[tuple[str, bytes]]:
        first = self._count - len(self._data) + at + 1
        return [(f"{self._head}{number}", data) for number, data in enumerate(self._data[at:], first)]

    def _move(self, count: int) -> None:
        if count:
            self._before = self._times[count - 1]
        super()._move(count)


def number_of(offset: str) -> int:
    """The number of the publication that has an entry's id."""
    milliseconds, sequence = read_id(offset)
    return milliseconds * 1000 + sequence


def note_of(offset: str, beside: bytes = b"") -> Note:
    """What an entry's id says of its publication."""
    milliseconds, sequence = read_id(offset)
    return Note(milliseconds, milliseconds * 1000 + sequence, beside)


class EntryHistory(History):
    """The history of a stream whose offsets are its source's: ids of Redis entries, `<milliseconds>-<number>`.

    The numbers that clients see are those of the ids.
    """

    __slots__ = ("_broken_after", "_first_after", "_last", "_latest", "_offsets", "_previous", "_void_before")

    def __init__(self, histories: Histories) -> None:
        super().__init__(histories)
        self._first_after: str | None = None
        self._latest: str | None = None
        self._offsets: list[str] = []
        self._void_before = ORIGIN
        self._last: str | int | None = None  # with which the chain goes on, or its number; None: it is broken
        self._previous: str | int | None = None  # the same, before the newest publication
        self._broken_after: str | None = None  # where it was broken last

    @property
    def latest(self) -> str | None:
        return self._latest

    @property
    def has_begun(self) -> bool:
        return self._latest is not None and read_id(self._latest) > ORIGIN

    def reset(self, after: str) -> None:
        """Drop everything, and begin behind `after`. Raises ValueError when it is no offset."""
        begin = parse_id(after)
        if begin is None:
            raise ValueError(f"not an offset: {after!r}")
        if begin < self._void_before:  # ids have been set back
            self._void_before = ORIGIN
        self.drop(self.kept)
        self._first_after = self._latest = self._last = after

    def _break(self, after: str) -> None:
        """What comes behind `after` does not follow what was published before."""
        self.reset(after)
        self._last = None
        self._broken_after = after

    def skips(self, after: str | None) -> bool:
        return after is not None and after != self._latest

    def confirm(self, after: str | None) -> bool:
        if after is None or not self.skips(after):
            return False
        if self._latest is None:
            self.reset(after)
        else:
            self._break(after)
        return True

    def miss(self) -> bool:
        """All lower offsets are void, wherever the past is kept."""
        latest = self._latest or "0-0"
        self._break(latest)
        self._void_before = read_id(latest)
        return True

    def fail(self, offset: str | None) -> None:
        if offset is not None:
            self._break(offset)

    def is_void(self, offset: str) -> bool:
        after = parse_id(offset)
        return after is not None and after < self._void_before

    def add(self, data: bytes, now: float, offset: str | None = None) -> None:
        """Offsets have to rise. Before the stream has begun it is not kept: the stream begins behind it.
        Raises ValueError when there is no offset.
        """
        if offset is None:
            raise ValueError("a publication without its offset")
        time = now * US + WHOLE - WHOLE
        if time <= self.time:
            time = self.time + 1
        self.time = time
        self._previous = self._last
        if self._latest is None:
            self.reset(offset)
        elif self._limit:
            self._latest = self._last = offset
            self._offsets.append(offset)
            self._keep(data, time)
        else:
            self._latest = self._last = self._first_after = offset

    @property
    def newest_at(self) -> int:
        return read_id(self._latest or "0-0")[0]

    @property
    def newest_place(self) -> tuple[int, int, int | None]:
        newest, previous = note_of(self._latest or "0-0"), self._previous
        return newest.at, newest.number, number_of(previous) if isinstance(previous, str) else previous

    def number(self, now: float, seeded: int | None = None) -> int:
        latest = self._latest or "0-0"
        if self._last is None or (seeded is not None and self._last == latest):
            self._last = latest if seeded is None else seeded
            self._broken_after = None
        return number_of(self._last) if isinstance(self._last, str) else self._last

    def _number_before(self, at: int) -> int | None:
        before = self._offsets[at - 1] if at else self._first_after
        return None if before is None or before == self._broken_after else number_of(before)

    def _note(self, at: int) -> Note:
        return note_of(self._offsets[at], self._beside.get(self._gone + at, b""))

    def _behind(self, offset: str) -> int | None:
        if self._first_after is None or self._latest is None:
            return None
        after = parse_id(offset)
        if after is None or not read_id(self._first_after) <= after <= read_id(self._latest):
            return None
        return bisect_right(self._offsets, after, self._start, key=read_id)

    def count_from(self, offset: str) -> int | None:
        place = parse_id(offset)
        if place is None:
            return None
        return len(self._offsets) - bisect_left(self._offsets, place, self._start, key=read_id)

    def is_behind(self, offset: str) -> bool:
        place = parse_id(offset)
        return place is not None and (self._latest is None or read_id(self._latest) < place)

    def pass_over(self, offset: str) -> None:
        if self._latest is None or not self._limit:
            self._first_after = offset
        self._latest = offset

    def _entries(self, at: int) -> list[tuple[str, bytes]]:
        return list(zip(self._offsets[at:], self._data[at:], strict=True))

    def drop(self, count: int) -> None:
        if count:
            self._first_after = self._offsets[self._start + count - 1]
        super().drop(count)

    def _move(self, count: int) -> None:
        super()._move(count)
        del self._offsets[:count]


class NoHistory(History):
    """Of a stream that has no offsets, and of which nothing is kept: only the newest publication ever matters."""

    __slots__ = ()

    has_offsets = False

    @property
    def latest(self) -> None:
        return None

    @property
    def has_begun(self) -> bool:
        return False

    @property
    def newest_at(self) -> int:
        return 0

    @property
    def newest_place(self) -> tuple[int, int, int | None]:
        return 0, 0, None

    def number(self, now: float, seeded: int | None = None) -> int:
        return 0

    def _number_before(self, at: int) -> None:
        return None

    def _note(self, at: int) -> Note:
        return Note(0, 0)

    def add(self, data: bytes, now: float, offset: str | None = None) -> None: ...

    def confirm(self, after: str | None) -> bool:
        return False

    def fail(self, offset: str | None) -> None: ...

    def count_from(self, offset: str) -> None:
        return None

    def _behind(self, offset: str) -> None:
        return None

    def _entries(self, at: int) -> list[tuple[str, bytes]]:
        return []
