"""One flush for all that came in one turn of the reactor, on however many links: each client gets it in one write."""

from __future__ import annotations

from collections.abc import Callable

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall

from marketfeed.boundaries import Clock

__all__ = ["TurnFlush"]


class TurnFlush(Service):
    """Call it for each link whose publications are all told; `flush` is called once, when all that could be read was.

    What is called when it ends is not put off.
    """

    def __init__(self, clock: Clock, flush: Callable[[], None]) -> None:
        self._clock = clock
        self._flush = flush
        self._turn: IDelayedCall | None = None

    def __call__(self) -> None:
        if not self.running:
            self._flush()
        elif self._turn is None:
            self._turn = self._clock.callLater(0, self._end_turn)

    def _end_turn(self) -> None:
        self._turn = None
        self._flush()

    def stopService(self) -> None:
        Service.stopService(self)
        if self._turn is not None:
            self._turn.cancel()
            self._end_turn()
