"""States that are in the streams themselves: the last snapshot and what follows it, looked up backwards.

1. A state that somebody keeps beside the stream comes first: to read one key costs less.
2. Only the newest entries are looked at, a few of them at first. A stream in which there is no state is looked at
   seldom, for its next snapshot will come by itself. One that could not be read is looked at whenever somebody asks.
3. Of a book, what has no ids is of no use: nothing would say how it stands to what comes on the stream.
4. Few streams are looked at a time, and a book is put together a portion in a turn, by number and by bytes, and written
   in a turn of its own.
"""

from __future__ import annotations

import msgspec
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.task import deferLater

from marketfeed.boundaries import Archive, Clock, Entry, Snapshots
from marketfeed.model.book_state import BookState
from marketfeed.model.kinds.kind import LossPolicy
from marketfeed.model.publications import BadPublication, PublicationReader
from marketfeed.model.streams import StreamKinds

__all__ = ["StreamSnapshots"]

_FEW, _MANY = 100, 1000
"""Entries. An engine sends snapshots more often than that, or keeps states in keys."""
_MOST_BYTES = 2**20
_AT_A_TIME = 4
_PORTION = 50
_PORTION_BYTES = 32 * 1024
_SELDOM_SECONDS = 60.0
_REMEMBERED = 10_000


class _Kind(msgspec.Struct, gc=False):
    snapshot: object = None


_kind = msgspec.json.Decoder(_Kind).decode


class _Unread(Exception):
    """The server is out of reach, or refuses: that says nothing of what is in the stream."""


class StreamSnapshots:
    """The `Snapshots` of streams. `keys`: those beside them; `archive`: the streams. `max_levels`: of a book."""

    def __init__(
        self,
        clock: Clock,
        keys: Snapshots,
        archive: Archive,
        kinds: StreamKinds,
        *,
        channel_prefix: str,
        max_payload: int,
        max_levels: int,
    ) -> None:
        self._clock = clock
        self._keys = keys
        self._archive = archive
        self._kinds = kinds
        self._prefix = channel_prefix
        self._max_payload = max_payload
        self._max_levels = max_levels
        self._turns = DeferredSemaphore(_AT_A_TIME)
        self._without: dict[str, float] = {}  # streams in which there was no state, and when to look again

    def read(self, stream: str) -> Deferred[bytes | None]:
        return Deferred.fromCoroutine(self._read(stream))

    async def _read(self, stream: str) -> bytes | None:
        found = await self._keys.read(stream)
        if found is not None or self._clock.seconds() < self._without.get(stream, 0.0):
            return found
        self._without.pop(stream, None)
        await self._turns.acquire()
        try:
            found = await self._look_into(stream)
        except _Unread:
            return None
        finally:
            self._turns.release()
        if found is None:
            if len(self._without) >= _REMEMBERED:
                del self._without[next(iter(self._without))]
            self._without[stream] = self._clock.seconds() + _SELDOM_SECONDS
        return found

    async def _look_into(self, stream: str) -> bytes | None:
        name = self._kinds.parse(stream)
        if name.kind.loss is LossPolicy.LATEST:
            newest = await self._newest(stream, 1, self._max_payload)
            return newest[0][1] if newest else None
        reader = PublicationReader(name, (stream, self._prefix + stream), self._max_payload)
        for limit in (_FEW, _MANY):
            entries = await self._newest(stream, limit, _MOST_BYTES)
            since = await self._since_snapshot(entries, reader)
            if since:
                return await self._book(since)
            if len(entries) < limit:
                return None  # that was all, or as much as may be read
        return None

    async def _newest(self, stream: str, limit: int, max_bytes: int) -> list[Entry]:
        entries = await self._archive.newest(stream, limit, max_bytes)
        if entries is None:
            raise _Unread
        return entries

    async def _since_snapshot(self, entries: list[Entry], reader: PublicationReader) -> list[bytes]:
        """What is good of the last snapshot and all behind it; nothing if there is none."""
        since: list[bytes] = []
        portion = _Portion()
        for _, payload in reversed(entries):
            if portion.is_full(payload):
                await self._pause()
            try:
                data = reader.read(payload)
            except BadPublication:
                continue
            since.append(data)
            if b'"snapshot"' in data and _kind(data).snapshot is True:
                return since[::-1]
        return []

    async def _book(self, publications: list[bytes]) -> bytes | None:
        state = BookState()
        state.max_levels = self._max_levels
        portion = _Portion()
        for data in publications:
            if portion.is_full(data):
                await self._pause()
            state.record(data)
            for _ in state.settling():
                pass  # now, for many at once would take long
        await self._pause()
        return None if state.last is None else state.snapshot()

    def _pause(self) -> Deferred[None]:
        return deferLater(self._clock, 0)


class _Portion:
    """What is done in one turn: so many publications, or so many bytes of them."""

    def __init__(self) -> None:
        self._count = self._size = 0

    def is_full(self, data: bytes) -> bool:
        """Whether `data` is too much beside what there was; then it begins the next one."""
        self._count += 1
        self._size += len(data)
        if self._count == 1 or (self._count <= _PORTION and self._size <= _PORTION_BYTES):
            return False
        self._count, self._size = 1, len(data)
        return True
