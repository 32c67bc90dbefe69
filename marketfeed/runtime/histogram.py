"""How often values came, by their size: a list of whole numbers, one of which grows."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

__all__ = ["CLIENTS", "SECONDS", "Histogram"]

SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Bounds of what takes 0.1 ms to 10 s (docs/operations/health.md#metrics)."""
CLIENTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000)
"""Bounds of how many clients something is for."""


class Histogram:
    """Values, counted by the least of `bounds` that they do not exceed; and their `sum`."""

    __slots__ = ("_counts", "bounds", "sum")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self.bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """One more."""
        self._counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def counts(self) -> list[int]:
        """How many were at most each bound, and at the end all of them."""
        return list(accumulate(self._counts))
