"""The connected clients: each has a number of its own while it is here, and all of it is forgotten when it leaves.

1. A client is registered when its WebSocket opens and removed when its connection is gone, whatever the reason.
2. Nobody is registered past `max_connections`, nor while the daemon drains.
3. Of a storm of clients who come, go or fail the log has so many lines, and then one a second that counts.
4. A drain sends every client away, evenly spread over the time given, and ends when all are gone or a grace has passed.
   Who has gone meanwhile takes none of the time. One that has fallen behind, because the process had no turn for a
   while, catches up, and then too no second sees more than twice the mean: it is late by no more than it was held up.
"""

from __future__ import annotations

import random
import secrets
from collections import Counter, deque
from collections.abc import Callable, Iterator
from itertools import count
from typing import Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater

from marketfeed.api.clients import Departed, Visitor
from marketfeed.boundaries import Clock
from marketfeed.http.response import Response
from marketfeed.model.numbers import whole
from marketfeed.model.rate import TokenBucket
from marketfeed.runtime.bounded_log import BoundedLog
from marketfeed.runtime.logs import Log
from marketfeed.websocket.closing import Ending, Parting
from marketfeed.wire.close_codes import CLOSE_REASONS
from marketfeed.wire.messages import ServerShutdown

__all__ = ["BUCKETS", "Connection", "UserManager"]

BUCKETS = 20
_TICK = 0.1
_GRACE = 5.0
"""Seconds that clients have to answer a close."""
_LATEST_RETURN = 5000
"""ms: clients are asked to come back at a random moment up to this, so that they do not all come at once."""
_LINES_AT_ONCE = 100


_DEPARTED = 100
_DIGITS = 15
_CODES = frozenset([reason.code for reason in CLOSE_REASONS]) | {1000, 1001, 1005, 1006}
"""Of closes, that are counted by themselves: clients may choose any."""
_USUAL = (
    *[(str(reason.code), "server") for reason in CLOSE_REASONS],
    *[(code, "client") for code in ("1000", "1001", "1005", "other")],
    ("1006", "nobody"),
)


class Connection(Visitor, Protocol):
    """A client's, as the register sees it."""

    def send_away(self, farewell: ServerShutdown, *, at_once: bool) -> None:
        """Say goodbye and close; `at_once`: do not wait for the client's answer to the close."""

    def abort(self) -> None:
        """End the connection without a word."""

    def beat(self, now: float, patience: float) -> None:
        """Ping this client, or end it when it has left a ping unanswered for `patience` seconds."""


class UserManager(Service):
    """The register of connected clients. `max_connections` may change, and `drain_seconds` until the drain begins."""

    log = Log()

    def __init__(self, clock: Clock, max_connections: int, drain_seconds: float, now: Callable[[], float]) -> None:
        self._clock = clock
        self._now = now
        self._ids = count(1)
        self.run = secrets.token_hex(4)
        """What tells the clients of this process from those of any other, and of the one before it."""
        self.lines = BoundedLog(clock, self.log, _LINES_AT_ONCE)
        """What the log says of single clients, until this service is stopped."""
        self._buckets: list[dict[int, Connection]] = [{} for _ in range(BUCKETS)]
        self._count = 0
        self._gone: Deferred[None] | None = None
        self._late: IDelayedCall | None = None
        self._hurry = False
        self.drain_seconds = drain_seconds
        self.draining = False
        self.max_connections = max_connections
        self.opened = 0
        self.closes: Counter[tuple[str, str]] = Counter(dict.fromkeys(_USUAL, 0))
        """How many there have been, by code, or `other`, and by whom: server, client or nobody."""
        self.departed: deque[Departed] = deque(maxlen=_DEPARTED)
        """The last of them, oldest first."""

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Connection]:
        return iter([each for bucket in self._buckets for each in bucket.values()])

    def bucket(self, at: int) -> list[Connection]:
        """One of the `BUCKETS` shares into which the clients are dealt, to visit them a share at a time."""
        return list(self._buckets[at].values())

    def refusal(self, *, stays: bool = True) -> Response | None:
        """Why no further client may come in at this moment, or None. `stays`: not just for one answer."""
        if self.draining:
            return Response(503, "this server is shutting down", (("Retry-After", "5"),), reason="draining")
        if stays and self._count >= self.max_connections:
            return Response(503, "this server is full", (("Retry-After", "30"),), reason="full")
        return None

    def add(self, connection: Connection) -> int:
        """Register a client; returns its number, unique in this process; `name` makes it unique in all of them."""
        number = next(self._ids)
        self._buckets[number % BUCKETS][number] = connection
        self._count += 1
        self.opened += 1
        return number

    def find(self, client: str) -> Connection | None:
        """The one that the log calls so; None: it is not here."""
        run, _, number = client.partition("-")
        at = whole(number, _DIGITS)
        return None if run != self.run or at is None else self._buckets[at % BUCKETS].get(at)

    def name(self, number: int) -> str:
        """A client as the log calls it."""
        return f"{self.run}-{number}"

    def remove(self, number: int) -> None:
        """The client is gone."""
        if self._buckets[number % BUCKETS].pop(number, None) is not None:
            self._count -= 1
        if not self._count and self._gone is not None:
            gone, self._gone = self._gone, None
            gone.callback(None)

    def has_left(self, client: str, peer: str, age: float, end: Ending, parting: Parting) -> None:
        """One of them has gone: what the log and the status say of it."""
        self.closes[str(end.code) if end.code in _CODES else "other", end.closed_by] += 1
        at = int(self._now() * 1000)
        departed = Departed(at, client, peer, parting.user, age, end.code, end.closed_by, end.reason, *parting[1:])
        self.departed.append(departed)

    def stopService(self) -> None:
        Service.stopService(self)
        self.lines.close()

    def hurry(self) -> None:
        """End a drain that has begun, or make the next one immediate."""
        self._hurry = True
        if self._late is not None and self._late.active():
            self._late.reset(_TICK)

    async def drain(self) -> None:
        """Send every client away; done when they are gone, or have been ended."""
        self.draining = True
        if not self._count:
            return
        self.log.info("sending {count} clients away", count=self._count)
        if self.drain_seconds and not self._hurry:
            await deferLater(self._clock, 0)  # what had come from Redis before is on its way then
        waiting = [number for bucket in self._buckets for number in bucket]
        count, begun, sent = len(waiting), self._clock.seconds(), 0
        ticks = max(1, int(self.drain_seconds / _TICK))
        pace = count / max(self.drain_seconds, _TICK)
        burst = max(1, int(pace / 2))
        permits = TokenBucket(max(1.0, 2 * pace - burst), burst, begun)
        while True:
            now = self._clock.seconds()
            tick = min(ticks, round((now - begun) / _TICK) + 1)
            sent += self._send_some_away(waiting, -(-count * tick // ticks) - sent, permits, now)
            if not (waiting and self._count):
                break
            await deferLater(self._clock, _TICK)
        if self._count:
            self._gone = Deferred[None]()
            self._late = self._clock.callLater(_TICK if self._hurry else _GRACE, self._abort_all)
            await self._gone
            if self._late.active():
                self._late.cancel()

    def _send_some_away(self, waiting: list[int], share: int, permits: TokenBucket, now: float) -> int:
        """Send `share` of them away, or as many as there are permits for; returns how many."""
        at_once = self._hurry or self.drain_seconds == 0
        sent = 0
        while waiting and (at_once or sent < share):
            connection = self._buckets[waiting[-1] % BUCKETS].get(waiting[-1])
            if connection is not None:
                if not (at_once or permits.take(now)):
                    break
                self._send_away(connection, at_once)
                sent += 1
            waiting.pop()
        return sent

    def _send_away(self, connection: Connection, at_once: bool) -> None:
        farewell = ServerShutdown(int(self._now() * 1000), random.randrange(500, _LATEST_RETURN))
        try:
            connection.send_away(farewell, at_once=at_once)
        except Exception:
            self.lines.failure("away", "a client could not be sent away")
            connection.abort()

    def _abort_all(self) -> None:
        for connection in self:
            connection.abort()
