"""The bounds of all past publications of a process, and which of them go first (docs/protocol.md#resume).

1. A stream keeps its newest publications: so many, and so old. All streams together keep so many bytes; beyond that
   the oldest publication goes first, whichever stream has it.
2. What is kept costs nothing until it is used or dropped: a stream in which nothing happens is not looked at.
"""

from __future__ import annotations

import heapq
import re
import secrets
from collections.abc import Iterator
from itertools import count
from typing import Final, Protocol

__all__ = ["US", "WHOLE", "Histories", "Kept", "is_epoch"]

US: Final = 1e6
"""µs in a second."""
WHOLE: Final = 2.0**52
"""What has this added to it and taken off again is the nearest whole number, for doubles beyond it have no fractions.
It costs less than dividing.
"""

_EPOCH = re.compile(r"[0-9a-f]{8}\.[0-9a-f]{1,16}")
_FEW = 64  # closed ones that are not worth looking for
_EXPIRED_TOGETHER = 50  # histories
_EXPIRED_IN_US = 4  # one of them, about


class Kept(Protocol):
    """What one stream keeps. `is_entered`: its bounds know of it; `is_closed`: it keeps nothing any more."""

    is_entered: bool
    is_closed: bool

    @property
    def oldest(self) -> float | None:
        """When the oldest publication came, in µs; None: there is none."""

    def drop(self, count: int) -> None:
        """Drop the `count` oldest publications."""

    def drop_until(self, time: float) -> None:
        """Drop what came before this time, as the oldest publication did."""


def is_epoch(text: str) -> bool:
    """Whether this is what `Histories.new_epoch` makes, in this process or another one."""
    return _EPOCH.fullmatch(text) is not None


class Histories:
    """The bounds of all histories of a process, and what they take.

    `limit`: publications of one stream; `seconds`: their age; `max_bytes`: of all streams together. With 0
    publications or bytes nothing is kept, and offsets go on.
    """

    __slots__ = ("_closed", "_numbers", "_oldest", "_order", "epochs", "limit", "max_bytes", "seconds", "size")

    def __init__(self, limit: int, seconds: float, max_bytes: int) -> None:
        self.limit = limit if max_bytes > 0 else 0
        self.seconds = seconds
        self.max_bytes = max_bytes
        self.size = 0
        # One entry for each history that keeps something, and for some that do not any more. Its time is the one of
        # the history's oldest publication, or was it once: it is put right when it comes to the top.
        self._oldest: list[tuple[float, int, Kept]] = []
        self._order = 0
        self._closed = 0  # entries of histories that are closed
        self.epochs = secrets.token_hex(4)
        """What all epochs of this process begin with, up to a full stop."""
        self._numbers = count()

    def new_epoch(self) -> str:
        """An epoch that there has never been, in no other process either."""
        return f"{self.epochs}.{next(self._numbers):x}"

    def expiring(self, now: float) -> Iterator[int]:
        """Drop what is older than it may be, of a few histories at a time. `now`: s of the clock that `add` is told.

        Yields what the next of them take, in µs, about.
        """
        until = (now - self.seconds) * US
        while self._with_older(until) is not None:
            yield _EXPIRED_TOGETHER * _EXPIRED_IN_US
            for _ in range(_EXPIRED_TOGETHER):
                history = self._with_older(until)
                if history is None:
                    break
                history.drop_until(until)

    def _with_older(self, until: float) -> Kept | None:
        """The history that keeps the oldest publication of all, if that came before this time."""
        history = self._with_oldest()
        oldest = None if history is None else history.oldest
        return history if oldest is not None and oldest < until else None

    def enter(self, history: Kept, time: float) -> None:
        """This history has begun to keep something."""
        self._order += 1  # no two entries are equal, so that histories are never compared
        heapq.heappush(self._oldest, (time, self._order, history))

    def leave(self) -> None:
        """A history that has an entry is closed. Entries of closed ones are never more than the others, or few."""
        self._closed += 1
        if self._closed > _FEW and 2 * self._closed > len(self._oldest):
            self._oldest = [entry for entry in self._oldest if not entry[2].is_closed]
            heapq.heapify(self._oldest)
            self._closed = 0

    def trim(self) -> None:
        """Drop the oldest publications until the rest is no more than all may have."""
        while self.size > self.max_bytes and (history := self._with_oldest()) is not None:
            history.drop(1)

    def _with_oldest(self) -> Kept | None:
        """The history that keeps the oldest publication of all."""
        oldest = self._oldest
        while oldest:
            time, order, history = oldest[0]
            actual = history.oldest
            if actual is None:
                heapq.heappop(oldest)
                history.is_entered = False
                self._closed -= history.is_closed
            elif actual == time:
                return history
            else:
                heapq.heapreplace(oldest, (actual, order, history))
        return None
