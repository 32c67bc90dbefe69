"""The state of a stream from what somebody keeps beside it (docs/operations/data.md#state).

1. A state is looked for once the stream flows, so that what is published meanwhile can be ordered against it.
2. What is not there, or is too old, is looked for again while the state is incomplete, at growing intervals.
3. A stream that keeps jumping is looked for once a second, and an answer that is under way is waited for.
4. A state is found once, when a seed has completed it: at its answer, or as the stream has come as far as a seed that
   was ahead of it. What has become complete by itself, who watches the stream has got.
5. An answer that comes after the link was lost, or after the stream was wanted no longer, is nobody's.
"""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import count
from typing import Protocol

import msgspec

from marketfeed.boundaries import Clock, Snapshots
from marketfeed.hub.stream import LiveStream
from marketfeed.model.publications import BadPublication
from marketfeed.model.rate import TokenBucket
from marketfeed.runtime.logs import Log

__all__ = ["SnapshotFinder"]

_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 60.0
_LEAST_PAUSE = 1.0


class _Try(msgspec.Struct, eq=False):
    stream: LiveStream | None  # until nobody asks for it any more
    begun: float
    pause: float = _FIRST_PAUSE  # until it is looked again
    is_taken: bool = False  # a seed was, but the stream has not come as far


class Seeker(Protocol):
    """Who wants to have states found."""

    def has_sought(self, stream: LiveStream, is_found: bool) -> None:
        """An answer is there, or the state is complete without."""


class SnapshotFinder:
    """Looks for states, where there are `snapshots` at all."""

    log = Log()

    def __init__(self, clock: Clock, snapshots: Snapshots | None, seeker: Seeker) -> None:
        self._clock = clock
        self._snapshots = snapshots
        self._seeker = seeker
        self._tries: dict[LiveStream, _Try] = {}
        self._due: list[tuple[float, int, _Try]] = []  # a heap, by time
        self._numbers = count()
        self._lines = TokenBucket(1, 10, clock.seconds())

    def look_for(self, stream: LiveStream) -> None:
        """The stream flows, and its state, if it has one, may be incomplete."""
        if self._snapshots is None:
            return
        if stream.state is None or not stream.state.is_wanting:
            self.forget(stream)
            return
        now, attempt = self._clock.seconds(), self._tries.get(stream)
        if attempt is None or not (stream.is_sought or now - attempt.begun < _LEAST_PAUSE):
            self._end(stream)
            self._look(stream, _Try(stream, now))

    def forget(self, stream: LiveStream) -> None:
        """The stream does not flow any more."""
        self._end(stream)
        stream.found()

    def is_awaited(self, stream: LiveStream) -> bool:
        """The stream has come as far as its seed. Whether that was ahead of it when it was found; true only once."""
        attempt = self._tries.get(stream)
        if attempt is None or not attempt.is_taken or stream.is_sought:
            return False
        self._end(stream)
        return True

    def _end(self, stream: LiveStream) -> None:
        attempt = self._tries.pop(stream, None)
        if attempt is not None:
            attempt.stream = None  # its time may come yet

    def look_again(self) -> None:
        """Look for those whose time has come."""
        now = self._clock.seconds()
        while self._due and self._due[0][0] <= now:
            _, _, attempt = heappop(self._due)
            stream = attempt.stream
            if stream is None:
                continue
            if stream.state is None or not stream.state.is_wanting:
                self.forget(stream)
                self._seeker.has_sought(stream, False)
            else:
                self._look(stream, attempt)

    def _look(self, stream: LiveStream, attempt: _Try) -> None:
        assert self._snapshots is not None
        self._tries[stream] = attempt
        stream.seek()
        self._snapshots.read(stream.name).addCallback(self._answered, stream, attempt)

    def _answered(self, payload: bytes | None, stream: LiveStream, attempt: _Try) -> None:
        if self._tries.get(stream) is not attempt:
            return
        stream.found()
        state = stream.state
        assert state is not None
        is_found = False
        if payload is not None and not state.is_complete:
            try:
                attempt.is_taken |= state.seed(stream.reader.read(payload))
                is_found = state.is_complete
            except BadPublication as bad:
                if self._lines.take(self._clock.seconds()):
                    self.log.warn(
                        "bad state for {stream}: {reason}: {fault}",
                        stream=stream.name,
                        reason=bad.reason,
                        fault=bad.fault,
                    )
        if state.is_complete:
            self._end(stream)
        else:
            heappush(self._due, (self._clock.seconds() + attempt.pause, next(self._numbers), attempt))
            attempt.pause = min(_LONGEST_PAUSE, 2 * attempt.pause)
        self._seeker.has_sought(stream, is_found)
