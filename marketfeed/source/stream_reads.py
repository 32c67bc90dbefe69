"""What is read from Redis streams, and up to where: one XREAD for all of them.

1. A reading is of one stream, from the moment that it is wanted until it is not: wanted again, it is another one.
2. The command's bytes are put together from parts that are kept: a read that moved few streams encodes few ids.
3. What one read may bring is bounded: `TOTAL` entries shared by all streams, but `LEAST` to `MOST` of each.
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["Reading", "Reads"]

MOST, LEAST, TOTAL = 1000, 10, 20_000


class Reading:
    """One stream that is read. `at`: the id behind which it is read on, b"" while that is not known. `told`: the last
    id that the sink has heard of, which is an earlier one where entries were passed over.
    """

    __slots__ = ("at", "key", "place", "stream", "told")

    def __init__(self, stream: str, key: bytes) -> None:
        self.stream = stream
        self.key = key
        self.at = b""
        self.told = ""
        self.place = -1


class Reads:
    """The streams of the next XREAD. `most`: entries that it may bring of each."""

    def __init__(self) -> None:
        self._readings: dict[bytes, Reading] = {}
        self._ids: list[bytes] = []
        self._keys = b""
        self._is_stale = False
        self.most = MOST

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

    def move(self, reading: Reading, at: bytes) -> None:
        """Go on behind `at`."""
        reading.at = at
        if not self._is_stale:
            self._ids[reading.place] = _bulk(at)

    def command(self, block_ms: int) -> bytes:
        """XREAD of all streams, of which there is at least one, that waits for so long if there is nothing."""
        if self._is_stale:
            self._rebuild()
        block = b"%d" % block_ms
        head = b"*%d\r\n$5\r\nXREAD\r\n$5\r\nCOUNT\r\n%b$5\r\nBLOCK\r\n%b" % (
            6 + 2 * len(self._ids),
            _bulk(b"%d" % self.most),
            _bulk(block),
        )
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
        self.most = max(LEAST, min(MOST, TOTAL // max(1, len(self._ids))))


def _bulk(data: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(data), data)
