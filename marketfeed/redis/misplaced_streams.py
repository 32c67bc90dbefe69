"""Streams of a cluster that a server does not have at the moment, though they are wanted from it.

1. The topology hears of it. Where it finds that another server has such a stream, that is moved there, and is nobody's
   concern here.
2. Until then the stream is asked for again in turns, `SLICE` of them at a time: each once in `PAUSE_SECONDS`, or as
   often as there are slices. A key that has gone ahead of its slot is not read where it has gone to: nothing is lost
   by waiting until its slot follows, which it mostly does within one such pause.
3. One that has been away for `PATIENCE_SECONDS` is out of reach, since all of it was last known.
4. Of faults that say the same of many slots the topology hears one: it asks for the whole when it asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from marketfeed.boundaries import Sink
from marketfeed.redis.stream_reads import Away, Reading

__all__ = ["MisplacedStreams", "tell_lost"]

PAUSE_SECONDS = 0.2
PATIENCE_SECONDS = 1.0
SLICE = 500


class MisplacedStreams:
    """All of them. `doubt`: what is called with an error."""

    def __init__(self, doubt: Callable[[str], None]) -> None:
        self._doubt = doubt
        self._faults: dict[tuple[str, str], str] = {}
        self._asked_at: dict[Reading, float] = {}  # in this order their turn comes
        self._untold: set[Reading] = set()

    def add(self, reading: Reading, fault: str, since: int, now: float) -> None:
        """The server says `fault` of it. `since`: up to when, in ms since 1970, all of it is known; now in s."""
        if reading.away is None:
            reading.away = Away(since, now)
        if reading not in self._asked_at:
            self._untold.add(reading)
        self._asked_at.pop(reading, None)
        self._asked_at[reading] = now
        what, *rest = fault.split()
        self._faults[what, rest[-1] if what == "MOVED" else ""] = fault

    def discard(self, reading: Reading) -> None:
        """It is here, or wanted no longer."""
        self._asked_at.pop(reading, None)
        self._untold.discard(reading)

    def clear(self) -> None:
        """Nothing is known any more of who has what."""
        self._asked_at.clear()
        self._untold.clear()
        self._faults.clear()

    def tell_doubts(self) -> None:
        """Let the topology know, which may move streams at once."""
        faults, self._faults = self._faults, {}
        for (what, _), fault in faults.items():
            if what != "ASK":  # the server has the slot still
                self._doubt(fault)

    def due(self, now: float) -> list[Reading]:
        """Those that are to be asked for again."""
        due: list[Reading] = []
        for reading, asked_at in self._asked_at.items():
            if len(due) == SLICE or now - asked_at < PAUSE_SECONDS:
                break
            due.append(reading)
        for reading in due:
            self._asked_at.pop(reading)
            self._asked_at[reading] = now
        return due

    def tell_lost(self, now: float, sink: Sink) -> None:
        """Say which are out of reach by now."""
        lost = [each for each in self._untold if each.away is not None and now - each.away.at >= PATIENCE_SECONDS]
        self._untold.difference_update(lost)
        tell_lost(lost, sink)


def tell_lost(readings: Iterable[Reading], sink: Sink) -> None:
    """Say of those of them that are away that they are out of reach, since all of each was last known."""
    lost: dict[int, list[str]] = {}
    for reading in readings:
        if reading.away is not None:
            lost.setdefault(reading.away.since, []).append(reading.stream)
    for since, streams in lost.items():
        sink.lost(since, streams, "")
