"""Updates of a book that come before there is one, and their order against a seed (docs/operations/data.md#state).

1. A seed is a book from beside the stream. Updates whose last id is not behind the seed's are in it already. The first
   of the others begins at most one after the seed, or the seed is too old.
2. An update without ids has its place between the updates with ids that came before and after it. It is in the seed
   only if the next one with ids is.
3. At most 1,000 updates and 1 MiB are kept. Beyond that the oldest go, and only newer seeds fit.
"""

from __future__ import annotations

from collections import deque

__all__ = ["EarlyUpdates"]

_MOST = 1000
_MOST_BYTES = 1024 * 1024


class EarlyUpdates:
    """The updates of one stream that wait for a seed, each of which continues those before it."""

    __slots__ = ("_size", "_updates")

    def __init__(self) -> None:
        self._updates: deque[tuple[int, int, bytes] | None] = deque()  # first and last id; None: one without
        self._size = 0

    def clear(self) -> None:
        """Forget all of them."""
        self._updates.clear()
        self._size = 0

    def add(self, first: int, last: int, data: bytes) -> None:
        """Keep an update with its first and last id."""
        if len(data) > _MOST_BYTES:
            self.add_unordered()
            return
        self._updates.append((first, last, data))
        self._size += len(data)
        while len(self._updates) > _MOST or self._size > _MOST_BYTES:
            if self._drop_oldest() is None:  # it is still true that there was one
                self._drop_oldest()
                self._updates.appendleft(None)

    def add_unordered(self) -> None:
        """There was an update without ids, or one that cannot be kept. Two in a row say no more than one."""
        if not self._updates or self._updates[-1] is not None:
            self._updates.append(None)

    def behind(self, last: int | None) -> list[bytes] | None:
        """The updates that are to be merged into a seed with this last id; None when they do not fit together."""
        updates = list(self._updates)
        if last is None:
            return None if updates else []
        covered = max((at for at, update in enumerate(updates, 1) if update and update[1] <= last), default=0)
        rest = [update for update in updates[covered:] if update is not None]
        if len(rest) < len(updates) - covered or (rest and rest[0][0] > last + 1):
            return None
        return [data for _, _, data in rest]

    def _drop_oldest(self) -> tuple[int, int, bytes] | None:
        update = self._updates.popleft()
        self._size -= len(update[2]) if update else 0
        return update
