"""How much of one peer's frames is read at a time: a flood of them is read slowly, and holds nobody else up.

1. A peer may send so many frames at once, and so many a second in the long run; a KiB of a message, inflated, counts as
   half of one. What it sends beyond that is not refused: it waits, in the end with the peer, for nothing more is read
   from its socket meanwhile.
2. Nothing else is changed by it, neither the order nor what is answered.
3. Reading goes on when nobody wants it paused any more: neither this nor whoever has called `pause`.

A frame of six bytes costs as much as one with a request. Without this, what the kernel has buffered for one peer would
keep the daemon from all others for a twentieth of a second, and then again.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from twisted.internet.interfaces import IDelayedCall, IPushProducer

from marketfeed.boundaries import Clock

__all__ = ["KIB_BITS", "REST_SECONDS", "ReadRate", "ReadThrottle"]

REST_SECONDS = 0.1
"""How long a peer that has sent too much waits for its next frames."""
KIB_BITS = 10
"""A message takes as many steps as it has KiB: its size, shifted right by this."""

_SLACK = 50
"""Frames at once that are no requests: pings, pongs, fragments."""
_RATE = 300.0
_FRAMES_OF_REQUEST = 30
"""Frames a second for each request a second. Fewer than twenty of them, and nobody would send so many requests in vain
in a row that the session ends the connection."""


class ReadRate(msgspec.Struct, frozen=True):
    """How fast each peer may be read.

    `step`: seconds in which a peer may take one step, half a frame: its header, or its payload. `burst`: seconds for
    which steps may be taken in advance. `most`: seconds that the largest message may bring it ahead.
    """

    step: float
    burst: float
    most: float

    @classmethod
    def permitting(cls, request_rate: float, request_burst: int, max_message: int) -> ReadRate:
        """A rate at which whoever may send these requests, of at most so many bytes, does not notice anything."""
        rate = max(_RATE, request_rate * _FRAMES_OF_REQUEST)
        step, burst = 0.5 / rate, (request_burst + _SLACK) / rate
        return cls(step, burst, burst + (max_message >> KIB_BITS) * step)


class ReadThrottle:
    """One peer's, which pauses its `transport`. Call `close` when the connection is gone."""

    __slots__ = ("_clock", "_paid_until", "_pauses", "_rate", "_rest", "_transport")

    def __init__(self, clock: Clock, rate: ReadRate, transport: IPushProducer) -> None:
        self._clock = clock
        self._rate = rate
        self._transport = transport
        self._paid_until = 0.0
        """The moment at which the peer may send a whole burst again: a bucket of tokens in a single number."""
        self._rest: IDelayedCall | None = None
        self._pauses = 0

    @property
    def is_resting(self) -> bool:
        """Nothing is to be read."""
        return self._rest is not None

    def admits(self, read_on: Callable[[], None], steps: int = 1) -> bool:
        """Whether the peer may take these steps now. False: it has a rest first, and then `read_on` is called.

        More than one are those of a message that has been read already: they are counted in any case.
        """
        rate, now = self._rate, self._clock.seconds()
        paid_until = max(self._paid_until, now)
        is_within = paid_until - now < rate.burst
        if not is_within:  # no message could have brought it so far, if the clock has been put back
            paid_until = self._paid_until = min(paid_until, now + rate.most)
        if is_within or steps > 1:
            self._paid_until = paid_until + steps * rate.step
        if not is_within and self._rest is None:
            self._rest = self._clock.callLater(REST_SECONDS, self._rest_is_over, read_on)
            self.pause()
        return is_within

    def pause(self) -> None:
        """Read nothing more from the socket, until `resume` has been called as often as this."""
        self._pauses += 1
        if self._pauses == 1:
            self._transport.pauseProducing()

    def resume(self) -> None:
        self._pauses -= 1
        if not self._pauses:
            self._transport.resumeProducing()

    def close(self) -> None:
        """The connection is gone."""
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None

    def _rest_is_over(self, read_on: Callable[[], None]) -> None:
        self._rest = None
        read_on()
        self.resume()  # which does nothing when there was too much again
