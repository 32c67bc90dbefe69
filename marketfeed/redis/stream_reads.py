"""What is read from Redis streams, and up to where: together those of a slot, and by themselves those that lag.

1. A reading is of one stream, from the moment that it is wanted until it is not: wanted again, it is another one.
2. The command's bytes are put together from parts that are kept: a read that moved few streams encodes few ids. To pack
   all words of 10,000 streams anew would take 4 ms a read, in place of 0.1.
3. What one read may bring is bounded: about `BYTES`, by what entries of late had, and `TOTAL` entries. They may
   be larger than ever before, so it is at most eight times as many as the last reads brought, or `FIRST`.
4. The read of all streams shares that among them, but permits `LEAST` to `MOST` of each. It brings what is added while
   one waits for it; of what is more, the stream lags.
5. A stream lags when a read brought as much of it as it may, when there were entries behind its position as it was
   checked, and when nobody knows how long ago it was last read. It does no more when a read of it was not full.
6. Those that lag are read some at a time, without waiting, with a large COUNT: a hot stream among many is not held to
   the few entries that a read of all of them may bring of each.
7. A server of a cluster takes only keys of one slot in one command. So a read is of groups, an XREAD for each, sent
   together: of one group, where there are no slots or all streams share a hash tag. While some keys of a slot have gone
   to another server it answers none of a group, so the streams of that slot are read apart, each by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from marketfeed.model.entry_ids import EntryId
from marketfeed.redis.rotation import Rotation

__all__ = ["Away", "Count", "ReadGroup", "Reading", "Reads", "Volume"]

MOST, LEAST = 1000, 10
BYTES, TOTAL, FIRST = 4 << 20, 20_000, 1000
_GROWTH = 8
_TURN = 500
"""Streams that lag and are read at a time."""


class Count(NamedTuple):
    """How many entries were ever added up to the one of the id `last`, None where nobody counts; asked for `at`."""

    last: EntryId
    added: int | None
    at: float


class Away(NamedTuple):
    """No server has a stream. `since`: up to when all of it is known, in ms since 1970; `at`: when that was noticed, in
    s of the clock.
    """

    since: int
    at: float


class Reading:
    """One stream that is read. `slot`: that of its key, 0 where there are none. `at`: the id behind which it is read
    on, b"" while that is not known; `is_at_entry`: it is known to be that of an entry. `told`: the last id that the
    sink has heard of, which is an earlier one where entries were passed over. `added`: how many the server had counted
    up to a place to which it has been read, None while that is not known, and `whole_at`: when that was asked;
    `taken`: how many were read since. `ahead`: the next such place, which it has not been read up to yet. `away`: None
    while a server has it, as far as is known.
    """

    __slots__ = (
        "added",
        "ahead",
        "at",
        "away",
        "group",
        "is_at_entry",
        "key",
        "place",
        "slot",
        "stream",
        "taken",
        "told",
        "whole_at",
    )

    def __init__(self, stream: str, key: bytes, slot: int = 0) -> None:
        self.stream = stream
        self.key = key
        self.slot = slot
        self.away: Away | None = None
        self.group: ReadGroup | None = None
        self.at = b""
        self.is_at_entry = False
        self.told = ""
        self.place = -1
        self.added: int | None = None
        self.whole_at = 0.0
        self.taken = 0
        self.ahead: Count | None = None

    def misses(self, count: Count, behind: int = 0) -> float | None:
        """It is read up to the last entry that this counts, and `behind` more of them.

        None, or, if some were never read, when it was last known that all were.
        """
        expected = None if self.added is None else self.added + self.taken - behind
        whole_at = self.whole_at
        self.begin(count.added, count.at)
        self.taken = behind
        return None if expected is None or count.added in (None, expected) else whole_at

    def begin(self, added: int | None, at: float) -> None:
        """What is read is counted from here on; `added`: None, if there is something that is not read yet."""
        self.added, self.taken, self.whole_at, self.ahead = added, 0, at, None


class Volume:
    """How many entries the next read may bring, as those before it suggest."""

    def __init__(self) -> None:
        self._bytes = 1024.0  # of an entry
        self._entries = 0

    def took(self, entries: int, size: int) -> None:
        """A read has brought so many entries, at least one, and so many bytes."""
        average = size / entries
        self._bytes = max(average, self._bytes + (average - self._bytes) / 8)
        self._entries = max(entries, self._entries // 2)

    @property
    def entries(self) -> int:
        return max(1, min(TOTAL, int(BYTES / self._bytes), max(FIRST, _GROWTH * self._entries)))


class ReadGroup:
    """Streams that one XREAD reads, of which there is at least one. `name`: its slot, or the only key of it."""

    def __init__(self, name: int | bytes) -> None:
        self.name = name
        self.readings: dict[bytes, Reading] = {}
        self._ids: list[bytes] = []
        self._keys = b""
        self._is_stale = True
        self._made = b""
        self._made_for: tuple[int, int | None] | None = None

    def add(self, reading: Reading) -> None:
        self.readings[reading.key] = reading
        reading.group = self
        self._is_stale = True

    def drop(self, reading: Reading) -> None:
        del self.readings[reading.key]
        reading.group = None
        self._is_stale = True

    def moved(self, reading: Reading) -> None:
        """`reading.at` is another one now."""
        if not self._is_stale:
            self._ids[reading.place] = _bulk(reading.at)
            self._made_for = None

    def command(self, most: int, block_ms: int | None) -> bytes:
        """XREAD of all of them that waits for so long if there is nothing, or not."""
        if self._is_stale:
            self._rebuild()
        if self._made_for != (most, block_ms):
            self._made_for = most, block_ms
            block = b"" if block_ms is None else b"$5\r\nBLOCK\r\n%b" % _bulk(b"%d" % block_ms)
            words = (4 if block_ms is None else 6) + 2 * len(self._ids)
            head = b"*%d\r\n$5\r\nXREAD\r\n$5\r\nCOUNT\r\n%b%b" % (words, _bulk(b"%d" % most), block)
            self._made = b"".join((head, self._keys, *self._ids))
        return self._made

    def _rebuild(self) -> None:
        self._is_stale = False
        self._made_for = None
        self._ids = []
        keys = [b"$7\r\nSTREAMS\r\n"]
        for place, reading in enumerate(self.readings.values()):
            reading.place = place
            keys.append(_bulk(reading.key))
            self._ids.append(_bulk(reading.at))
        self._keys = b"".join(keys)


class Reads:
    """The streams that are read. `lagging`: those of them that are read by themselves."""

    def __init__(self) -> None:
        self.lagging = Rotation[Reading]()
        self._readings: dict[bytes, Reading] = {}
        self._groups: dict[int | bytes, ReadGroup] = {}
        self._apart: set[int] = set()

    def __len__(self) -> int:
        return len(self._readings)

    def __iter__(self) -> Iterator[Reading]:
        return iter(self._readings.values())

    @property
    def groups(self) -> list[ReadGroup]:
        """What is read by a command each."""
        return [*self._groups.values()]

    def get(self, key: bytes) -> Reading | None:
        """The reading of a stream that is read."""
        return self._readings.get(key)

    def add(self, reading: Reading) -> None:
        """Read this stream too, behind `reading.at`."""
        present = self._readings.get(reading.key)
        if present is reading and reading.group is not None:
            reading.group.moved(reading)
            return
        if present is not None:
            self._leave_group(present)
        self._readings[reading.key] = reading
        self._join_group(reading)

    def drop(self, reading: Reading) -> None:
        """Read it no longer; nothing happens if it is not read."""
        self.lagging.discard(reading)
        if self._readings.get(reading.key) is reading:
            del self._readings[reading.key]
            self._leave_group(reading)

    def clear(self) -> None:
        for reading in self._readings.values():
            reading.group = None
        self.lagging.clear()
        self._readings.clear()
        self._groups.clear()
        self._apart.clear()

    def move(self, reading: Reading, at: bytes, *, is_entry: bool = True) -> None:
        """Go on behind `at`."""
        reading.at, reading.is_at_entry = at, is_entry
        if reading.group is not None:
            reading.group.moved(reading)

    def part(self, slot: int) -> None:
        """Read the streams of this slot apart."""
        self._apart.add(slot)
        self._regroup({slot})

    def unite(self) -> None:
        """Read together again what was read apart."""
        apart, self._apart = self._apart, set()
        if apart:
            self._regroup(apart)

    def most(self, room: int) -> int:
        """The entries that a read of about `room` of them may bring of each stream."""
        return max(min(LEAST, room), min(MOST, room // max(1, len(self._readings))))

    def next_lagging(self, room: int) -> tuple[Sequence[Reading], int]:
        """Streams that lag, of which there is at least one, and how many entries of each may be read, of `room`."""
        readings = self.lagging.next(max(1, min(_TURN, room)))
        return readings, max(1, room // len(readings))

    def _join_group(self, reading: Reading) -> None:
        name = reading.key if reading.slot in self._apart else reading.slot
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = ReadGroup(name)
        group.add(reading)

    def _leave_group(self, reading: Reading) -> None:
        group = reading.group
        assert group is not None
        group.drop(reading)
        if not group.readings:
            del self._groups[group.name]

    def _regroup(self, slots: set[int]) -> None:
        for reading in [reading for reading in self._readings.values() if reading.slot in slots]:
            self._leave_group(reading)
            self._join_group(reading)


def _bulk(data: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(data), data)
