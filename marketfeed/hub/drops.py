"""Publications that do not go their way (docs/protocol.md#what-the-engine-publishes).

Those of one stream are logged at most once a second, of so many streams; those of all others once more together.
"""

from __future__ import annotations

from collections import Counter

import msgspec

from marketfeed.boundaries import Clock
from marketfeed.hub.counts import FAILED
from marketfeed.hub.stream import LiveStream
from marketfeed.model.publications import BadPublication
from marketfeed.model.rate import TokenBucket
from marketfeed.runtime.bounded_log import BoundedLog
from marketfeed.runtime.logs import Log

__all__ = ["Bad", "Drops"]


class Bad(msgspec.Struct, frozen=True):
    """A publication that was bad. `shown`: its stream, or of a private one its kind."""

    shown: str
    is_dropped: bool
    reason: str
    fault: str


_MOST_STREAMS = 20
"""Streams of which bad publications are logged by themselves within a second."""


class Drops:
    """The bad ones: dropped, or with `strict` off forwarded all the same; `counts` by reason, and the `last` of them.
    And those that fail.
    """

    log = Log()

    def __init__(self, clock: Clock, strict: bool) -> None:
        self._clock = clock
        self._strict = strict
        self.counts: Counter[str] = Counter()
        self.last: Bad | None = None
        self._lines = BoundedLog(clock, self.log, most_keys=_MOST_STREAMS)
        self._large_lines = TokenBucket(1, 10, clock.seconds())

    def count(self, stream: LiveStream, bad: BadPublication) -> bytes | None:
        """One more that is bad. Returns the data that are forwarded all the same, or None."""
        self.counts[bad.reason] += 1
        forwarded = None if self._strict else bad.data
        if forwarded is None:
            stream.counts.dropped[bad.reason] += 1
        shown = f"a stream of {stream.kind.name}" if stream.kind.private else stream.name
        self.last = Bad(shown, forwarded is None, bad.reason, bad.fault)
        self._lines.warn(
            stream.name,
            "bad publication on {stream}, {what}: {reason}: {fault}",
            stream=stream.name,
            what="dropped" if forwarded is None else "forwarded",
            reason=bad.reason,
            fault=bad.fault,
        )
        return forwarded

    def failed(self, stream: LiveStream) -> None:
        """One has raised, which is being handled."""
        stream.counts.dropped[FAILED] += 1
        self._lines.failure((stream.name, "failed"), "internal error in a publication on {stream}", stream=stream.name)

    def close(self) -> None:
        """Tell what has not been told yet."""
        self._lines.close()

    def too_many_levels(self, stream: str, most: int) -> None:
        """The book of a stream, or its seed, has more than `most` levels."""
        if self._large_lines.take(self._clock.seconds()):
            self.log.warn(
                "the book of {stream} has more than --max-book-levels {most} levels: it is incomplete until a snapshot",
                stream=stream,
                most=most,
            )
