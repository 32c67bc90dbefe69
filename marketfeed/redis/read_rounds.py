"""The reads of one link: when which is sent, and what becomes of its answer.

1. A read that brought as much of a stream as it may was not the last of it, so entries may be trimmed before the next;
   and so they may while nothing is read. The stream lags then: it is read by itself, and with each such read the server
   is asked whether anything was removed (see `lagging_read`). Where no more than `LATE_SECONDS` pass between two reads
   and not that much is added, nobody asks.
2. What a read of all streams brings of one that lags is left for the other reads. One that is answered later than that
   is left altogether: its entries come again, read as those of streams that lag.
3. What was read is published in slices; the next read waits for the clients, but not for long (see `delivery`).
4. A read of all streams waits for new entries, if there is nothing else to do: for `LONG_MS` where that wait can be
   ended through another link, else for `SHORT_MS`. With many streams it is not followed by another at once, for it
   costs the server time for each of them (see `read_pace`).
5. Of a server of a cluster the streams of a slot are read by one command (see `stream_reads`). Where that makes several
   they do not wait; each read is followed by a pause instead, which is short while something comes.
6. Where one stream of a command may not be read, the server refuses all of them and does not say which it is. So each
   is checked by itself, once. Where some keys of a slot have gone to another server, its streams are read apart, and
   every `UNITE_SECONDS` it is tried to read them together. A fault that nothing can be done about ends the link.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from hiredis import ReplyError
from twisted.internet.interfaces import IDelayedCall

from marketfeed.boundaries import Clock, Sink
from marketfeed.model.entry_ids import before, write_id
from marketfeed.redis.arrivals import Arrivals
from marketfeed.redis.delivery import Delivery, Found
from marketfeed.redis.lagging_read import Fault, LaggingRead
from marketfeed.redis.read_pace import ReadPace
from marketfeed.redis.reader_link import ReaderLink
from marketfeed.redis.stream_checks import REFUSALS, StreamChecks
from marketfeed.redis.stream_entries import Extent, entry_id
from marketfeed.redis.stream_reads import ReadGroup, Reading, Reads, Volume
from marketfeed.redis.unblocker import Unblocker

__all__ = ["LATE_SECONDS", "ReadRounds"]

LATE_SECONDS = 1.0
"""Between two reads, or from one to its answer: after more, who knows what was trimmed."""
LONG_MS = 800
"""A read's wait; shorter than that."""
SHORT_MS = 250
UNITE_SECONDS = 1.0
PARTED = ("ASK ", "TRYAGAIN ")
"""What a server says of the streams of a slot, some of whose keys have gone to another one."""


class ReadRounds:
    """Reads the streams of `reads`, on one link after the other.

    `go_on`: what is called when the next read may begin that did not follow at once. `has_slots`: the server is one of
    a cluster; `rest`: see `ReadPace`.
    """

    def __init__(
        self,
        clock: Clock,
        reads: Reads,
        checks: StreamChecks,
        unblocker: Unblocker,
        arrivals: Arrivals,
        sink: Sink,
        go_on: Callable[[], None],
        *,
        has_slots: bool,
        rest: float = 0.0,
    ) -> None:
        self._clock = clock
        self._reads = reads
        self._checks = checks
        self._unblocker = unblocker
        self._arrivals = arrivals
        self.sink = sink
        self._go_on = go_on
        self._has_slots = has_slots
        self._link: ReaderLink | None = None
        self._volume = Volume()
        self._delivery = Delivery(clock, reads, self)
        self.publish = self._delivery.publish
        self._pace = ReadPace(rest)
        self._rest: IDelayedCall | None = None
        self._read_at = self._united_at = 0.0

    def begin(self, link: ReaderLink) -> None:
        """There is a new link, on which nothing is read yet."""
        self._link = link
        self._read_at = self._clock.seconds()

    def end(self) -> None:
        """There is no link: nothing is read, and what has not been published yet never is."""
        self._link = None
        self._delivery.stop()
        self._reads.clear()
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None

    def look(self) -> None:
        """Look whether it is time to read together what is read apart; to be called some times a second."""
        now = self._clock.seconds()
        if now - self._united_at >= UNITE_SECONDS:
            self._united_at = now
            self._reads.unite()

    def read_on(self, reading: Reading, extent: Extent) -> None:
        """Read it behind `reading.at`. `extent`: what there is of it."""
        if not self._reads:
            self._read_at = self._clock.seconds()
        self._reads.add(reading)
        self._reads.lagging.discard(reading)
        if extent.last > entry_id(reading.at):
            self._reads.lagging.add(reading)

    # What is asked, if it is time for that, and what is answered.

    def read_lagging(self, link: ReaderLink) -> bool:
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
            elif not is_whole:  # something is to be said, before anything more is read
                self._reads.drop(reading)
                self._checks.add(reading)
            if entries and not is_whole:
                at = write_id(before(entry_id(entries[0][0])))
                self._reads.move(reading, at.encode(), is_entry=False)
                reading.told = at
                reading.begin(None, self._read_at)
                self.sink.confirmed(reading.stream, after=at)
        return self._deliver(found)

    def read(self, link: ReaderLink) -> bool:
        if not self._reads or self._rest is not None:
            return False
        now = self._clock.seconds()
        if now - self._read_at > LATE_SECONDS:
            self._all_lag()
            return self.read_lagging(link)
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
            self._checks.is_narrowing = False
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

    def _rested(self) -> None:
        self._rest = None
        self._go_on()

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
            if fault.startswith(REFUSALS) and not self._checks.is_narrowing:
                narrowed += readings
            elif len(readings) > 1 and fault.startswith(PARTED) and self._has_slots:
                self._reads.part(readings[0].slot)
            elif not self._checks.misplace(readings, fault):
                self.fail(fault)
                return False
        if narrowed:
            self._checks.narrow(narrowed)
            for reading in narrowed:
                self._reads.drop(reading)
        self._checks.tell_doubts()
        return True

    def _deliver(self, found: Found) -> bool:
        """Whether there is something: the exchange goes on until it is published."""
        if found:
            self._delivery.begin(found)
        return bool(found)

    # What comes of the delivery.

    def delivered(self, entries: int, size: int) -> None:
        self._volume.took(entries, size)
        if self._link is not None:
            self._link.end()

    def has_published(self, reading: Reading, entries: list[Any]) -> None:
        if self._reads.get(reading.key) is reading:  # a publication may be the last that somebody wanted
            is_looked_for = reading.ahead is not None or not reading.is_at_entry
            self._reads.move(reading, entries[-1][0])
            if is_looked_for:
                self._checks.has_read(reading, entries)
            self._arrivals.moved(reading)

    def fail(self, fault: str) -> None:
        if self._link is not None:
            self._link.fail(fault)
