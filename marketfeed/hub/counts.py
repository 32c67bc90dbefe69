"""What is counted on the way from a publication to its clients, for `/metrics` (docs/operations/health.md#metrics).

Plain numbers that only grow, written where things happen: nothing here is called, looked up or locked for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Protocol

from marketfeed.runtime.histogram import CLIENTS, Histogram

__all__ = ["FAILED", "HubCounts", "KindCounts", "Traffic", "event_seconds"]

FAILED = "internal-error"
"""Why a publication was dropped that was good, and raised; besides those of `DropReason`."""
_LOOKED_AT = 256  # bytes of a publication in which its time is looked for
_TIME = b'"E":'
_DIGITS = 13  # of a time in ms, from 2001 to 2286


class KindCounts:
    """Of the publications of one kind. `last`: when one came last, in s since 1970; 0: never."""

    __slots__ = ("conflated", "delivered", "dropped", "last", "published")

    def __init__(self) -> None:
        self.published = 0
        self.delivered = 0  # publications times the clients that they are for, also where some are left out for one
        self.conflated = 0  # of these, those that were left out, or went as a part of another
        self.dropped: Counter[str] = Counter()  # by reason
        self.last = 0.0


class Waiting(Protocol):
    """One for whom something waits."""

    @property
    def waiting_bytes(self) -> int: ...


class Traffic:
    """Of all that goes to clients and comes from them, in bytes.

    `sent`: what their sockets took, or their transports; `reached`: how many the last flush had something for;
    `backlogged`: for whom something waits.
    """

    __slots__ = ("backlogged", "reached", "received", "sent")

    def __init__(self) -> None:
        self.sent = 0
        self.reached = 0
        self.received = 0
        self.backlogged: set[Waiting] = set()


class HubCounts:
    """All of them. `kinds`: the names of the kinds that there are."""

    def __init__(self, kinds: Iterable[str]) -> None:
        self.kinds = {name: KindCounts() for name in kinds}
        self.traffic = Traffic()
        self.gaps: Counter[str] = Counter()  # by reason: one for each stream that has one
        self.resumes: Counter[bool] = Counter()  # by whether all was there
        self.engine_lag = Histogram()
        self.fanout_lag = Histogram()
        self.flush_clients = Histogram(CLIENTS)
        self.clock_skew = 0  # publications from the future, as our clock has it

    def of(self, kind: str) -> KindCounts:
        """Those of a kind; of one that is not declared they are those of `other`."""
        return self.kinds.get(kind) or self.kinds.setdefault("other", KindCounts())

    @property
    def published(self) -> int:
        """Publications of all kinds."""
        return sum(each.published for each in self.kinds.values())

    @property
    def delivered(self) -> int:
        """The same, times the clients that each is for."""
        return sum(each.delivered for each in self.kinds.values())


def event_seconds(data: bytes) -> float | None:
    """The time `E` that a publication says, in s since 1970; None where it says none at its beginning."""
    at = data.find(_TIME, 0, _LOOKED_AT) + len(_TIME)
    digits = data[at : at + _DIGITS]
    if (
        at < len(_TIME)
        or not digits.isdigit()
        or len(digits) < _DIGITS
        or data[at + _DIGITS : at + _DIGITS + 1].isdigit()
    ):
        return None
    return int(digits) / 1000
