"""What is read from Redis streams, and up to where: one XREAD for all of them, and how much a read may bring.

1. A reading is of one stream, from the moment that it is wanted until it is not: wanted again, it is another one.
2. The command's bytes are put together from parts that are kept: a read that moved few streams encodes few ids. To pack
   all words of 10,000 streams anew would take 4 ms a read, in place of 0.1.
3. What one read may bring is bounded: about `BYTES`, by what entries of late had, and `TOTAL` entries. They may
   be larger than ever before, so it is at most eight times as many as the last reads brought, or `FIRST`.
4. The read of all streams shares that among them, but permits `LEAST` to `MOST` of each. It brings what is added while
   one waits for it; of what is more, see `lagging`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from marketfeed.model.entry_ids import EntryId

__all__ = ["Count", "Reading", "Reads", "Volume"]

MOST, LEAST = 1000, 10
BYTES, TOTAL, FIRST = 4 << 20, 20_000, 1000
_GROWTH = 8


class Count(NamedTuple):
    """How many entries were ever added up to the one of the id `last`, None where nobody counts; asked for `at`."""

    last: EntryId
    added: int | None
    at: float


class Reading:
    """One stream that is read. `at`: the id behind which it is read on, b"" while that is not known; `is_at_entry`: it
    is known to be that of an entry. `told`: the last id that the sink has heard of, which is an earlier one where
    entries were passed over. `added`: how many the server had counted up to a place to which it has been read, None
    while that is not known, and `whole_at`: when that was asked; `taken`: how many were read since. `ahead`: the next
    such place, which it has not been read up to yet.
    """

    __slots__ = ("added", "ahead", "at", "is_at_entry", "key", "place", "stream", "taken", "told", "whole_at")

    def __init__(self, stream: str, key: bytes) -> None:
        self.stream = stream
        self.key = key
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


class Reads:
    """The streams of the next XREAD."""

    def __init__(self) -> None:
        self._readings: dict[bytes, Reading] = {}
        self._ids: list[bytes] = []
        self._keys = b""
        self._is_stale = False

    def __len__(self) -> int:
        return len(self._readings)

    def __iter__(self) -> Iterator[Reading]:
        return iter(self._readings.values())

    def get(self, key: bytes) -> Reading | None:
        """The reading of a stream that is read."""
        return self._readings.get(key)

    def add(self, reading: Reading) -> None:
        """Read this stream too, behind `reading.at`."""
        self._readings[reading.key] = reading
        self._is_stale = True

    def drop(self, reading: Reading) -> None:
        """Read it no longer; nothing happens if it is not read."""
        if self._readings.get(reading.key) is reading:
            del self._readings[reading.key]
            self._is_stale = True

    def clear(self) -> None:
        self._readings.clear()
        self._is_stale = True

    def move(self, reading: Reading, at: bytes, *, is_entry: bool = True) -> None:
        """Go on behind `at`."""
        reading.at, reading.is_at_entry = at, is_entry
        if not self._is_stale:
            self._ids[reading.place] = _bulk(at)

    def most(self, room: int) -> int:
        """The entries that a read of about `room` of them may bring of each stream."""
        return max(min(LEAST, room), min(MOST, room // max(1, len(self._readings))))

    def command(self, most: int, block_ms: int | None) -> bytes:
        """XREAD of all streams, of which there is at least one, that waits for so long if there is nothing, or not."""
        if self._is_stale:
            self._rebuild()
        block = b"" if block_ms is None else b"$5\r\nBLOCK\r\n%b" % _bulk(b"%d" % block_ms)
        words = (4 if block_ms is None else 6) + 2 * len(self._ids)
        head = b"*%d\r\n$5\r\nXREAD\r\n$5\r\nCOUNT\r\n%b%b" % (words, _bulk(b"%d" % most), block)
        return b"".join((head, self._keys, *self._ids))

    def _rebuild(self) -> None:
        self._is_stale = False
        self._ids = []
        keys = [b"$7\r\nSTREAMS\r\n"]
        for place, reading in enumerate(self._readings.values()):
            reading.place = place
            keys.append(_bulk(reading.key))
            self._ids.append(_bulk(reading.at))
        self._keys = b"".join(keys)


def _bulk(data: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(data), data)
