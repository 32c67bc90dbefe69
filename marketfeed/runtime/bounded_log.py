"""Lines of the log that may repeat without end, at a bounded rate: what one client or one stream can cause.

1. Of each key the first few of a second are logged at once. The rest is counted, and when the second is over one line
   tells of it: with the facts of the last, and how many there were. While it goes on, that is one line a second.
2. Every line has the field `count`, how many it stands for. Of all lines together it is the number of what happened.
3. Nobody waits for the next one: what was held back is told by a timer, or as the log is closed.
"""

from __future__ import annotations

from collections.abc import Hashable
from itertools import takewhile
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from marketfeed.boundaries import Clock
from marketfeed.runtime.logs import Log

__all__ = ["BoundedLog"]

_SECONDS = 1.0
_AND_MORE = " (the last of {count} within 1 s)"


class _Second:
    """What has happened of one key within a second."""

    __slots__ = ("ends", "held", "left", "tell")

    def __init__(self, ends: float, left: int) -> None:
        self.ends = ends
        self.left = left
        self.held = 0
        self.tell: tuple[Any, str, dict[str, Any]] | None = None


class BoundedLog:
    """Logs to `log`, of each key at most `at_once` lines in a second. Whoever has one closes it in the end."""

    def __init__(self, clock: Clock, log: Log, at_once: int = 1) -> None:
        self._clock = clock
        self._log = log
        self._at_once = at_once
        self._seconds: dict[Hashable, _Second] = {}  # the first one ends first
        self._timer: IDelayedCall | None = None
        self._is_closed = False

    def info(self, key: Hashable, format: str, /, **facts: Any) -> None:
        """It has happened once more. `key`: what counts as the same; there must be a bounded number of them."""
        self._put(key, LogLevel.info, format, facts)

    def warn(self, key: Hashable, format: str, /, **facts: Any) -> None:
        """The same, as a warning."""
        self._put(key, LogLevel.warn, format, facts)

    def failure(self, key: Hashable, format: str, /, **facts: Any) -> None:
        """An exception is being handled. One that is held back has no traceback, whose frames would be kept alive."""
        if self._may_be_told(key):
            self._log.failure(format, **facts, count=1)
        else:
            fault = Failure().value
            facts["fault"] = f"{type(fault).__name__}: {fault}"
            self._hold(key, LogLevel.critical, format + ": {fault}", facts)

    def close(self) -> None:
        """Tell what is held back. What comes from now on is logged at once."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        seconds, self._seconds = self._seconds, {}
        for second in seconds.values():
            self._tell(second)

    def _put(self, key: Hashable, level: Any, format: str, facts: dict[str, Any]) -> None:
        if self._may_be_told(key):
            self._log.emit(level, format, **facts, count=1)
        else:
            self._hold(key, level, format, facts)

    def _may_be_told(self, key: Hashable) -> bool:
        if self._is_closed:
            return True
        second = self._seconds.get(key) or self._begin(key, self._at_once)
        second.left -= 1
        return second.left >= 0

    def _hold(self, key: Hashable, level: Any, format: str, facts: dict[str, Any]) -> None:
        second = self._seconds[key]
        second.held += 1
        second.tell = (level, format, facts)

    def _begin(self, key: Hashable, left: int) -> _Second:
        second = self._seconds[key] = _Second(self._clock.seconds() + _SECONDS, left)
        if self._timer is None:
            self._timer = self._clock.callLater(_SECONDS, self._look)
        return second

    def _look(self) -> None:
        """Seconds are over: tell what they held back, and forget the keys that are quiet."""
        now = self._clock.seconds()
        for key, second in list(takewhile(lambda item: item[1].ends <= now, self._seconds.items())):
            del self._seconds[key]
            if second.held:
                self._begin(key, 0)
                self._tell(second)
        first = next(iter(self._seconds.values()), None)
        self._timer = None if first is None else self._clock.callLater(first.ends - now, self._look)

    def _tell(self, second: _Second) -> None:
        if second.tell is not None:
            level, format, facts = second.tell
            self._log.emit(level, format + _AND_MORE * (second.held > 1), **facts, count=second.held)
