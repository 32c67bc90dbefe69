"""Lines of the log that may repeat without end, at a bounded rate: what one client or one stream can cause.

1. Of each key the first few of a second are logged at once. The rest is counted, and when the second is over one line
   tells of it: with the facts of the last, and how many there were. As many as it stands for may be logged less in the
   next second: what goes on without end is one line a second, and the end of it is told one by one again.
2. Every line has the field `count`, how many it stands for. Of all lines together it is the number of what happened.
3. Nobody waits for the next one: what was held back is told by a timer, or as the log is closed.
4. So many keys are told apart in a second, and no more: all others count as one for each format.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from marketfeed.boundaries import Clock
from marketfeed.runtime.logs import Log

__all__ = ["BoundedLog"]

_SECONDS = 1.0
_AND_MORE = " (the last of {count} within 1 s)"
_OTHERS = object()
_Facts = dict[str, Any] | Callable[[], dict[str, Any]]
"""Of a line, or what finds them."""


class _Second:
    """What has happened of one key within a second."""

    __slots__ = ("ends", "held", "left", "tell")

    def __init__(self, ends: float, left: int) -> None:
        self.ends = ends
        self.left = left
        self.held = 0
        self.tell: tuple[Any, str, _Facts] | None = None


class BoundedLog:
    """Logs to `log`, of each key at most `at_once` lines in a second, and of `most_keys` keys. Whoever has one closes
    it in the end.
    """

    def __init__(self, clock: Clock, log: Log, at_once: int = 1, most_keys: int = 100) -> None:
        self._clock = clock
        self._log = log
        self._at_once = at_once
        self._most_keys = most_keys
        self._seconds: dict[Hashable, _Second] = {}  # the first one ends first
        self._timer: IDelayedCall | None = None
        self._is_closed = False

    def info(self, key: Hashable, format: str, /, **facts: Any) -> None:
        """It has happened once more. `key`: what counts as the same."""
        self._put(key, LogLevel.info, format, facts)

    def info_of(self, key: Hashable, format: str, facts: Callable[[], dict[str, Any]]) -> None:
        """The same, with `facts` that are asked for only if they are told. That may be a second later: they should keep
        nothing alive that matters.
        """
        second = None if self._is_closed else self._second(key, format)
        if second is None or second.left >= 0:
            self._log.emit(LogLevel.info, format, **facts(), count=1)
        else:
            self._hold(second, LogLevel.info, format, facts)

    def warn(self, key: Hashable, format: str, /, **facts: Any) -> None:
        """The same, as a warning."""
        self._put(key, LogLevel.warn, format, facts)

    def failure(self, key: Hashable, format: str, failure: Failure | None = None, /, **facts: Any) -> None:
        """An exception is being handled, or `failure` is what it was. One that is held back has no traceback, whose
        frames would be kept alive.
        """
        second = None if self._is_closed else self._second(key, format)
        if second is None or second.left >= 0:
            self._log.failure(format, failure, **facts, count=1)
        else:
            fault = (failure or Failure()).value
            facts["fault"] = f"{type(fault).__name__}: {fault}"
            self._hold(second, LogLevel.critical, format + ": {fault}", facts)

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
        second = None if self._is_closed else self._second(key, format)
        if second is None or second.left >= 0:
            self._log.emit(level, format, **facts, count=1)
        else:
            self._hold(second, level, format, facts)

    def _second(self, key: Hashable, format: str) -> _Second:
        """The second in which it has happened, of which one line less is left."""
        second = self._seconds.get(key)
        if second is None or not second.held:  # or when it is told has been settled, and the clock is not asked
            now = self._clock.seconds()
            if second is None or second.ends <= now:
                self._forget(now)
                if len(self._seconds) >= self._most_keys:
                    key = _OTHERS, format
                    second = self._seconds.get(key)
                if second is None or (second.ends <= now and not second.held):
                    second = self._begin(key, now, self._at_once)
        second.left -= 1
        return second

    def _begin(self, key: Hashable, now: float, left: int) -> _Second:
        self._seconds.pop(key, None)  # so that it is the last
        second = self._seconds[key] = _Second(now + _SECONDS, left)
        return second

    def _forget(self, now: float) -> None:
        """Keep nothing of keys that were quiet for a second."""
        while self._seconds:
            key, second = next(iter(self._seconds.items()))
            if second.ends > now or second.held:
                return
            del self._seconds[key]

    def _hold(self, second: _Second, level: Any, format: str, facts: _Facts) -> None:
        second.held += 1
        second.tell = (level, format, facts)
        if second.held == 1:
            self._look_at(second.ends)

    def _look_at(self, when: float) -> None:
        delay = max(0.0, when - self._clock.seconds())
        if self._timer is None:
            self._timer = self._clock.callLater(delay, self._look)
        elif self._timer.getTime() > when:
            self._timer.reset(delay)

    def _look(self) -> None:
        """Seconds are over: tell what they held back."""
        self._timer = None
        now = self._clock.seconds()
        for key, second in list(self._seconds.items()):
            if second.held and second.ends <= now:
                self._begin(key, now, max(0, self._at_once - second.held))
                self._tell(second)
        held = next((second for second in self._seconds.values() if second.held), None)
        if held is not None:
            self._look_at(held.ends)

    def _tell(self, second: _Second) -> None:
        if second.tell is not None:
            level, format, facts = second.tell
            if not isinstance(facts, dict):
                facts = facts()
            self._log.emit(level, format + _AND_MORE * (second.held > 1), **facts, count=second.held)
