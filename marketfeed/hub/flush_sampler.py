"""How late publications are: of the flushes of each millisecond one is measured, the first.

1. From the engine to here: by the time that the publication itself names, on the engine's clock.
2. From here to the clients: from when a publication came until all that a flush has for clients is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from marketfeed.hub.counts import HubCounts, event_seconds
from marketfeed.hub.groups import Group

__all__ = ["FlushSample", "FlushSampler"]

_EVERY_SECONDS = 0.001


class FlushSample(NamedTuple):
    """What is measured of a flush. `came`: its first publication, in s since 1970; `data`: that itself."""

    came: float
    data: bytes


class FlushSampler:
    """`due`: a flush is measured whose first publication came then or later, in s since 1970.

    `now`: the time in s since 1970; `most`: the bytes of the longest publication.
    """

    __slots__ = ("_counts", "_most", "_now", "due")

    def __init__(self, counts: HubCounts, now: Callable[[], float], most: int) -> None:
        self._counts = counts
        self._now = now
        self._most = most
        self.due = 0.0

    def begin(self, dirty: Sequence[Group]) -> FlushSample:
        """These groups are about to be sent what waits in them."""
        stream = dirty[0].stream
        kept = stream.history.newest(1, self._most)
        data = kept[0][1] if kept else dirty[0].frames[-1]
        return FlushSample(stream.heard, data)

    def end(self, sample: FlushSample) -> None:
        """All of it has been sent."""
        now = self._now()
        self.due = now + _EVERY_SECONDS
        counts = self._counts
        counts.fanout_lag.observe(max(0.0, now - sample.came))
        counts.flush_clients.observe(counts.traffic.reached)
        written = event_seconds(sample.data)
        if written is not None:
            counts.clock_skew += written > sample.came
            counts.engine_lag.observe(max(0.0, sample.came - written))

    def pass_over(self) -> None:
        """The next flush begins with what came before, and not as a publication."""
        self.due = max(self.due, self._now() + _EVERY_SECONDS)

    def look(self) -> None:
        """Do not wait for a clock that was put back. Called once a second."""
        self.due = min(self.due, self._now())
