"""What takes a while to read, read once for all who want the same within some time.

1. Whoever asks while it is being read waits for that reading. One who gives up disturbs no other; when nobody waits any
   more the reading is ended.
2. What was read is good for some seconds from the moment on at which its reading began. None means that there was
   nothing to be had: all who wait hear it, and whoever asks then begins anew.
3. What is kept has a bound: the oldest goes first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.python.failure import Failure

__all__ = ["SharedReads"]

_Value = TypeVar("_Value")


class _Reading(Generic[_Value]):
    """One that is under way, and who waits for it."""

    __slots__ = ("began", "waiting", "work")

    def __init__(self, began: float) -> None:
        self.began = began
        self.waiting: list[Deferred[_Value | None]] = []
        self.work: Deferred[None] | None = None


class SharedReads(Generic[_Value]):
    """What was read, by key. `now`: in s; `seconds`: how long it is good; `room`: how much is kept, by its `size`."""

    def __init__(
        self,
        now: Callable[[], float],
        seconds: float,
        room: int,
        size: Callable[[_Value], int] = lambda _: 1,
    ) -> None:
        self._now = now
        self._seconds = seconds
        self._room = room
        self._size = size
        self._kept: OrderedDict[Hashable, tuple[float, _Value]] = OrderedDict()
        self._held = 0
        self._under_way: dict[Hashable, _Reading[_Value]] = {}

    def get(self, key: Hashable, read: Callable[[], Coroutine[Any, Any, _Value | None]]) -> Awaitable[_Value | None]:
        """What `read` comes to, or came to a moment ago. It is a Deferred: whoever no longer wants it cancels it."""
        kept = self._kept.get(key)
        if kept is not None and self._is_fresh(kept[0]):
            return succeed(kept[1])
        reading = self._under_way.get(key)
        is_new = reading is None
        if reading is None:
            reading = self._under_way[key] = _Reading(self._now())
        found = reading
        waiting: Deferred[_Value | None] = Deferred(lambda gone: self._leave(key, found, gone))
        found.waiting.append(waiting)
        if is_new:
            work = Deferred.fromCoroutine(read())
            found.work = work.addCallbacks(self._keep, self._fail, callbackArgs=(key, found), errbackArgs=(key, found))
        return waiting

    def forget(self, key: Hashable) -> None:
        """What was read is not good any more."""
        if key in self._kept:
            self._drop(key)

    def newest(self, key: Hashable) -> _Value | None:
        """What was read last, however long ago; None: nothing is kept."""
        kept = self._kept.get(key)
        return None if kept is None else kept[1]

    def is_due(self, key: Hashable) -> bool:
        """Whether a `get` would begin to read."""
        kept = self._kept.get(key)
        return key not in self._under_way and (kept is None or not self._is_fresh(kept[0]))

    def _is_fresh(self, began: float) -> bool:
        return 0 <= self._now() - began < self._seconds  # a clock may be set back

    def _keep(self, value: _Value | None, key: Hashable, reading: _Reading[_Value]) -> None:
        if value is not None:
            if key in self._kept:
                self._drop(key)
            self._kept[key] = reading.began, value
            self._held += self._size(value)
            while self._held > self._room:
                self._drop(next(iter(self._kept)))
        for waiting in self._end(key, reading):
            if not waiting.called:  # whom another one, that was told before it, has made give up
                waiting.callback(value)

    def _fail(self, failure: Failure, key: Hashable, reading: _Reading[_Value]) -> Failure | None:
        if not reading.waiting:
            return None if failure.check(CancelledError) else failure
        for waiting in self._end(key, reading):
            if not waiting.called:
                waiting.errback(failure)
        return None

    def _drop(self, key: Hashable) -> None:
        self._held -= self._size(self._kept.pop(key)[1])

    def _end(self, key: Hashable, reading: _Reading[_Value]) -> list[Deferred[_Value | None]]:
        """Nobody joins it from now on. Whoever waits for it."""
        if self._under_way.get(key) is reading:
            del self._under_way[key]
        waiting, reading.waiting = reading.waiting, []
        return waiting

    def _leave(self, key: Hashable, reading: _Reading[_Value], gone: Deferred[_Value | None]) -> None:
        if gone not in reading.waiting:
            return  # it is being told at this moment
        reading.waiting.remove(gone)
        if not reading.waiting:
            self._end(key, reading)
            if reading.work is not None:
                reading.work.cancel()
