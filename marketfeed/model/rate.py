"""How often something may happen: a bucket of tokens that fills at a steady rate.

1. There are never more than `burst` tokens; the bucket starts full.
2. Tokens come with the time that passes, fractions included, and a `take` needs a whole one. One refused costs nothing.
3. What something turns out to cost besides is charged when that is known, and the bucket then owes tokens.
4. A clock that is put back neither takes nor adds tokens, and from there on they come at the same rate.
"""

from __future__ import annotations

__all__ = ["TokenBucket"]


class TokenBucket:
    """Permits `burst` takes at once and `rate` a second in the long run. `now` is in seconds, from any beginning."""

    __slots__ = ("_burst", "_latest", "_rate", "_tokens")

    def __init__(self, rate: float, burst: int, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens: float = burst
        self._latest = now

    def take(self, now: float) -> bool:
        """Take a token. False: there is none."""
        passed = now - self._latest
        self._latest = now
        if passed > 0:
            self._tokens = min(self._burst, self._tokens + passed * self._rate)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def charge(self, tokens: int) -> None:
        """Take more tokens, also ones that are not there yet."""
        self._tokens -= tokens
