"""Entries that are to be appended to streams: those that wait, whichever server for, and what has become of the rest.

1. All together they take `MOST_BYTES` at most; what comes on top is lost.
2. What is lost is counted, by its reason (`Loss`), and said in the log, but not for each entry.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from twisted.internet.defer import Deferred, succeed

from marketfeed.boundaries import Clock
from marketfeed.model.rate import TokenBucket
from marketfeed.runtime.logs import Log

__all__ = ["ENTRY_BYTES", "MOST_BYTES", "Entries", "Entry", "Loss"]

MOST_BYTES = 64 * 1024 * 1024
ENTRY_BYTES = 128
"""What it takes to keep an entry, beside its key and its payload."""

Entry = tuple[str, bytes, int, float]
"""Its key, its payload, its size, and when it was to be appended."""


class Loss:
    """Why entries are lost, for programs (docs/streams.md#an-engine-that-only-publishes)."""

    NO_ROOM = "no-room"
    LINK_LOST = "link-lost"
    REFUSED = "refused"
    LATE = "late"
    ENDED = "ended"

    ALL = (NO_ROOM, LINK_LOST, REFUSED, LATE, ENDED)


class Entries:
    """Counts entries: those that were `added`, and `losses` by their reason."""

    log = Log()

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._bytes = 0
        self._empty: Deferred[None] | None = None
        self._loss_lines = TokenBucket(1, 5, clock.seconds())
        self.added = 0
        self.losses: Counter[str] = Counter(dict.fromkeys(Loss.ALL, 0))

    @property
    def lost(self) -> int:
        """Entries that were lost, for whatever reason."""
        return self.losses.total()

    def new(self, key: str, payload: bytes, now: float) -> Entry | None:
        """An entry that is to be appended; None: there is no room for it, and it is lost."""
        size = len(key) + len(payload) + ENTRY_BYTES
        if self._bytes + size > MOST_BYTES:
            self._lose(1, Loss.NO_ROOM, "Redis does not take as many as there are, and no more may wait")
            return None
        self._bytes += size
        return key, payload, size, now

    def add(self, entry: Entry) -> None:
        """A server has added it."""
        self.added += 1
        self._leave(entry[2])

    def lose(self, entries: Sequence[Entry], reason: str, why: str) -> None:
        """They will not be added, or may not have been."""
        if entries:
            self._lose(len(entries), reason, why)
            self._leave(sum(entry[2] for entry in entries))

    def all_gone(self) -> Deferred[None]:
        """Fires when each is added or lost. To be called once, when there will be no new ones."""
        if not self._bytes:
            return succeed(None)
        self._empty = Deferred()
        return self._empty

    def _leave(self, size: int) -> None:
        self._bytes -= size
        if self._empty is not None and not self._bytes:
            empty, self._empty = self._empty, None
            empty.callback(None)

    def _lose(self, count: int, reason: str, why: str) -> None:
        self.losses[reason] += count
        if self._loss_lines.take(self._clock.seconds()):
            self.log.error("appender: entries are lost, {lost} until now: {why}", lost=self.lost, why=why)
