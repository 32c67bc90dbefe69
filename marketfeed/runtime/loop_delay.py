"""How late the reactor comes to what is due: whatever takes long in one turn, everybody else waits for it."""

from __future__ import annotations

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall

from marketfeed.boundaries import Clock
from marketfeed.runtime.histogram import Histogram

__all__ = ["LoopDelay"]

LOOK_SECONDS = 0.1


class LoopDelay(Service):
    """Looks ten times a second how late it is, while it runs."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due = 0.0
        self._call: IDelayedCall | None = None
        self.delays = Histogram()

    def startService(self) -> None:
        Service.startService(self)
        self._wait()

    def stopService(self) -> None:
        Service.stopService(self)
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _wait(self) -> None:
        self._due = self._clock.seconds() + LOOK_SECONDS
        self._call = self._clock.callLater(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self.delays.observe(max(0.0, self._clock.seconds() - self._due))
        self._wait()
