"""A time-out that is the same for many: one timer for all of them, and next to nothing for one that is met.

Where the process itself has stood still, what it waits for may have come long ago and wait to be read: after such a
pause there is one more turn of the reactor, in which it is, before anybody is late.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall

from marketfeed.boundaries import Clock
from marketfeed.runtime.logs import Log

__all__ = ["Deadlines"]

_Item = TypeVar("_Item", bound=Hashable)
_log = Log()

_STANDSTILL = 1.0
"""Seconds by which the timer is too late, from which on the process is taken to have stood still."""


class Deadlines(Generic[_Item]):
    """Calls `late` with each item that was added `seconds` ago, and has not been discarded since."""

    def __init__(self, clock: Clock, seconds: float, late: Callable[[_Item], None]) -> None:
        self._clock = clock
        self._seconds = seconds
        self._late = late
        self._times: dict[_Item, float] = {}  # in the order in which they come
        self._timer: IDelayedCall | None = None

    def __len__(self) -> int:
        return len(self._times)

    def oldest(self) -> _Item:
        """What has been waited for longest. Raises StopIteration when nothing is."""
        return next(iter(self._times))

    def add(self, item: _Item) -> None:
        """Begin to wait for `item`, which is not waited for yet."""
        self._times[item] = self._clock.seconds() + self._seconds
        if self._timer is None:
            self._timer = self._clock.callLater(self._seconds, self._look)

    def discard(self, item: _Item) -> None:
        """Wait for `item` no longer, if it is waited for."""
        if self._times.pop(item, None) is not None and not self._times and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, *, again: bool = False) -> None:
        now = self._clock.seconds()
        if not again and now - next(iter(self._times.values())) >= _STANDSTILL:
            self._timer = self._clock.callLater(0, self._look, again=True)
            return
        self._timer = None
        overdue = []
        for item, time in self._times.items():
            if time > now:
                self._timer = self._clock.callLater(time - now, self._look)
                break
            overdue.append(item)
        for item in overdue:
            if item not in self._times:
                continue  # discarded as a consequence of another
            self.discard(item)
            try:
                self._late(item)
            except Exception:
                _log.failure("a time-out could not be told")
