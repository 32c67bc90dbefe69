"""What is read from Redis streams, and up to where: one XREAD for all of them, others for those that lag.

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
7. With such a read the server is asked whether all behind the position it began at is still there: trimming begins at
   the front, so the entry at the position is the first to go. Where there is none, `stream_entries` says it; where it
   has gone, that is asked the next time, and what was read is left until then.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from hiredis import ReplyError, pack_command

from marketfeed.model.entry_ids import EntryId, parse_id
from marketfeed.redis.rotation import Rotation
from marketfeed.redis.stream_entries import ABSENT, read_extent

__all__ = ["Count", "LaggingRead", "Reading", "Reads", "Volume", "is_absent"]

MOST, LEAST = 1000, 10
BYTES, TOTAL, FIRST = 4 << 20, 20_000, 1000
_GROWTH = 8
_GROUP = 500
"""Streams that lag and are read at a time."""


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
    """The streams that are read. `lagging`: those of them that are read by themselves."""

    def __init__(self) -> None:
        self.lagging = Rotation[Reading]()
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
        self.lagging.discard(reading)
        if self._readings.get(reading.key) is reading:
            del self._readings[reading.key]
            self._is_stale = True

    def clear(self) -> None:
        self.lagging.clear()
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

    def read_lagging(self, room: int) -> LaggingRead:
        """The next read of streams that lag, of which there is at least one; it brings at most `room` entries."""
        readings = self.lagging.next(max(1, min(_GROUP, room)))
        return LaggingRead(readings, max(1, room // len(readings)))

    def _rebuild(self) -> None:
        self._is_stale = False
        self._ids = []
        keys = [b"$7\r\nSTREAMS\r\n"]
        for place, reading in enumerate(self._readings.values()):
            reading.place = place
            keys.append(_bulk(reading.key))
            self._ids.append(_bulk(reading.at))
        self._keys = b"".join(keys)


class LaggingRead:
    """One read of streams that lag. `most`: the entries that it may bring of each."""

    def __init__(self, readings: list[Reading], most: int) -> None:
        self.readings = readings
        self.most = most
        self._begun_at = [(reading.at, reading.is_at_entry) for reading in readings]

    def commands(self) -> list[bytes]:
        keys, ids = [reading.key for reading in self.readings], [at for at, _ in self._begun_at]
        commands = [pack_command(("XREAD", "COUNT", self.most, "STREAMS", *keys, *ids))]
        for key, (at, is_at_entry) in zip(keys, self._begun_at, strict=True):
            commands.append(pack_command(("XREVRANGE", key, at, "-", "COUNT", 1)))
            if not is_at_entry:
                commands.append(pack_command(("XINFO", "STREAM", key)))
        return commands

    def judged(self, answers: list[Any]) -> Iterator[tuple[Reading, list[Any], bool]]:
        """Readings with their new entries, and whether nothing that was added behind their positions is missing.

        Of those that are not given nothing is known yet. `answers`: to all commands, of which none has failed but for
        absent streams.
        """
        found = dict(answers[0] or ())
        rest = iter(answers[1:])
        for reading, (at, is_at_entry) in zip(self.readings, self._begun_at, strict=True):
            newest = next(rest)
            is_there = bool(newest) and newest[0][0] == at
            is_whole = True
            if is_at_entry and not is_there:
                reading.is_at_entry = False
                continue
            if not is_at_entry:
                answer = next(rest)
                extent = ABSENT if is_absent(answer) else read_extent(answer)
                position = parse_id(at.decode())
                is_whole = position is not None and extent.has_all_behind(position, is_entry=is_there)
            yield reading, found.get(reading.key, []), is_whole


def is_absent(answer: Any) -> bool:
    """Whether an answer says that there is no such stream."""
    return isinstance(answer, ReplyError) and str(answer).startswith("ERR no such key")


def _bulk(data: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(data), data)
