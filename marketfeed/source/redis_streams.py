"""The source for an engine that XADDs to Redis streams: nothing is missed, and what is missed is said.

1. On one link, one after the other: streams are checked, which fixes where each begins, and all are read together.
   A stream is confirmed when it is checked, before any entry of it is published.
2. A stream that is new here begins behind its last entry; one that does not exist, behind `0-0`. From then on its
   position is the last entry that was read. The position outlives the link.
3. On a new link a stream goes on behind its position, which `confirmed` says by the last offset that was published.
   Where what lies behind it is not all there (see `stream_entries`), it goes on elsewhere, and `confirmed` says where:
   behind the end of a stream that was set back, before the first entry of one that was trimmed.
4. A read that brought as much of a stream as it may was not the last of it, so entries may be trimmed before the next.
   Behind that one the server is asked whether the entry before it is still there: trimming begins at the front. If
   not, `confirmed` says where it goes on. A stream that is kept shorter than one read is not watched over like this.
5. A read waits for new entries. Wishes end that wait through another link; where that is impossible, no read waits
   longer than `SHORT_MS`. With many streams a read is not followed by another at once, for it costs the server time
   for each of them.
6. A stream that may not be read, or is none, is refused by itself. It is tried again, and what is read is checked
   again, when its turn comes (see `verification`), between two reads.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import hiredis
from twisted.internet.interfaces import IDelayedCall, IStreamClientEndpoint
from twisted.internet.task import LoopingCall

from marketfeed.boundaries import Clock, Sink
from marketfeed.logs import Log
from marketfeed.model.entry_ids import EntryId, before, read_id, write_id
from marketfeed.model.ratelimit import TokenBucket
from marketfeed.redis_address import RedisAddress
from marketfeed.source.link_service import LinkService
from marketfeed.source.reader_link import ReaderLink
from marketfeed.source.redis_commands import RedisCommands
from marketfeed.source.redis_link import RedisLink
from marketfeed.source.resp import pack
from marketfeed.source.server_role import RoleLink, RoleWatch
from marketfeed.source.stream_checks import REFUSALS, StreamChecks
from marketfeed.source.stream_entries import payload_of
from marketfeed.source.stream_reads import Reading, Reads
from marketfeed.source.unblocker import Unblocker
from marketfeed.source.verification import LOOK_SECONDS

__all__ = ["RedisStreams"]

LONG_MS = 4000
"""A read's wait. Shorter than the silence after which a link's keeper asks for a sign of life."""
SHORT_MS = 250
REST_SECONDS = 2e-6
"""Between two reads, for each stream, where that makes `LEAST_REST` or more."""
LEAST_REST, MOST_REST = 0.001, 0.02


class _SourceLink(RoleLink, ReaderLink):
    """A link on which streams are read, and whose server has all that its master has."""


class RedisStreams(LinkService):
    """Redis streams as a `Source`. `nameless`: entries that were passed over, for they have no field `d`."""

    log = Log()

    def __init__(
        self,
        clock: Clock,
        endpoint: IStreamClientEndpoint,
        address: RedisAddress,
        sink: Sink,
        channel_prefix: str = "",
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(clock, endpoint, address, "redis")
        self._prefix = channel_prefix.encode()
        self._now = now
        commands = RedisCommands(clock, endpoint, address, "redis, to unblock")
        self.add_child(commands)
        self._unblocker = Unblocker(commands)
        self._role = RoleWatch(clock, commands, now)
        self._link: ReaderLink | None = None
        self._wanted: dict[str, Reading] = {}
        self._checks = StreamChecks(clock, self)
        self._looking = LoopingCall(self._look)
        self._looking.clock = clock
        self._reads = Reads()
        self._lagging: dict[Reading, None] = {}
        self._is_reading = False
        self._is_narrowing = False
        self._rest: IDelayedCall | None = None
        self._nameless_lines = TokenBucket(1, 5, clock.seconds())
        self.nameless = 0
        self.sink = sink

    # What the hub asks for.

    def want(self, stream: str) -> None:
        reading = self._wanted[stream] = Reading(stream, self._prefix + stream.encode())
        self._checks.add(reading)
        self._go_on()

    def unwant(self, stream: str) -> None:
        reading = self._wanted.pop(stream, None)
        if reading is not None:
            self._checks.drop(reading)
            self._reads.drop(reading)
            self._lagging.pop(reading, None)

    # What the link says.

    def make_link(self) -> RedisLink:
        return _SourceLink(self._clock, self, self._now)

    def link_up(self, link: RedisLink) -> None:
        assert isinstance(link, _SourceLink)
        self._link = link
        self._role.begin(link)
        self._checks.begin(self._wanted.values())
        self._is_narrowing = False
        self._looking.start(LOOK_SECONDS, now=False)
        self.sink.reached()
        link.exchange(pack("CLIENT", "ID"), 1, self._identified)

    def link_down(self, link: RedisLink | None) -> None:
        self._link = None
        self._role.end()
        self._is_reading = False
        self._reads.clear()
        self._lagging.clear()
        if self._looking.running:
            self._looking.stop()
        self._unblocker.aim(None)
        self._end_rest()
        if self.running:
            self.sink.lost(None if link is None else _good_at(link, self._role))

    def idle(self) -> None:
        self._go_on()

    def _identified(self, answers: list[Any]) -> None:
        self._unblocker.aim(answers[0] if isinstance(answers[0], int) else None)

    # One exchange after the other.

    def _look(self) -> None:
        self._checks.look()
        self._go_on()

    def _go_on(self) -> None:
        link = self._link
        if link is None:
            return
        if link.is_busy:
            if self._is_reading and self._checks.are_urgent:
                self._unblocker.unblock(lambda: self._is_reading and self._checks.are_urgent)
        elif self._checks:
            self._check(link)
        elif self._reads and self._rest is None:
            self._read(link)

    def _check(self, link: ReaderLink) -> None:
        commands, count, done = self._checks.next(self._is_narrowing)
        link.exchange(commands, count, done)

    # What comes of the checks.

    def is_wanted(self, reading: Reading) -> bool:
        return self._wanted.get(reading.stream) is reading

    def is_read(self, reading: Reading) -> bool:
        return self._reads.get(reading.key) is reading

    def read_on(self, reading: Reading) -> None:
        self._lagging.pop(reading, None)
        self._reads.add(reading)
        self.sink.confirmed(reading.stream, after=reading.told)

    def hold(self, reading: Reading) -> None:
        self._lagging.pop(reading, None)
        self._reads.drop(reading)

    def _read(self, link: ReaderLink) -> None:
        self._unblocker.try_out()
        lagging = list(self._lagging)
        commands = [self._reads.command(LONG_MS if self._unblocker.ready else SHORT_MS)]
        commands += [pack("XREVRANGE", reading.key, reading.at, "-", "COUNT", "1") for reading in lagging]
        self._is_reading = True
        link.exchange(b"".join(commands), len(commands), lambda answers: self._have_read(lagging, answers))

    def _have_read(self, lagging: list[Reading], answers: list[Any]) -> None:
        self._is_reading = False
        fault = next((str(answer) for answer in answers if isinstance(answer, hiredis.ReplyError)), "")
        if fault:
            self._read_refused(fault)
            return
        self._is_narrowing = False
        found = answers[0] or ()
        if lagging:
            self._look_for_trimmed(dict(zip(lagging, answers[1:], strict=True)), found)
        for key, entries in found:
            reading = self._reads.get(key)
            if reading is not None:
                self.deliver(reading, entries)
        if found:
            self.sink.flush()
            self._begin_rest()

    def _read_refused(self, fault: str) -> None:
        """Each stream is read by itself, once, to find the one that is to blame."""
        if self._is_narrowing or not fault.startswith(REFUSALS):
            self.fail(fault)
            return
        self._is_narrowing = True
        self._checks.add_first(self._reads)
        self._reads.clear()
        self._lagging.clear()

    def _look_for_trimmed(self, lagging: dict[Reading, Any], found: Any) -> None:
        first = {key: entries[0][0] for key, entries in found}
        for reading, newest in lagging.items():
            if self._reads.get(reading.key) is not reading:
                continue
            is_there = bool(newest) and newest[0][0] == reading.at
            if is_there or reading.key in first:
                del self._lagging[reading]
            if not is_there and reading.key in first:
                reading.told = write_id(before(_entry(first[reading.key])))
                self.sink.confirmed(reading.stream, after=reading.told)

    def deliver(self, reading: Reading, entries: list[Any]) -> None:
        publish, stream = self.sink.publish, reading.stream
        for entry, fields in entries:
            payload = fields[1] if fields[0] == b"d" else payload_of(fields)
            if payload is None:
                self._nameless(stream, entry)
            else:
                reading.told = entry.decode()
                publish(stream, payload, reading.told)
        if self._reads.get(reading.key) is reading:  # a publication may be the last that somebody wanted
            self._reads.move(reading, entries[-1][0])
            if len(entries) >= self._reads.most:
                self._lagging[reading] = None

    def _nameless(self, stream: str, entry: bytes) -> None:
        self.nameless += 1
        if self._nameless_lines.take(self._clock.seconds()):
            self.log.warn("{stream}: the entry {entry} has no field d", stream=stream, entry=entry.decode())

    def _begin_rest(self) -> None:
        seconds = len(self._reads) * REST_SECONDS
        if seconds >= LEAST_REST:
            self._rest = self._clock.callLater(min(seconds, MOST_REST), self._rested)

    def _rested(self) -> None:
        self._rest = None
        self._go_on()

    def _end_rest(self) -> None:
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None

    def fail(self, fault: str) -> None:
        if self._link is not None:
            self._link.fail(fault)


def _good_at(link: RedisLink, role: RoleWatch) -> int:
    assert isinstance(link, ReaderLink)
    return int(min(link.good_at, role.good_at) * 1000)


def _entry(data: bytes) -> EntryId:
    return read_id(data.decode())
