"""What is published waits for the publisher's links, for a while: Redis comes back link by link.

1. Publications go in order. What comes while a link is not ready waits for it, for `HOLD_SECONDS` and `MOST_BYTES` at
   most.
2. After that all are passed on, and so is what comes, until all links are ready again: a server of a cluster that is
   gone keeps no other waiting.
"""

from __future__ import annotations

from typing import Protocol

from marketfeed.boundaries import Clock

__all__ = ["HOLD_SECONDS", "MOST_BYTES", "HeldPublications", "Publisher"]

HOLD_SECONDS = 10.0
MOST_BYTES = 32 * 2**20

_Batch = list[tuple[str, bytes]]


class Publisher(Protocol):
    """What publishes, in order; what cannot be published is dropped."""

    @property
    def ready(self) -> bool:
        """What is published now arrives."""

    def publish(self, batch: _Batch) -> None:
        """(channel, payload) pairs."""


class HeldPublications:
    """Publishes by `publisher`, as soon as that is ready."""

    def __init__(self, clock: Clock, publisher: Publisher) -> None:
        self._clock = clock
        self._publisher = publisher
        self._batches: list[_Batch] = []
        self._bytes = 0
        self._not_ready_since: float | None = None

    def publish(self, batch: _Batch) -> None:
        """(channel, payload) pairs, behind whatever waits."""
        self._batches.append(batch)
        self._bytes += sum(len(payload) for _, payload in batch)
        self.look()

    def look(self) -> None:
        """Pass on what waits, if it need not wait any longer. To be called now and again."""
        now = self._clock.seconds()
        if self._publisher.ready:
            self._not_ready_since = None
        elif self._not_ready_since is None:
            self._not_ready_since = now
        if self._not_ready_since is None or now - self._not_ready_since >= HOLD_SECONDS or self._bytes > MOST_BYTES:
            self.release()

    def release(self) -> None:
        """Pass on what waits, whether it arrives or not."""
        batches = self._batches
        self.forget()
        for batch in batches:
            self._publisher.publish(batch)

    def forget(self) -> None:
        """Drop what waits."""
        self._batches, self._bytes = [], 0
