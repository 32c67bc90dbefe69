"""Garbage collection in small portions, away from the fan-out.

A full collection looks at every object of every connection: with many clients that is a pause that they all notice.
Here Python's own collector is off. What has come since the last look is collected by itself, often and therefore
quickly, and then *frozen*: no later look sees it again. That is safe because a connection that ends leaves no
reference cycle, so that its objects go without a collector; should anything else leave some, the number of frozen
objects gives it away, and one full collection clears up.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

from twisted.application.service import Service
from twisted.internet.task import LoopingCall

from marketfeed.boundaries import Clock
from marketfeed.runtime.histogram import Histogram
from marketfeed.runtime.logs import Log

__all__ = ["GarbageCollector"]

_LOOK_SECONDS = 0.1
_YOUNG = 2000
"""Objects that have come since the last look, below which none is worth while."""
_AUDIT_LOOKS = 600
_PER_CLIENT = 200
"""Objects that a client may have at most, and that the rest of the daemon may have gained, before a full collection."""
_REST = 200_000


class GarbageCollector(Service):
    """Takes Python's garbage collector over while it runs. `clients`: how many there are."""

    log = Log()

    def __init__(self, clock: Clock, clients: Callable[[], int]) -> None:
        self._clock = clock
        self._clients = clients
        self._loop: LoopingCall | None = None
        self._looks = 0
        self._base = 0
        self.pauses = Histogram()
        self.longest = 0.0
        """Seconds that the longest look took."""

    def startService(self) -> None:
        Service.startService(self)
        gc.disable()
        self._collect_all()
        self._base = gc.get_freeze_count()
        self._loop = LoopingCall(self._look)
        self._loop.clock = self._clock
        self._loop.start(_LOOK_SECONDS, now=False)

    def stopService(self) -> None:
        Service.stopService(self)
        if self._loop is not None:
            self._loop.stop()
            self._loop = None
            gc.unfreeze()
            gc.enable()
            self.log.debug("garbage collection: its longest pause was {pause:.1f} ms", pause=self.longest * 1000)

    def _look(self) -> None:
        if gc.get_count()[0] >= _YOUNG:
            began = time.perf_counter()
            gc.collect(0)
            gc.freeze()
            pause = time.perf_counter() - began
            self.pauses.observe(pause)
            self.longest = max(self.longest, pause)
        self._looks += 1
        if self._looks % _AUDIT_LOOKS == 0:
            count, clients = gc.get_freeze_count(), self._clients()
            if count > self._base + _REST + _PER_CLIENT * clients:
                line = "garbage collection: {count} objects are alive, more than {clients} clients account for; "
                self.log.warn(line + "all of them are looked through", count=count, clients=clients)
                self._collect_all()

    @staticmethod
    def _collect_all() -> None:
        gc.unfreeze()
        gc.collect()
        gc.freeze()
