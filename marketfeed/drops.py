"""Bad publications: counted by reason, and logged at most once a second for each stream (PROTOCOL.md, section 2)."""

from __future__ import annotations

from collections import Counter

from marketfeed.boundaries import Clock
from marketfeed.groups import LiveStream
from marketfeed.logs import Log
from marketfeed.model.publications import BadPublication

__all__ = ["Drops"]

_LOG_SECONDS = 1.0


class Drops:
    """All that were dropped, or with `strict` off forwarded all the same; `counts` by reason."""

    log = Log()

    def __init__(self, clock: Clock, strict: bool) -> None:
        self._clock = clock
        self._strict = strict
        self.counts: Counter[str] = Counter()

    def count(self, stream: LiveStream, bad: BadPublication) -> None:
        """One more."""
        self.counts[bad.reason] += 1
        stream.drops += 1
        now = self._clock.seconds()
        if now - stream.drops_logged >= _LOG_SECONDS:
            self.log.warn(
                "bad publication on {stream}, {what}: {reason}: {fault} ({count} since the last such line)",
                stream=stream.name,
                what="dropped" if self._strict or bad.data is None else "forwarded",
                reason=bad.reason,
                fault=bad.fault,
                count=stream.drops,
            )
            stream.drops = 0
            stream.drops_logged = now
