"""What one read has brought, on its way to the sink: a slice at a time, so that clients can take it.

1. A slice is about `SLICE` bytes and is flushed by itself; one publication at least. Nothing is reordered.
2. Between two slices the reactor has a turn, in which sockets drain and everybody else is served.
3. Clients of a slice for whom much waits then are let catch up, before the next one and before the next read. Nobody
   is waited for who has taken nothing for `NO_PROGRESS` seconds; and everybody together for `HOLD_SECONDS`, which
   come back in ten times as long. So one who reads slowly, or not at all, holds the others up for a moment, not for
   good: with what comes then they go on like all who are too slow.
4. A small read is one slice, and nobody is looked at after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall

from marketfeed.boundaries import Clock, Sink, Subscriber
from marketfeed.model.rate import TokenBucket
from marketfeed.redis.stream_entries import payload_of
from marketfeed.redis.stream_reads import Reading, Reads
from marketfeed.runtime.logs import Log

__all__ = ["Delivery", "Found", "Publisher", "slices"]

SLICE = 65_536
_MORE = 64
"""Bytes that an entry takes besides its publication: its frame's envelope, its id, our work."""
LOOK_SECONDS = 0.01
"""Between two looks at clients who catch up."""
HOLD_SECONDS = 3.0
NO_PROGRESS = 0.5

Found = list[tuple[bytes, list[Any]]]
"""Entries by the key of their stream, as XREAD answers."""


def slices(found: Found, most: int = SLICE) -> Iterator[tuple[int, Found]]:
    """What was found in portions of `most` bytes or of a single entry, each with its bytes; in the same order."""
    portion: Found = []
    size = 0
    for key, entries in found:
        begin = 0
        for at, (_, fields) in enumerate(entries):
            more = len(fields[1]) + _MORE
            if size and size + more > most:
                if at > begin:
                    portion.append((key, entries[begin:at]))
                yield size, portion
                portion, size, begin = [], 0, at
            size += more
        portion.append((key, entries[begin:] if begin else entries))
    if size:
        yield size, portion


class Publisher(Protocol):
    """Who publishes what is delivered."""

    sink: Sink

    def has_published(self, reading: Reading, entries: list[Any]) -> None:
        """The sink was told of these. It may have had enough of their stream."""

    def delivered(self, entries: int, size: int) -> None:
        """All of a read has been published; that was so many entries, of so many bytes."""

    def fail(self, fault: str) -> None:
        """It cannot be published: give up."""


class Delivery:
    """Tells the sink of `publisher` what was read of the streams of `reads`; one read at a time."""

    log = Log()

    def __init__(self, clock: Clock, reads: Reads, publisher: Publisher) -> None:
        self._clock = clock
        self._reads = reads
        self._publisher = publisher
        self._slices: Iterator[tuple[int, Found]] = iter(())
        self._next: tuple[int, Found] | None = None
        self._entries = self._size = 0
        self._turn: IDelayedCall | None = None
        self._looks = TokenBucket(0.1 / LOOK_SECONDS, int(HOLD_SECONDS / LOOK_SECONDS), clock.seconds())
        self._rooms: dict[Subscriber, int] = {}
        self._hopeless: dict[Subscriber, int] = {}
        self._moved_at = 0.0
        self._nameless_lines = TokenBucket(1, 5, clock.seconds())

    def begin(self, found: Found) -> None:
        """Deliver all of it; `delivered` is called at the end, perhaps at once."""
        assert self._turn is None
        self._slices = slices(found)
        self._next = next(self._slices, None)
        self._entries = self._size = 0
        self._go_on()

    def publish(self, reading: Reading, entries: list[Any]) -> None:
        """Tell the sink of entries of one stream."""
        publish, stream = self._publisher.sink.publish, reading.stream
        reading.taken += len(entries)
        for entry, fields in entries:
            payload = fields[1] if fields[0] == b"d" else payload_of(fields)
            if payload is None:
                if self._nameless_lines.take(self._clock.seconds()):
                    self.log.warn("{stream}: the entry {entry} has no field d", stream=stream, entry=entry.decode())
            else:
                reading.told = entry.decode()
                publish(stream, payload, reading.told)
        self._publisher.has_published(reading, entries)

    def stop(self) -> None:
        """What has not been published yet never is; `delivered` is not called."""
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        self._forget()

    def _forget(self) -> None:
        self._slices, self._next = iter(()), None
        self._rooms.clear()
        self._hopeless.clear()

    def _go_on(self) -> None:
        """A slice, and then a turn of the reactor if it is not the only one; or the end."""
        self._turn = None
        if self._next is not None:
            try:
                is_looked_after = self._deliver(*self._next)
            except Exception:  # in a turn of its own nobody else would notice, and nothing would be read any more
                self.log.failure("internal error")
                self.stop()
                self._publisher.fail("internal error")
                return
            if is_looked_after:
                self._turn = self._clock.callLater(0, self._look)
                return
        self._forget()
        self._publisher.delivered(self._entries, self._size)

    def _deliver(self, size: int, portion: Found) -> bool:
        """Whether those who get it are to be looked after."""
        is_first = not self._size
        self._size += size
        for key, entries in portion:
            self._entries += len(entries)
            reading = self._reads.get(key)
            if reading is not None:
                self.publish(reading, entries)
        self._publisher.sink.flush()
        self._next = next(self._slices, None)
        if is_first and self._next is None:
            return False
        self._rooms = {each: each.room for each in self._publisher.sink.behind() if not self._is_hopeless(each)}
        self._moved_at = self._clock.seconds()
        return True

    def _look(self) -> None:
        """Whether those who are behind are still to be waited for."""
        now = self._clock.seconds()
        rooms = {each: each.room for each in self._rooms if each.is_behind}
        if any(room > self._rooms[each] for each, room in rooms.items()):
            self._moved_at = now
        self._rooms = rooms
        if rooms and now - self._moved_at >= NO_PROGRESS:
            self._hopeless.update(rooms)
        elif rooms and self._looks.take(now):
            self._turn = self._clock.callLater(LOOK_SECONDS, self._look)
            return
        self._go_on()

    def _is_hopeless(self, subscriber: Subscriber) -> bool:
        """It has taken nothing since it was waited for in vain."""
        room = self._hopeless.get(subscriber)
        if room is None or subscriber.room > room:
            return False
        self._hopeless[subscriber] = subscriber.room
        return True
