"""One sweep over all clients finds those who are gone without a word: half-open connections, sleeping laptops.

1. Every client is visited once an interval, a share of them at a time, so that pings do not leave all at once.
2. There is one timer for all of them, and it goes on whatever one client does.
3. A ping waits behind the backlog. As long as a client takes something of that, it is given time.
"""

from __future__ import annotations

from twisted.application.service import Service
from twisted.internet.task import LoopingCall

from marketfeed.boundaries import Clock
from marketfeed.websocket.connections import BUCKETS, UserManager

__all__ = ["Heartbeat"]


class Heartbeat(Service):
    """Pings every client each `interval` seconds, 0 for never, and ends it `patience` seconds after one in vain."""

    def __init__(self, clock: Clock, users: UserManager, interval: float, patience: float) -> None:
        self._clock = clock
        self._users = users
        self._tick = interval / BUCKETS
        self._patience = patience - self._tick / 2  # no tick comes on the dot, and the next visit is an interval away
        self._turn = 0
        self._loop: LoopingCall | None = None

    def startService(self) -> None:
        Service.startService(self)
        if self._tick:
            self._loop = LoopingCall(self._sweep)
            self._loop.clock = self._clock
            self._loop.start(self._tick, now=False)

    def stopService(self) -> None:
        Service.stopService(self)
        if self._loop is not None:
            self._loop.stop()
            self._loop = None

    def _sweep(self) -> None:
        now = self._clock.seconds()
        self._turn = (self._turn + 1) % BUCKETS
        for connection in self._users.bucket(self._turn):
            try:
                connection.beat(now, self._patience)
            except Exception:
                self._users.lines.failure("pinged", "a client could not be pinged")
                connection.abort()
