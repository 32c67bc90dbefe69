"""Many things that are looked at in turn, a slice of them at a time, so that no look costs much.

1. Each is looked at once in every round; a round is as many slices as it takes.
2. What is added waits for its turn behind the others; what is removed is not looked at any more.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Generic, TypeVar

__all__ = ["Rotation"]

T = TypeVar("T")


class Rotation(Generic[T]):
    """Hashable things in the order in which they have their turn."""

    def __init__(self) -> None:
        self._things: dict[T, None] = {}

    def __len__(self) -> int:
        return len(self._things)

    def __contains__(self, thing: T) -> bool:
        return thing in self._things

    def __iter__(self) -> Iterator[T]:
        return iter(self._things)

    def add(self, thing: T) -> None:
        """Let it have a turn; one that is here already keeps its place."""
        self._things[thing] = None

    def discard(self, thing: T) -> None:
        """Forget it; nothing happens if it is not here."""
        self._things.pop(thing, None)

    def clear(self) -> None:
        self._things.clear()

    def next(self, most: int) -> list[T]:
        """Those whose turn it is, at most so many; they go to the end."""
        turn = list(islice(self._things, most))
        for thing in turn:
            del self._things[thing]
        self._things.update(dict.fromkeys(turn))
        return turn
