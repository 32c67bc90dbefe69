"""How long to wait before the next attempt. Pure.

1. Full jitter: anything from 0 to a bound that doubles with each failure, so that clients which lost the server
   together do not come back together.
2. A hint of the server is taken as it is, once: it differs from client to client already.
3. A connection counts as good, and what failed before it as over, only if it lasted.
"""

from __future__ import annotations

import math
from collections.abc import Callable

__all__ = ["Backoff"]

_MOST_DOUBLINGS = 1000


class Backoff:
    """The pauses between attempts. Times are in ms; `random` gives numbers from 0 to 1, without 1."""

    def __init__(self, base: float, most: float, stable: float, random: Callable[[], float]) -> None:
        self._base = base
        self._most = most
        self._stable = stable
        self._random = random
        self.failures = 0
        """How many attempts have failed since a connection was good."""

    def failed(self, lasted: float, weight: int = 1) -> None:
        """A connection that was open for `lasted` ms, or an attempt at one, has ended; it counts for `weight` failures
        at least.
        """
        if lasted >= self._stable:
            self.failures = 0
        self.failures = max(self.failures + 1, weight)

    def pause(self, hint: float | None = None) -> int:
        """The pause before the next attempt. `hint`: what the server asked for."""
        if hint is not None:
            return math.floor(hint + 0.5)
        doublings = min(max(self.failures, 1) - 1, _MOST_DOUBLINGS)
        return math.floor(self._random() * min(self._most, self._base * 2.0**doublings) + 0.5)
