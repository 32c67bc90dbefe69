"""What a load test counts: times in a histogram, and whether each client got each number once and in order. Pure.

1. A histogram has a fixed size, whatever it is fed; a percentile is never below the true one, and above it by at most
   one part in 64.
2. A number that a client gets is what it waits for; or comes later than a higher one (out of order), or again
   (duplicated). What it was never given, though others were, is lost.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

__all__ = ["ANY", "Histogram", "OrderCheck", "Percentiles"]

ANY = -1
"""A client that waits for this number of a stream takes whichever comes first."""

_FINE = 6  # bits of a value that count: 64 buckets from one power of two to the next
_OCTAVES = 40  # 2**45 µs are a year
_BUCKETS = _OCTAVES << _FINE
_EXACT = 2 << _FINE  # below this each value has a bucket of its own

Span = tuple[int, int]
"""Numbers from the first to before the second."""


class Percentiles(msgspec.Struct, frozen=True):
    """Milliseconds."""

    p50: float
    p90: float
    p99: float
    p99_9: float
    max: float


class Histogram:
    """Counts of times, in µs."""

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self._most = 0

    @property
    def total(self) -> int:
        return sum(self._counts)

    def add(self, value: int, times: int = 1) -> None:
        """Count `value`, which may be negative where clocks disagree and then counts as 0, so many times."""
        if value < _EXACT:
            value = index = max(value, 0)
        else:
            above = value.bit_length() - _FINE - 1
            index = (above << _FINE) + (value >> above)
        if value > self._most:
            self._most = value
        self._counts[index if index < _BUCKETS else -1] += times

    def percentile(self, share: float) -> int:
        """A time that `share` of all, a number from 0 to 1, did not exceed. 0 when nothing was counted."""
        rank = share * self.total
        passed = 0
        for index, times in enumerate(self._counts):
            passed += times
            if times and passed >= rank:
                return min(_highest(index), self._most)
        return self._most

    def percentiles(self) -> Percentiles | None:
        """None when nothing was counted."""
        if not any(self._counts):
            return None
        p50, p90, p99, p99_9 = (self.percentile(share) / 1000 for share in (0.5, 0.9, 0.99, 0.999))
        return Percentiles(p50, p90, p99, p99_9, self._most / 1000)


def _highest(index: int) -> int:
    """The highest value that is counted in this bucket."""
    above = max((index >> _FINE) - 1, 0)
    return ((index - (above << _FINE) + 1) << above) - 1


class OrderCheck:
    """Judges what does not come in order; whoever reads in order need not ask.

    Where each client stands is its own dict, of streams and the numbers that it waits for; `holes` are the numbers
    that each client and stream has passed over.
    """

    def __init__(self) -> None:
        self.duplicated = 0
        self.out_of_order = 0
        self.unasked = 0
        self.holes: dict[tuple[int, int], list[Span]] = {}

    def take(self, client: int, waits_for: dict[int, int], stream: int, first: int, after: int) -> int:
        """A client got the numbers from `first` to before `after` at once; returns by how many it got on.

        None at all, `first` being `after`, is a snapshot: whatever was before, the client goes on from there.
        """
        expected = waits_for.get(stream)
        if expected is None:
            self.unasked += 1
            return 0
        if expected == ANY or first == after:
            waits_for[stream] = after
            return after - (first if expected == ANY else expected)
        if first < expected:
            again = min(after, expected) - first
            late = self._fill(client, stream, first, min(after, expected))
            self.out_of_order += late
            self.duplicated += again - late
        elif first > expected:
            self.holes.setdefault((client, stream), []).append((expected, first))
        waits_for[stream] = max(expected, after)
        return waits_for[stream] - expected

    def lost(self, published: Callable[[int, int, int], int]) -> int:
        """How many were passed over of those that exist: `published` counts a stream's from a number to before one."""
        return sum(
            published(stream, first, after) for (_, stream), holes in self.holes.items() for first, after in holes
        )

    def _fill(self, client: int, stream: int, first: int, after: int) -> int:
        """Take these numbers out of the holes; returns how many were in one."""
        holes = self.holes.get((client, stream), [])
        filled = 0
        left: list[Span] = []
        for begin, end in holes:
            low, high = max(begin, first), min(end, after)
            if low >= high:
                left.append((begin, end))
                continue
            filled += high - low
            left += [span for span in ((begin, low), (high, end)) if span[0] < span[1]]
        holes[:] = left
        return filled
