"""Plays recorded publications at their own pace, at a multiple of it, or as fast as they are taken.

1. Order is the order of the recording, whatever the pace.
2. A publication is never early. When the server does not keep up they are late, and the pace is caught up with.
3. Where another recording begins, or time goes back, there is no pause.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Protocol

from marketfeed.commands.recording.files import Place
from marketfeed.commands.recording.format import Begin, Gap, Publication, Record
from marketfeed.model.selection import StreamSelection

__all__ = ["Pace", "Player"]

_SECOND = 1_000_000
_TELL_SECONDS = 1.0
_LOOK = 256
"""Publications between two looks at the clock where there is no pace."""


class Publisher(Protocol):
    """What is played on: `ReplayPublisher`."""

    def publish(self, channel: bytes, payload: bytes, place: Place) -> None: ...
    def wait(self, seconds: float) -> None: ...
    def finish(self) -> None: ...


class Pace:
    """When each publication is due, in seconds since the first one. `max_pause`: seconds, before `speed` is applied."""

    def __init__(self, speed: float = 1.0, max_pause: float = float("inf")) -> None:
        self._unit = _SECOND * speed
        self._max_pause = max_pause * _SECOND
        self._last: int | None = None
        self._passed: float = 0

    def restart(self) -> None:
        """What comes next is due at once."""
        self._last = None

    def due(self, moment: int) -> float:
        """`moment`: in µs since 1970, of the next publication."""
        if self._last is not None and moment > self._last:
            self._passed += min(moment - self._last, self._max_pause)
        self._last = moment
        return self._passed / self._unit


class Player:
    """Plays on `publisher`, behind the channel prefix. `pace`: None for as fast as it goes. `selection`: None for all.

    `published`, `payload_bytes`, `gaps`: what has been played so far; `latest`: by how many seconds a publication was
    late at most. `tell`: called every second or so.
    """

    def __init__(
        self,
        publisher: Publisher,
        pace: Pace | None,
        *,
        prefix: bytes = b"",
        selection: StreamSelection | None = None,
        tell: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._publisher = publisher
        self._pace = pace
        self._prefix = prefix
        self._selection = selection
        self._tell = tell
        self._clock = clock
        self._began: float | None = None
        self._told = clock()
        self.published = 0
        self.payload_bytes = 0
        self.gaps = 0
        self.latest = 0.0

    def play(self, records: Iterable[tuple[Place, Record]]) -> None:
        """Publish them all, and wait until the server has them. Raises what the publisher and the records raise."""
        for place, record in records:
            if isinstance(record, Publication):
                if self._selection is None or self._selection.first(record.stream) is not None:
                    self._publish(place, record)
            elif isinstance(record, Gap):
                self.gaps += 1
            elif isinstance(record, Begin) and record.number == 1 and self._pace is not None:
                self._pace.restart()
        self._publisher.finish()

    def _publish(self, place: Place, publication: Publication) -> None:
        if self._pace is not None:
            self._wait_until(self._pace.due(publication.time))
        elif self.published % _LOOK == 0:
            self._look()
        self._publisher.publish(self._prefix + publication.stream, publication.data, place)
        self.published += 1
        self.payload_bytes += len(publication.data)

    def _wait_until(self, due: float) -> None:
        now = self._look()
        if self._began is None:
            self._began = now
        due += self._began
        while now < due:
            self._publisher.wait(min(due - now, _TELL_SECONDS))
            now = self._look()
        self.latest = max(self.latest, now - due)

    def _look(self) -> float:
        now = self._clock()
        if now - self._told >= _TELL_SECONDS:
            self._told = now
            self._tell()
        return now
