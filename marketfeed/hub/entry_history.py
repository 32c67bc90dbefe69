"""The history of a stream whose source gives the offsets: ids of Redis entries, `<milliseconds>-<number>`.

An offset holds as far as the source's own order reaches.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from marketfeed.hub.histories import US, WHOLE, Histories
from marketfeed.hub.history import History, Note
from marketfeed.model.entry_ids import ORIGIN, parse_id, read_id

__all__ = ["EntryHistory", "note_of", "number_of"]


def number_of(offset: str) -> int:
    """The number of the publication that has an entry's id."""
    milliseconds, sequence = read_id(offset)
    return milliseconds * 1000 + sequence


def note_of(offset: str, beside: bytes = b"") -> Note:
    """What an entry's id says of its publication."""
    milliseconds, sequence = read_id(offset)
    return Note(milliseconds, milliseconds * 1000 + sequence, beside)


class EntryHistory(History):
    """The numbers that clients see are those of the ids."""

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
