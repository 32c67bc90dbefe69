"""Who waits until a stream has been read up to an entry.

1. A stream that is there already is not waited for.
2. It may never come so far: when it is wanted no longer, when the link is lost, and when it was set back or the entry
   was deleted, which the ids do not tell. So nobody waits longer than `ARRIVAL_SECONDS`.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout

from marketfeed.boundaries import Clock
from marketfeed.model.entry_ids import ORIGIN, EntryId, parse_id, read_id
from marketfeed.redis.stream_reads import Reading

__all__ = ["ARRIVAL_SECONDS", "Arrivals"]

ARRIVAL_SECONDS = 10.0


class Arrivals:
    """All who wait."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: dict[Reading, list[tuple[EntryId, Deferred[bool]]]] = {}

    async def wait_for(self, reading: Reading, entry: str) -> bool:
        """Wait until `reading` has been read up to the entry of this id. False: that is not to be expected."""
        end = read_id(entry)
        if _position(reading) >= end:
            return True
        arrival: Deferred[bool] = Deferred()
        self._waiting.setdefault(reading, []).append((end, arrival))
        try:
            return await arrival.addTimeout(ARRIVAL_SECONDS, self._clock)
        except DeferredTimeout:
            self._leave(reading, arrival)
            return False

    def moved(self, reading: Reading) -> None:
        """It was read, and all of that was published."""
        if reading not in self._waiting:
            return
        at = _position(reading)
        for end, arrival in self._waiting[reading][:]:
            if at >= end:
                self._leave(reading, arrival)
                arrival.callback(True)

    def forget(self, reading: Reading) -> None:
        """The stream is not read any more."""
        for _, arrival in self._waiting.pop(reading, ()):
            arrival.callback(False)

    def clear(self) -> None:
        """Nothing is read any more."""
        for reading in list(self._waiting):
            self.forget(reading)

    def _leave(self, reading: Reading, arrival: Deferred[bool]) -> None:
        rest = [each for each in self._waiting.get(reading, ()) if each[1] is not arrival]
        if rest:
            self._waiting[reading] = rest
        else:
            self._waiting.pop(reading, None)


def _position(reading: Reading) -> EntryId:
    return parse_id(reading.at.decode()) or ORIGIN
