"""The source for an engine that XADDs to Redis streams: nothing is missed, and what is missed is said.

1. On one link, one after the other: streams are checked, which fixes where each begins; those that lag are read by
   themselves; and all are read together (see `stream_checks`, `read_rounds`). Each of the three has its turn, so that
   neither many wishes nor one hot stream keep the others from being read. A stream is confirmed as it is checked,
   before any entry of it is published.
2. A stream that is new here begins behind its last entry; one that does not exist, behind `0-0`. From then on its
   position is the last entry that was published. It outlives the link.
3. On a new link a stream goes on behind its position, which `confirmed` says by the last offset that was published.
   Where what lies behind it is not all there (see `stream_entries`), it goes on elsewhere, and `confirmed` says where:
   behind the end of a stream that was set back, before the first entry of one that was trimmed.
4. A stream that may not be read, or is none, is refused by itself. It is tried again, and what is read is checked
   again, when its turn comes (see `verification`).
5. What a server of a cluster says that it does not have is held until it has it, or until it is wanted from another
   server, where its position goes with it (see `misplaced_streams`).
6. A wish is not kept waiting by a read that waits for entries: that is ended through another link (see `unblocker`).
7. A state that was read beside a stream, or in it, is given out when the stream has been read up to the last entry
   that it had after that (see `ordered_snapshots`, `arrivals`).
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Collection
from typing import Any

from hiredis import pack_command
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import LoopingCall

from marketfeed.boundaries import Archive, Clock, Sink
from marketfeed.redis.address import RedisAddress
from marketfeed.redis.arrivals import Arrivals
from marketfeed.redis.commands import RedisCommands
from marketfeed.redis.misplaced_streams import tell_lost
from marketfeed.redis.node_source import FeedLink, NodeSource
from marketfeed.redis.read_rounds import ReadRounds
from marketfeed.redis.reader_link import BLOCKED, NONE, ReaderLink
from marketfeed.redis.stream_checks import StreamChecks
from marketfeed.redis.stream_entries import Extent
from marketfeed.redis.stream_reads import Reading, Reads
from marketfeed.redis.topology import key_slot
from marketfeed.redis.unblocker import Unblocker
from marketfeed.redis.verification import LOOK_SECONDS
from marketfeed.runtime.logs import Log

__all__ = ["RedisStreams"]

_ANY_SIZE = 1 << 40
"""Bytes; of a single publication."""


class _SourceLink(FeedLink, ReaderLink):
    """A link on which streams are read, and whose server has all that its master has."""


class RedisStreams(NodeSource[_SourceLink]):
    """Redis streams as a `Source`.

    `channel_prefix`: what stands before a stream's name in its key. `doubt`: of a cluster's server; it is called with
    an error that says that the server does not have a key. A second link of its own ends waits, and is asked for the
    server's role. `rest`: see `ReadPace`.
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
        rest: float = 0.0,
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
        self._rounds = ReadRounds(
            clock,
            self._reads,
            self._checks,
            self._unblocker,
            self._arrivals,
            sink,
            self.go_on,
            has_slots=self._has_slots,
            rest=rest,
        )
        self._steps = deque([self._check, self._rounds.read_lagging, self._rounds.read])
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
        self._rounds.begin(link)
        self._looking.start(LOOK_SECONDS, now=False)
        super().link_up(link)
        who = pack_command(("CLIENT", "ID")) + pack_command(("INFO", "server"))
        link.ask(who, 2, lambda answers: self._unblocker.aim(*answers))

    def link_down(self, link: _SourceLink | None) -> None:
        if self._looking.running:
            self._looking.stop()
        self._rounds.end()
        self._checks.end()
        self._unblocker.rest()
        tell_lost(self._readings.values(), self.sink)  # since they have been away, which is longer than the link is
        super().link_down(link)
        self._arrivals.clear()

    # One exchange after the other.

    def _look(self) -> None:
        self._checks.look()
        self._rounds.look()
        self.go_on()

    def go_on(self) -> None:
        link = self.link
        if link is None:
            return
        if link.exchange is not NONE:
            if self._is_in_the_way(link):
                self._unblocker.unblock(lambda: self._is_in_the_way(link))
        elif not (self._checks.is_narrowing and self._check(link)):
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
        commands, count, done = self._checks.next()
        link.ask(commands, count, done)
        return True

    # What comes of the checks.

    def is_wanted(self, reading: Reading) -> bool:
        return self._readings.get(reading.stream) is reading

    def is_read(self, reading: Reading) -> bool:
        return self._reads.get(reading.key) is reading

    def read_on(self, reading: Reading, extent: Extent) -> None:
        self._rounds.read_on(reading, extent)

    def hold(self, reading: Reading) -> None:
        self._reads.drop(reading)

    def deliver(self, reading: Reading, entries: list[Any]) -> None:
        self._rounds.publish(reading, entries)

    def fail(self, fault: str) -> None:
        if self.link is not None:
            self.link.fail(fault)
