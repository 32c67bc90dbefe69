"""How often something may happen: buckets of tokens that fill at a steady rate (the generic cell rate algorithm).

1. A bucket never has more tokens than its burst; it starts full.
2. Tokens come with the time that passes, fractions included, and each use takes a whole one. One refused costs nothing.
3. What something turns out to cost besides is charged when that is known, and the bucket then owes tokens.
4. A clock that is put back neither takes nor adds tokens, and from there on they come at the same rate.

All that is kept of a bucket is the moment at which it is full again: in whole ticks, so that adding up many of them
does not round. `now` is in seconds, from any beginning.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from functools import lru_cache
from typing import Generic, TypeVar

__all__ = ["TokenBucket", "TokenBuckets"]

_TICKS = 2**30  # a second
_Key = TypeVar("_Key", bound=Hashable)


@lru_cache(maxsize=64)
def _ticks(rate: float, burst: int) -> tuple[int, int]:
    """The ticks in which a token comes, and those by which a bucket with one may be short of full. All who are limited
    alike share the numbers.
    """
    interval = max(1, int(_TICKS / rate))
    return interval, (burst - 1) * interval


class TokenBucket:
    """Permits `burst` takes at once and `rate` a second in the long run."""

    __slots__ = ("_full_at", "_interval", "_latest", "_most_owed")

    def __init__(self, rate: float, burst: int, now: float) -> None:
        self._interval, self._most_owed = _ticks(rate, burst)
        self._full_at = self._latest = int(now * _TICKS)

    def take(self, now: float) -> bool:
        """Take a token. False: there is none."""
        tick = int(now * _TICKS)
        if tick < self._latest:
            self._full_at -= self._latest - tick
        self._latest = tick
        if self._full_at - tick > self._most_owed:
            return False
        self._full_at = max(self._full_at, tick) + self._interval
        return True

    def charge(self, tokens: int) -> None:
        """Take more tokens, also ones that are not there yet."""
        self._full_at += tokens * self._interval


class TokenBuckets(Generic[_Key]):
    """A bucket for each key: permits `burst` takes at once and `rate` a second in the long run.

    At most `most` keys are remembered; who has not been seen for longest is forgotten first.
    """

    def __init__(self, rate: float, burst: int, most: int) -> None:
        self._interval, self._most_owed = _ticks(rate, burst)
        self._most = most
        self._full_at: OrderedDict[_Key, int] = OrderedDict()  # a plain dict is slow to give its first key
        self._to_look_at: list[_Key] = []
        self._latest = 0.0
        self._put_back = 0.0  # seconds, of the clock

    def __len__(self) -> int:
        """How many keys are remembered."""
        return len(self._full_at)

    def wait(self, key: _Key, now: float) -> int:
        """What `take` would say, without taking a token."""
        tick = self._tick(now)
        return self._wait(self._full_at.get(key, tick), tick)

    def take(self, key: _Key, now: float) -> int:
        """0: a token was there, and is taken. Otherwise the whole seconds until there is one, 1 or more."""
        tick = self._tick(now)
        full_at = self._full_at.get(key)
        if full_at is None:
            self._make_room(tick)
            full_at = tick
        else:
            self._full_at.move_to_end(key)
        wait = self._wait(full_at, tick)
        if not wait:
            self._full_at[key] = max(full_at, tick) + self._interval
        return wait

    def _wait(self, full_at: int, tick: int) -> int:
        return max(0, -(-(full_at - tick - self._most_owed) // _TICKS))

    def _tick(self, now: float) -> int:
        if now < self._latest:
            self._put_back += self._latest - now
        self._latest = now
        return int((now + self._put_back) * _TICKS)

    def _make_room(self, tick: int) -> None:
        """Look at two of the keys, all in turn, and forget those whose bucket is full again: one of them stays
        while as many new ones come as there are, at most. If there is no room yet, forget who has not been seen for
        longest.
        """
        if not self._to_look_at:
            self._to_look_at = list(dict.keys(self._full_at))  # in any order, and so ten times as fast
        for key in self._to_look_at[-2:]:
            if self._full_at.get(key, tick + 1) <= tick:
                del self._full_at[key]
        del self._to_look_at[-2:]
        if len(self._full_at) >= self._most:
            self._full_at.popitem(last=False)
