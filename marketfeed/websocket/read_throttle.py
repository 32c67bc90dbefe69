"""How much of one peer's frames is read at a time: a flood of them is read slowly, and holds nobody else up.

1. A peer may send so many frames at once, and so many a second in the long run; a KiB of a message, inflated, counts as
   half of one. What it sends beyond that is not refused: it waits, in the end with the peer, for nothing more is read
   from its socket meanwhile.
2. Nothing else is changed by it, neither the order nor what is answered.
3. Reading goes on when nobody wants it paused any more: neither this nor whoever has called `pause_reading`.

A frame of six bytes costs as much as one with a request. Without this, what the kernel has buffered for one peer would
keep the daemon from all others for a twentieth of a second, and then again.
"""

from __future__ import annotations

from typing import Protocol

import msgspec
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from marketfeed.websocket.lean import LeanServerProtocol

__all__ = ["REST_SECONDS", "Pace", "PacedProtocol"]

REST_SECONDS = 0.1
"""How long a peer that has sent too much waits for its next frames."""

_SLACK = 50
"""Frames at once that are no requests: pings, pongs, fragments."""
_RATE = 300.0
_FRAMES_OF_REQUEST = 30
"""Frames a second for each request a second. Fewer than twenty of them, and nobody would send so many requests in vain
in a row that the session ends the connection."""
_KIB_BITS = 10


class Pace(msgspec.Struct, frozen=True):
    """`step`: seconds in which a peer may take one step, half a frame: its header, or its payload. `burst`: seconds
    for which steps may be taken in advance."""

    step: float
    burst: float

    @classmethod
    def permitting(cls, request_rate: float, request_burst: int) -> Pace:
        """A pace at which whoever may send these requests does not notice anything."""
        rate = max(_RATE, request_rate * _FRAMES_OF_REQUEST)
        return cls(0.5 / rate, (request_burst + _SLACK) / rate)


class PacingFactory(Protocol):
    """What is asked of the factory."""

    clock: IReactorTime
    pace: Pace


class PacedProtocol(LeanServerProtocol):
    """A WebSocket whose frames are read no faster than `factory.pace` says."""

    factory: PacingFactory
    _paid_until = 0.0
    """The moment at which the peer may send a whole burst again: a bucket of tokens in a single number."""
    _going_on: IDelayedCall | None = None
    _pauses = 0

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._going_on is not None:
            self._going_on.cancel()
            self._going_on = None
        super().connectionLost(reason)

    def consumeData(self) -> None:
        if self.state not in (self.STATE_OPEN, self.STATE_CLOSING):
            super().consumeData()
            return
        while self._going_on is None:
            if self._pays() and (not self.processData() or self.state == self.STATE_CLOSED):
                return

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        """Its size counts, and it may have come without passing `consumeData`."""
        if len(payload) >> _KIB_BITS:
            self._pays(len(payload) >> _KIB_BITS)

    def onPong(self, payload: bytes) -> None:
        """It may have come by itself, too."""
        self._pays()

    def pause_reading(self) -> None:
        """Read nothing more from the socket, until `resume_reading` has been called as often as this."""
        self._pauses += 1
        if self._pauses == 1:
            self.transport.pauseProducing()

    def resume_reading(self) -> None:
        self._pauses -= 1
        if not self._pauses:
            self.transport.resumeProducing()

    def _pays(self, steps: int = 1) -> bool:
        """Whether the peer may take these steps now; otherwise it has a rest."""
        pace = self.factory.pace
        now = self.factory.clock.seconds()
        paid_until = max(self._paid_until, now)
        is_within = paid_until - now < pace.burst
        if not is_within:  # no message could have brought it so far, if the clock has been put back
            most = now + pace.burst + (self.maxMessagePayloadSize >> _KIB_BITS) * pace.step
            paid_until = self._paid_until = min(paid_until, most)
        if is_within or steps > 1:  # a message has been read already
            self._paid_until = paid_until + steps * pace.step
        if not is_within and self._going_on is None:
            self._going_on = self.factory.clock.callLater(REST_SECONDS, self._go_on)
            self.pause_reading()
        return is_within

    def _go_on(self) -> None:
        self._going_on = None
        self.consumeData()
        self.resume_reading()  # which does nothing when there was too much again
