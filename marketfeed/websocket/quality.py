"""What one client is told of what is left out for it (docs/protocol.md#slow-clients).

1. It hears that streams are thinned as soon as it reads on: before what is left of them. It hears that they are live
   when nothing waits for it any more. Of each thinning it hears, even if it has caught up by then.
2. At most one event in a second, and none waits: it is written at the moment at which it leaves.
3. It parts nothing that may be merged, and ends no client: where there is no room for it, it is told later.
4. A client that keeps up has none of this.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall

from marketfeed.boundaries import Clock
from marketfeed.websocket.backlog import Thinned
from marketfeed.wire.messages import QualityLevel

__all__ = ["QUALITY_SECONDS", "Quality"]

QUALITY_SECONDS = 1.0
"""Between two events."""
_SHORTEST = 0.01


class _Outbox(Protocol):
    """The part of an outbox that this needs."""

    hears_events: bool
    thinned: Thinned

    @property
    def has_caught_up(self) -> bool: ...
    @property
    def room(self) -> int: ...
    def write(self, frames: bytes) -> None: ...


class Quality:
    """Says of one client's streams whether they are thinned. `frame`: an event of these streams and this level."""

    __slots__ = ("_clock", "_frame", "_outbox", "_timer", "_told_at")

    def __init__(self, clock: Clock, outbox: _Outbox, frame: Callable[[list[str], str], bytes]) -> None:
        self._clock = clock
        self._outbox = outbox
        self._frame = frame
        self._told_at = float("-inf")
        self._timer: IDelayedCall | None = None

    def due(self) -> bytes:
        """The event that is to go before what is sent next, framed; empty: none is. It counts as told."""
        outbox, streams, now = self._outbox, self._outbox.thinned.streams, self._clock.seconds()
        if not outbox.hears_events:
            streams.clear()
        if not streams or now - self._told_at < QUALITY_SECONDS:
            return b""
        fresh = [spelling for spelling, is_told in streams.items() if not is_told]
        has_caught_up = outbox.has_caught_up
        if not fresh and not has_caught_up:
            return b""
        frame = self._frame(fresh, QualityLevel.THINNED) if fresh else self._frame(list(streams), QualityLevel.LIVE)
        if len(frame) > outbox.room and not has_caught_up:
            return b""
        self._told_at = now
        if fresh:
            streams.update(dict.fromkeys(fresh, True))
        else:
            streams.clear()
        return frame

    def caught_up(self) -> None:
        """Nothing waits any more: tell what is to be told, as soon as it may be."""
        frame = self.due()
        if frame:
            self._outbox.write(frame)
        self._wait()

    def close(self) -> None:
        """The client is told nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self) -> None:
        if self._timer is None and self._outbox.thinned.streams:
            seconds = self._told_at + QUALITY_SECONDS - self._clock.seconds()
            self._timer = self._clock.callLater(max(_SHORTEST, seconds), self._look)

    def _look(self) -> None:
        self._timer = None
        if self._outbox.has_caught_up:  # otherwise it is told as it reads on
            self.caught_up()
        else:
            self._wait()
