"""The source for an engine that XADDs to Redis streams: nothing is missed, and what is missed is said.

1. On one link, one after the other: streams are checked, which fixes where each begins; those that lag are read by
   themselves; and all are read together. Each of the three has its turn, so that neither many wishes nor one hot
   stream keep the others from being read. A stream is confirmed as it is checked, before any entry of it is published.
2. A stream that is new here begins behind its last entry; one that does not exist, behind `0-0`. From then on its
   position is the last entry that was published. It outlives the link.
3. On a new link a stream goes on behind its position, which `confirmed` says by the last offset that was published.
   Where what lies behind it is not all there (see `stream_entries`), it goes on elsewhere, and `confirmed` says where:
   behind the end of a stream that was set back, before the first entry of one that was trimmed.
4. A read that brought as much of a stream as it may was not the last of it, so entries may be trimmed before the next;
   and so they may while nothing is read. The stream lags then: what it goes on with is watched over (see
   `stream_reads`). Where no more than `LATE_SECONDS` pass and not that much is added, nobody looks.
5. What a read of all streams brings of one that lags is left for the other reads. One that is answered later than that
   is left altogether: its entries come again, watched over.
6. What was read is published in slices; the next read waits for the clients, but not for long (see `delivery`).
7. A read waits for new entries, if there is nothing else to do. Wishes end that wait through another link; where that
   is impossible, no read waits longer than `SHORT_MS`. With many streams a read of all is not followed by another at
   once, for it costs the server time for each of them.
8. A stream that may not be read, or is none, is refused by itself. It is tried again, and what is read is checked
   again, when its turn comes (see `stream_checks`).
9. Of a server of a cluster the streams of a slot are read by one command (see `stream_reads`). Where that makes several
   they do not wait; each read is followed by a pause instead, which is short while something comes (see `read_pace`).
   What the server says that it does not have is held until it has it, or until it is wanted from another server, where
   its position goes with it (see `misplaced_streams`).
10. A state that was read beside a stream, or in it, is given out when the stream has been read up to the last entry
    that it had after that (see `ordered_snapshots`, `arrivals`).
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from hiredis import ReplyError, pack_command
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IStreamClientEndpoint
from twisted.internet.task import LoopingCall

from marketfeed.boundaries import Archive, Clock, Sink
from marketfeed.model.entry_ids import before, write_id
from marketfeed.redis.address import RedisAddress
from marketfeed.redis.arrivals import Arrivals
from marketfeed.redis.commands import RedisCommands
from marketfeed.redis.delivery import Delivery, Found
from marketfeed.redis.lagging_read import Fault, LaggingRead
from marketfeed.redis.node_source import FeedLink, NodeSource
from marketfeed.redis.read_pace import ReadPace
from marketfeed.redis.reader_link import BLOCKED, NONE, ReaderLink
from marketfeed.redis.stream_checks import LOOK_SECONDS, REFUSALS, StreamChecks, entry_id
from marketfeed.redis.stream_entries import Extent
from marketfeed.redis.stream_reads import ReadGroup, Reading, Reads, Volume
from marketfeed.redis.topology import key_slot
from marketfeed.redis.unblocker import Unblocker
from marketfeed.runtime.logs import Log

__all__ = ["RedisStreams"]

LATE_SECONDS = 1.0
"""Between two reads, or from one to its answer: after more, who knows what was trimmed."""
LONG_MS = 800
"""A read's wait; shorter than that."""
SHORT_MS = 250
UNITE_SECONDS = 1.0
"""How often it is tried to read together what is read apart."""
PARTED = ("ASK ", "TRYAGAIN ")
"""What a server says of the streams of a slot, some of whose keys have gone to another one."""
_ANY_SIZE = 1 << 40
"""Bytes; of a single publication."""


class _SourceLink(FeedLink, ReaderLink):
    """A link on which streams are read, and whose server has all that its master has."""


class RedisStreams(NodeSource[_SourceLink]):
    """Redis streams as a `Source`.

    `channel_prefix`: what stands before a stream's name in its key. `doubt`: of a cluster's server; it is called with
    an error that says that the server does not have a key. A second link of its own ends waits, and is asked for the
    server's role.
    """

    log = Log()

    def __init__(
        self,
        clock: Clock,
        endpoint: IStreamClientEndpoint,
        address: RedisAddress,
        sink: Sink,
        channel_prefix: str = "",
        now: Callable[[], float] = time.time,
        *,
        archive: Archive | None = None,
        name: str = "redis",
        certain_at: Callable[[], float] = lambda: math.inf,
        doubt: Callable[[str], None] | None = None,
    ) -> None:
        commands = RedisCommands(clock, endpoint, address, f"{name}, to unblock")
        super().__init__(clock, endpoint, address, sink, commands, now, name, certain_at)
        self.add_child(commands)
        self._prefix = channel_prefix.encode()
        self._unblocker = Unblocker(clock, commands)
        self._readings: dict[str, Reading] = {}
        self._arrivals = Arrivals(clock)
        self._has_slots = doubt is not None
        self._checks = StreamChecks(clock, commands, self, doubt)
        self._looking = LoopingCall(self._look)
        self._looking.clock = clock
        self._reads = Reads()
        self._volume = Volume()
        self._delivery = Delivery(clock, self._reads, self)
        self._steps = deque([self._check, self._read_lagging, self._read])
        self._read_at = self._united_at = 0.0
        self._is_narrowing = False
        self._pace = ReadPace()
        self._rest: IDelayedCall | None = None
        self._archive = archive

    @property
    def ping_age(self) -> float | None:
        asked = None if self.link is None else self.link.awaited_since
        return None if asked is None else self._now() - asked

    # What the hub asks for.

    @property
    def wanted(self) -> Collection[str]:
        return self._readings

    def want(self, stream: str, position: Reading | None = None) -> int | None:
        reading = self._readings[stream] = position or self._reading(stream)
        self._checks.add(reading)
        self.go_on()
        return self.down_since

    def _reading(self, stream: str) -> Reading:
        key = self._prefix + stream.encode()
        return Reading(stream, key, key_slot(key) if self._has_slots else 0)

    def unwant(self, stream: str) -> Reading | None:
        reading = self._readings.pop(stream, None)
        if reading is not None:
            self._checks.drop(reading)
            self._reads.drop(reading)
            self._arrivals.forget(reading)
        return reading

    def catch_up(self, stream: str) -> Deferred[bool]:
        return Deferred.fromCoroutine(self._read_so_far(stream))

    async def _read_so_far(self, stream: str) -> bool:
        """Wait until all that is in the stream now has been published. False: that is not to be known."""
        assert self._archive is not None
        newest = await self._archive.newest(stream, 1, _ANY_SIZE)
        reading = self._readings.get(stream)
        if newest is None or reading is None or self.link is None:
            return False
        return not newest or await self._arrivals.wait_for(reading, newest[0][0])

    # What the link says.

    def make_link(self) -> _SourceLink:
        return _SourceLink(self._clock, self, self._now)

    def link_up(self, link: _SourceLink) -> None:
        self._checks.begin(self._readings.values())
        self._is_narrowing = False
        self._looking.start(LOOK_SECONDS, now=False)
        self._read_at = self._clock.seconds()
        super().link_up(link)
        who = pack_command(("CLIENT", "ID")) + pack_command(("INFO", "server"))
        link.ask(who, 2, lambda answers: self._unblocker.aim(*answers))

    def link_down(self, link: _SourceLink | None) -> None:
        if self._looking.running:
            self._looking.stop()
        self._delivery.stop()
        self._reads.clear()
        self._checks.end()
        self._unblocker.rest()
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        self._tell_away()
        super().link_down(link)
        self._arrivals.clear()

    def _tell_away(self) -> None:
        """What had been away for longer than the link is lost since then."""
        away: dict[int, list[str]] = {}
        for reading in self._readings.values():
            if reading.away is not None:
                away.setdefault(reading.away.since, []).append(reading.stream)
        for since, streams in away.items():
            self.sink.lost(since, streams, "")

    # One exchange after the other.

    def _look(self) -> None:
        self._checks.look()
        now = self._clock.seconds()
        if now - self._united_at >= UNITE_SECONDS:
            self._united_at = now
            self._reads.unite()
        self.go_on()

    def go_on(self) -> None:
        link = self.link
        if link is None:
            return
        if link.exchange is not NONE:
            if self._is_in_the_way(link):
                self._unblocker.unblock(lambda: self._is_in_the_way(link))
        elif not (self._is_narrowing and self._check(link)):
            for _ in range(len(self._steps)):
                self._steps.rotate(-1)
                if self._steps[-1](link):
                    return

    def _is_in_the_way(self, link: ReaderLink) -> bool:
        """Whether a read waits, and something should not."""
        return link.exchange is BLOCKED and self._checks.are_urgent

    def _check(self, link: ReaderLink) -> bool:
        if not self._checks:
            return False
        commands, count, done = self._checks.next(self._is_narrowing)
        link.ask(commands, count, done)
        return True

    # What comes of the checks.

    def is_wanted(self, reading: Reading) -> bool:
        return self._readings.get(reading.stream) is reading

    def is_read(self, reading: Reading) -> bool:
        return self._reads.get(reading.key) is reading

    def read_on(self, reading: Reading, extent: Extent) -> None:
        if not self._reads:
            self._read_at = self._clock.seconds()
        self._reads.add(reading)
        self._reads.lagging.discard(reading)
        if extent.last > entry_id(reading.at):
            self._reads.lagging.add(reading)

    def hold(self, reading: Reading) -> None:
        self._reads.drop(reading)

    def deliver(self, reading: Reading, entries: list[Any]) -> None:
        self._delivery.publish(reading, entries)

    # What is read.

    def _read_lagging(self, link: ReaderLink) -> bool:
        if not self._reads.lagging:
            return False
        read = LaggingRead(*self._reads.next_lagging(self._volume.entries))
        commands = read.commands()
        link.ask(b"".join(commands), len(commands), lambda answers: self._have_read_lagging(read, answers))
        return True

    def _have_read_lagging(self, read: LaggingRead, answers: list[Any]) -> bool:
        lagging, faults = read.judge(answers)
        if faults and not self._sort_out(faults):
            return False
        found: Found = []
        for reading, entries, is_whole in lagging:
            if self._reads.get(reading.key) is not reading:
                continue
            if len(entries) < read.most:
                self._reads.lagging.discard(reading)
            if entries:
                found.append((reading.key, entries))
            elif not is_whole:
                self._checks.add(reading)  # there is something to be said, and nothing to say it before
            if entries and not is_whole:
                at = write_id(before(entry_id(entries[0][0])))
                self._reads.move(reading, at.encode(), is_entry=False)
                reading.told = at
                reading.begin(None, self._read_at)
                self.sink.confirmed(reading.stream, after=at)
        return self._deliver(found)

    def _read(self, link: ReaderLink) -> bool:
        if not self._reads or self._rest is not None:
            return False
        now = self._clock.seconds()
        if now - self._read_at > LATE_SECONDS:
            self._all_lag()
            return self._read_lagging(link)
        groups = self._reads.groups
        most = self._reads.most(self._volume.entries)
        done = partial(self._have_read, now, most, groups)
        if len(groups) > 1:
            link.ask(b"".join([group.command(most, None) for group in groups]), len(groups), done)
            return True
        self._unblocker.try_out()
        block_ms = None
        if not (self._checks or self._reads.lagging):
            block_ms = LONG_MS if self._unblocker.ready else SHORT_MS
        link.ask(groups[0].command(most, block_ms), 1, done, blocks=block_ms is not None)
        return True

    def _have_read(self, asked_at: float, most: int, groups: list[ReadGroup], answers: list[Any]) -> bool:
        found: Found = []
        faults: list[Fault] = []
        reads, lagging = self._reads, self._reads.lagging
        for group, answer in zip(groups, answers, strict=True):
            if answer is None:
                continue
            if isinstance(answer, ReplyError):
                faults.append((list(group.readings.values()), str(answer)))
                continue
            for key, entries in answer:
                reading = reads.get(key)
                if reading is not None and reading not in lagging:
                    found.append((key, entries))
                    if len(entries) >= most:
                        lagging.add(reading)
        if not faults:
            self._is_narrowing = False
        elif not self._sort_out(faults):
            return False
        self._read_at = self._clock.seconds()
        if self._read_at - asked_at > LATE_SECONDS:
            self._all_lag()
            return False
        if found or len(groups) > 1:
            pause = self._pace.pause(len(groups), len(reads), has_found=bool(found))
            if pause:
                self._rest = self._clock.callLater(pause, self._rested)
        return self._deliver(found)

    def _all_lag(self) -> None:
        """Nobody knows what was trimmed since they were read."""
        self._read_at = self._clock.seconds()
        for reading in self._reads:
            self._reads.lagging.add(reading)

    def _sort_out(self, faults: list[Fault]) -> bool:
        """What is to be done with streams whose commands have failed. False: the link is given up.

        Those of which one is refused are each read by itself, once, to find which it is.
        """
        narrowed: list[Reading] = []
        for readings, fault in faults:
            if fault.startswith(REFUSALS) and not self._is_narrowing:
                narrowed += readings
            elif len(readings) > 1 and fault.startswith(PARTED) and self._has_slots:
                self._reads.part(readings[0].slot)
            elif not self._checks.misplace(readings, fault):
                self.fail(fault)
                return False
        self._is_narrowing = self._is_narrowing or bool(narrowed)
        self._checks.add_first(narrowed)
        for reading in narrowed:
            self._reads.drop(reading)
        self._checks.tell_doubts()
        return True

    def _deliver(self, found: Found) -> bool:
        """Whether there is something: the exchange goes on until it is published."""
        if found:
            self._delivery.begin(found)
        return bool(found)

    def delivered(self, entries: int, size: int) -> None:
        self._volume.took(entries, size)
        if self.link is not None:
            self.link.end()

    def has_published(self, reading: Reading, entries: list[Any]) -> None:
        if self.is_read(reading):  # a publication may be the last that somebody wanted
            is_looked_for = reading.ahead is not None or not reading.is_at_entry
            self._reads.move(reading, entries[-1][0])
            if is_looked_for:
                self._checks.has_read(reading, entries)
            self._arrivals.moved(reading)

    def _rested(self) -> None:
        self._rest = None
        self.go_on()

    def fail(self, fault: str) -> None:
        if self.link is not None:
            self.link.fail(fault)
