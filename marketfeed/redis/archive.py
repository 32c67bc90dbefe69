"""The past of Redis streams, read when somebody asks for it.

1. What is said to be all there is shown to be: before the first range is read, the server is asked whether it has come
   as far as the end that is asked for, and after the last one whether anything behind the offset is gone by then (see
   `stream_entries`). What cannot be shown is None. What two servers say, one before and one after a failover, shows
   nothing together: where another has the stream at the end than did at the beginning, all is read again, but not for
   ever.
2. An offset is an entry's id. Whatever else a client sends as one is None, and so is every answer that is an error.
3. A portion is read in ranges of a number of entries, the next one as long as the bytes of those before it suggest,
   so that few bytes are read in vain. An entry without a publication is passed over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from marketfeed.boundaries import Entry
from marketfeed.model.entry_ids import parse_id, read_id
from marketfeed.redis.commands import CommandFault, CommandRefused, KeyedCommands
from marketfeed.redis.stream_entries import ABSENT, Extent, payload_of, read_extent

__all__ = ["RedisArchive"]

FIRST_RANGE, LONGEST_RANGE = 32, 1000
_MOST_TIMES = 3
_LAST_TIME = 2**63
"""Later than anything, and no later than an entry's id can say."""


class RedisArchive:
    """Redis streams as an `Archive`. `commands`: through which it is asked."""

    def __init__(self, commands: KeyedCommands, channel_prefix: str = "") -> None:
        self._commands = commands
        self._prefix = channel_prefix.encode()

    def since(self, stream: str, after: str, until: str, max_bytes: int) -> Deferred[list[Entry] | None]:
        return Deferred.fromCoroutine(self._since(self._prefix + stream.encode(), after, until, max_bytes))

    def newest(self, stream: str, limit: int, max_bytes: int, until: str | None = None) -> Deferred[list[Entry] | None]:
        return Deferred.fromCoroutine(self._newest(self._prefix + stream.encode(), limit, max_bytes, until or "+"))

    def first_from(self, stream: str, time: int, limit: int, max_bytes: int) -> Deferred[list[Entry] | None]:
        return Deferred.fromCoroutine(self._first_from(self._prefix + stream.encode(), time, limit, max_bytes))

    def last_until(self, stream: str, time: int, limit: int, max_bytes: int) -> Deferred[list[Entry] | None]:
        last = str(min(time, _LAST_TIME))
        return Deferred.fromCoroutine(self._newest(self._prefix + stream.encode(), limit, max_bytes, last))

    def time_of(self, offset: str) -> int:
        return read_id(offset)[0]

    async def _since(self, key: bytes, after: str, until: str, max_bytes: int) -> list[Entry] | None:
        at, end = parse_id(after), parse_id(until)
        if at is None or end is None:
            return None
        if at == end:
            return []
        try:
            for _ in range(_MOST_TIMES):
                place = self._commands.place_of(key)
                found = await self._since_at_once(key, after, until, max_bytes)
                if self._commands.place_of(key) == place:
                    return found
        except CommandFault:
            pass
        return None

    async def _since_at_once(self, key: bytes, after: str, until: str, max_bytes: int) -> list[Entry] | None:
        portion = _Portion(max_bytes, max(1, max_bytes))
        at, end = read_id(after), read_id(until)
        has_come_so_far = end <= (await self._extent(key)).last
        await self._read(key, portion, lambda last, n: ("XRANGE", key, f"({last or after}", until, "COUNT", n))
        newest = await self._commands.ask_for(key, "XREVRANGE", key, after, "-", "COUNT", "1")
        extent = await self._extent(key)
        is_entry = bool(newest) and newest[0][0] == after.encode()
        is_whole = has_come_so_far and end <= extent.last and extent.has_all_behind(at, is_entry=is_entry)
        return portion.at_least_one() if is_whole else None

    async def _first_from(self, key: bytes, time: int, limit: int, max_bytes: int) -> list[Entry] | None:
        portion, first = _Portion(max_bytes, limit), str(min(time, _LAST_TIME))
        try:
            await self._read(
                key, portion, lambda last, n: ("XRANGE", key, f"({last}" if last else first, "+", "COUNT", n)
            )
        except CommandFault:
            return None
        return portion.entries

    async def _newest(self, key: bytes, limit: int, max_bytes: int, latest: str) -> list[Entry] | None:
        portion = _Portion(max_bytes, limit)
        try:
            await self._read(
                key, portion, lambda last, n: ("XREVRANGE", key, f"({last}" if last else latest, "-", "COUNT", n)
            )
        except CommandFault:
            return None
        return portion.entries[::-1]

    async def _read(
        self, key: bytes, portion: _Portion, command: Callable[[str, str], tuple[str | bytes, ...]]
    ) -> None:
        """Fill a portion. `command`: asks for entries behind an id, "" at first, and at most so many of them."""
        while count := portion.wanted():
            found = await self._commands.ask_for(key, *command(portion.last, str(count)))
            portion.take(found)
            if len(found) < count:
                return

    async def _extent(self, key: bytes) -> Extent:
        try:
            return read_extent(await self._commands.ask_for(key, "XINFO", "STREAM", key))
        except CommandRefused as fault:
            if str(fault).startswith("ERR no such key"):
                return ABSENT
            raise


class _Portion:
    """Publications until there are so many, or so many bytes of them. `last`: the last id that was seen."""

    def __init__(self, max_bytes: int, limit: int) -> None:
        self.entries: list[Entry] = []
        self.last = ""
        self._too_large: Entry | None = None
        self._room = max_bytes
        self._limit = limit
        self._bytes = self._seen = 0

    def wanted(self) -> int:
        """How many entries to read next; 0: this is enough."""
        missing = self._limit - len(self.entries)
        if self._too_large is not None or missing <= 0:
            return 0
        if not self._seen:
            return min(FIRST_RANGE, missing)
        average = max(1, self._bytes // self._seen)
        return min(max(1, (self._room - self._bytes) // average + 1), 8 * self._seen, LONGEST_RANGE, missing)

    def take(self, found: list[Any]) -> None:
        for entry, fields in found:
            self.last = entry.decode()
            payload = payload_of(fields)
            self._seen += 1
            if payload is None:
                continue
            if self._bytes + len(payload) > self._room:
                self._too_large = (self.last, payload)
                return
            if len(self.entries) < self._limit:
                self._bytes += len(payload)
                self.entries.append((self.last, payload))

    def at_least_one(self) -> list[Entry]:
        """The publications; the first one even if it is larger than all that was wanted."""
        if not self.entries and self._too_large is not None:
            return [self._too_large]
        return self.entries
