"""States in their place among the publications: behind all that may be in them.

A state is read on another link than the publications, so it may be ahead of what that one has brought. Given out then,
a client would begin with it and get afterwards, once more, what is older. So what had been published by the time that
the state was read is delivered first. Nobody knows what to wait for but the source, and a stream that is quiet has no
next publication that would tell.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from marketfeed.boundaries import Snapshots

__all__ = ["OrderedSnapshots"]


class OrderedSnapshots:
    """The `Snapshots` of a source.

    `catch_up`: waits until all that has been published on a stream by now was delivered; False: that is not to be
    known any more. Its Deferred never fails.
    """

    def __init__(self, snapshots: Snapshots, catch_up: Callable[[str], Deferred[bool]]) -> None:
        self._snapshots = snapshots
        self._catch_up = catch_up

    def read(self, stream: str) -> Deferred[bytes | None]:
        return Deferred.fromCoroutine(self._read(stream))

    async def _read(self, stream: str) -> bytes | None:
        state = await self._snapshots.read(stream)
        return state if state is not None and await self._catch_up(stream) else None
