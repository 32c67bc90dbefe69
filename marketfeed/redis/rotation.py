"""Many things that are looked at in turn, a slice of them at a time, so that no look costs much.

1. Each is looked at once in every round; a round is as many slices as it takes, or a time.
2. What is added waits for its turn behind the others; what is removed is not looked at any more.
3. However many there are, no more than `MOST_A_SECOND` have their turn in a second: then a round takes longer.
"""

from __future__ import annotations

from itertools import islice
from typing import TypeVar

__all__ = ["MOST_A_SECOND", "ROUND_SECONDS", "Rotation", "Rounds"]

ROUND_SECONDS = 30.0
MOST_A_SECOND = 200

T = TypeVar("T")


class Rotation(dict[T, None]):
    """Hashable things, the keys, in the order in which they have their turn."""

    def add(self, thing: T) -> None:
        """Let it have a turn; one that is here already keeps its place."""
        self[thing] = None

    def discard(self, thing: T) -> None:
        """Forget it; nothing happens if it is not here."""
        self.pop(thing, None)

    def next(self, most: int) -> list[T]:
        """Those whose turn it is, at most so many; they go to the end."""
        turn = list(islice(self, most))
        for thing in turn:
            del self[thing]
        self.update(dict.fromkeys(turn))
        return turn


class Rounds:
    """How many have their turn, so that each of them has one in a round. `now`: when the first round begins, in s.

    `seconds`: how long a round is; `ROUND_SECONDS` if that is not given.
    """

    def __init__(
        self, now: float, most_a_second: float = MOST_A_SECOND, least_a_second: float = 0, seconds: float | None = None
    ) -> None:
        self._most = most_a_second
        self._least = least_a_second
        self._seconds = ROUND_SECONDS if seconds is None else seconds
        self._last = now
        self._part = 0.0

    def due(self, members: int, now: float) -> int:
        """How many of so many have their turn now, since this was last asked."""
        passed, self._last = now - self._last, now
        turns = self._part + passed * min(self._most, max(self._least, members / self._seconds))
        self._part = turns % 1
        return min(int(turns), members, int(self._most))
