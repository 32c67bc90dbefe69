"""A candle service that is not there, while the source is as good as ever.

1. While it is away all streams that it publishes have a gap, and so has each that begins to flow meanwhile.
2. It ends when the service is there again, or with the first publication of any of them, which goes behind its end.
3. Nothing has been missed but what nobody has published: histories and states stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from marketfeed.hub.gaps import Gaps, Hastens
from marketfeed.hub.stream import LiveStream
from marketfeed.wire.messages import GapReason

__all__ = ["Absence"]

_REASON = GapReason.NO_CANDLES


class Absence:
    """What is known of it. `streams`: all that are wanted at present."""

    def __init__(self, streams: Callable[[], Iterable[LiveStream]], gaps: Gaps, fanout: Hastens) -> None:
        self._streams = streams
        self._gaps = gaps
        self._fanout = fanout
        self.since: int | None = None
        """When it went, in ms since 1970; None: it is there, as far as is known."""

    @property
    def wanted(self) -> list[str]:
        """The streams that it is to publish, because they have holders."""
        return [stream.name for stream in self._streams() if stream.kind.from_candles and stream.holders]

    def begin(self, since: int) -> None:
        """It is away, since then, in ms since 1970."""
        if self.since is None:
            self.since = since
            gone = [stream for stream in self._streams() if self.takes(stream)]
            self._fanout.hasten(gone)
            self._gaps.opened(gone)

    def takes(self, stream: LiveStream) -> bool:
        """Whether `stream`, which flows, has a gap for this, which is to be told."""
        if self.since is None or not stream.kind.from_candles:
            return False
        return stream.fall_silent(_REASON, self.since)

    def end(self) -> None:
        """It is there."""
        if self.since is None:
            return
        self.since = None
        for stream in self._streams():
            gap = stream.speak(_REASON)
            if gap is not None:
                self._gaps.closed(stream, gap)
