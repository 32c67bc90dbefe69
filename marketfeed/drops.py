"""Publications that do not go their way: each stream's are logged at most once a second (PROTOCOL.md, section 2)."""

from __future__ import annotations

from collections import Counter

from marketfeed.boundaries import Clock
from marketfeed.groups import LiveStream
from marketfeed.logs import Log
from marketfeed.model.publications import BadPublication
from marketfeed.model.ratelimit import TokenBucket

__all__ = ["Drops"]

_LOG_SECONDS = 1.0


class Drops:
    """The bad ones: dropped, or with `strict` off forwarded all the same; `counts` by reason. And those that fail."""

    log = Log()

    def __init__(self, clock: Clock, strict: bool) -> None:
        self._clock = clock
        self._strict = strict
        self.counts: Counter[str] = Counter()
        self._large_lines = TokenBucket(1, 10, clock.seconds())

    def count(self, stream: LiveStream, bad: BadPublication) -> None:
        """One more that is bad."""
        self.counts[bad.reason] += 1
        count = self._count(stream)
        if count:
            self.log.warn(
                "bad publication on {stream}, {what}: {reason}: {fault} ({count} since the last such line)",
                stream=stream.name,
                what="dropped" if self._strict or bad.data is None else "forwarded",
                reason=bad.reason,
                fault=bad.fault,
                count=count,
            )

    def failed(self, stream: LiveStream) -> None:
        """One has raised, which is being handled."""
        count = self._count(stream)
        if count:
            self.log.failure(
                "internal error in a publication on {stream} ({count} since the last such line)",
                stream=stream.name,
                count=count,
            )

    def too_many_levels(self, stream: str, most: int) -> None:
        """The book of a stream, or its seed, has more than `most` levels."""
        if self._large_lines.take(self._clock.seconds()):
            self.log.warn(
                "the book of {stream} has more than --max-book-levels {most} levels: it is incomplete until a snapshot",
                stream=stream,
                most=most,
            )

    def _count(self, stream: LiveStream) -> int:
        """One more of `stream`; how many there are to log, 0 when it is too early for a line."""
        stream.drops += 1
        now = self._clock.seconds()
        if now - stream.drops_logged < _LOG_SECONDS:
            return 0
        count, stream.drops, stream.drops_logged = stream.drops, 0, now
        return count
