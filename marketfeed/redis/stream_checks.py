"""Checks of streams: what the server is asked about each, and what follows from the answers.

1. A stream that is new begins behind its last entry. One that was read goes on behind its position; where what lies
   behind that is not all there (see `stream_entries`), elsewhere, and is confirmed there.
2. Where an entry behind the position was deleted, what is left up to that one is read and delivered first; a stream
   that was lost is confirmed behind its position before that. Nobody knows what else was deleted there, so the stream
   is then confirmed behind the deleted entry, and at once: its next check may be elsewhere, and find it set back.
3. What may not be read, or is no stream, is refused by itself; that is said once for each link.
4. A stream that was deleted and begun anew between two reads is where it should be, and lacks what nobody had read.
   The server counts what is added to it: where it has not counted what was read since its last turn, that is missed.
   What is added without a pause is never read up to its end when it is counted: it is compared as the reads come that
   far. What is missed is told behind all that may lack it, for what was read then is no beginning of anything.
5. Streams that are wanted are checked at once. Those that are read, and those that were refused, are checked again when
   their turn comes (see `verification`). These wait for the end of a read; where all is well nobody hears of it.
6. Where a command was refused for one of its streams, each of them is checked by itself, before all others.
7. Streams that do not exist yet are watched (see `absent_streams`), and checked when they do.
8. Those that a server of a cluster does not have are checked again for as long as they are wanted from it (see
   `misplaced_streams`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from hiredis import ReplyError, pack_command

from marketfeed.boundaries import Clock, Sink
from marketfeed.model.entry_ids import EntryId, write_id
from marketfeed.redis.absent_streams import AbsentStreams
from marketfeed.redis.commands import Commands
from marketfeed.redis.misplaced_streams import MisplacedStreams
from marketfeed.redis.reader_link import Reader
from marketfeed.redis.stream_entries import ABSENT, Extent, entry_id, read_extent
from marketfeed.redis.stream_reads import Count, Reading
from marketfeed.redis.topology import is_elsewhere
from marketfeed.redis.verification import Verification

__all__ = ["CHECKS", "REFUSALS", "StreamChecks", "StreamReader"]

CHECKS = 500
"""Streams that are checked in one go."""
LEFT = 100
"""Entries before one that was deleted, read in one go."""
REFUSALS = ("NOPERM", "WRONGTYPE")


class StreamReader(Reader, Protocol):
    """Who reads the streams."""

    sink: Sink

    def is_wanted(self, reading: Reading) -> bool: ...

    def is_read(self, reading: Reading) -> bool: ...

    def read_on(self, reading: Reading, extent: Extent) -> None:
        """Read it behind `reading.at`. `extent`: what there is of it."""

    def hold(self, reading: Reading) -> None:
        """Do not read it any more, until `read_on`."""

    def deliver(self, reading: Reading, entries: list[Any]) -> None:
        """Publish what is in these entries."""

    def fail(self, fault: str) -> None:
        """End the link, for the server said this."""

    @property
    def good_at(self) -> int:
        """When all had been told that there was, in ms since 1970."""


class StreamChecks:
    """The streams that are to be checked. `doubt`: see `RedisStreams`.

    `is_narrowing`: each is asked by itself whether it may be read.
    """

    def __init__(
        self, clock: Clock, commands: Commands, reader: StreamReader, doubt: Callable[[str], None] | None = None
    ) -> None:
        self._clock = clock
        self._absent = AbsentStreams(clock, commands, self._found)
        self._misplaced = None if doubt is None else MisplacedStreams(doubt)
        self._reader = reader
        self._unchecked: dict[Reading, None] = {}
        self._due: dict[Reading, None] = {}
        self._holes: dict[Reading, EntryId] = {}
        self._verification = Verification(clock.seconds())
        self._asked_at = 0.0
        self.is_narrowing = False

    def __bool__(self) -> bool:
        return bool(self._unchecked or self._due)

    @property
    def are_urgent(self) -> bool:
        """Some streams are to be checked at once."""
        return bool(self._unchecked)

    def begin(self, readings: Iterable[Reading]) -> None:
        """There is a new link: all of these are to be checked, and nothing else."""
        self._unchecked = dict.fromkeys(readings)
        self._due.clear()
        self._holes.clear()
        self._verification.begin(self._clock.seconds())
        self.is_narrowing = False

    def end(self) -> None:
        """There is no link: nothing is watched."""
        self._absent.clear()
        if self._misplaced is not None:
            self._misplaced.clear()

    def add(self, reading: Reading) -> None:
        self._unchecked[reading] = None

    def narrow(self, readings: Iterable[Reading]) -> None:
        """One of these may not be read: find out which it is."""
        self.is_narrowing = True
        self._unchecked = {**dict.fromkeys(readings), **self._unchecked}

    def drop(self, reading: Reading) -> None:
        """The stream is not wanted any more."""
        self._absent.discard(reading)
        self._verification.forget(reading)
        self._is_here(reading)
        for which in (self._unchecked, self._due, self._holes):
            which.pop(reading, None)

    def _found(self, readings: list[Reading]) -> None:
        """These, which did not exist, may do so now."""
        self._unchecked.update(dict.fromkeys(readings))
        self._reader.go_on()

    def look(self) -> None:
        """Look who has a turn; to be called every `LOOK_SECONDS`."""
        now = self._clock.seconds()
        self._due.update(dict.fromkeys(self._verification.due(now)))
        if self._misplaced is not None:
            self._unchecked.update(dict.fromkeys(self._misplaced.due(now)))
            self._misplaced.tell_lost(now, self._reader.sink)

    def next(self) -> tuple[bytes, int, Callable[[list[Any]], None]]:
        """Some commands, how many they are, and what is to be done with their replies."""
        self._asked_at = self._clock.seconds()
        readings = [*self._unchecked, *(reading for reading in self._due if reading not in self._unchecked)][:CHECKS]
        commands, counts = [], []
        for reading in readings:
            self._unchecked.pop(reading, None)
            self._due.pop(reading, None)
            asked = self._questions(reading)
            commands += asked
            counts.append(len(asked))
        return b"".join(commands), len(commands), lambda answers: self._checked(readings, counts, answers)

    def _questions(self, reading: Reading) -> list[bytes]:
        if reading in self._holes:
            return [pack_command(("XREAD", "COUNT", LEFT, "STREAMS", reading.key, reading.at))]
        asked = []
        if self.is_narrowing or reading in self._verification.faults:
            asked.append(pack_command(("XREAD", "COUNT", 1, "STREAMS", reading.key, "$")))
        if reading.at:
            asked.append(pack_command(("XREVRANGE", reading.key, reading.at, "-", "COUNT", 1)))
        return [*asked, pack_command(("XINFO", "STREAM", reading.key))]

    def _checked(self, readings: list[Reading], counts: list[int], answers: list[Any]) -> None:
        at = 0
        for reading, count in zip(readings, counts, strict=True):
            if self._reader.is_wanted(reading) and reading not in self._unchecked:
                self._judge(reading, answers[at : at + count])
            at += count
        self._reader.sink.flush()
        self.tell_doubts()

    def _judge(self, reading: Reading, answers: list[Any]) -> None:
        """What the server says about one stream."""
        fault = next((str(answer) for answer in answers if isinstance(answer, ReplyError)), "")
        hole = self._holes.pop(reading, None)
        if fault.startswith(REFUSALS):
            self._hold(reading)
            self._is_here(reading)
            reading.away = None
            if self._verification.refuse(reading, fault):
                self._reader.sink.refused(reading.stream, fault)
        elif self.misplace([reading], fault):
            return
        elif fault and not fault.startswith("ERR no such key"):
            self._reader.fail(fault)
        elif hole is not None:
            self._read_up_to(hole, reading, answers[0])
        else:
            self._place(reading, ABSENT if fault else read_extent(answers[-1]), answers[-2] if reading.at else [])

    def misplace(self, readings: Iterable[Reading], fault: str) -> bool:
        """The server says this of them. Whether that is: they are not here; `tell_doubts` is to be called then."""
        if self._misplaced is None or not is_elsewhere(fault):
            return False
        since, now = self._reader.good_at, self._clock.seconds()
        for reading in readings:
            self._hold(reading)
            self._verification.forget(reading)
            self._misplaced.add(reading, fault, since, now)
        return True

    def tell_doubts(self) -> None:
        """Let the topology know of what is misplaced. It may move streams at once."""
        if self._misplaced is not None:
            self._misplaced.tell_doubts()

    def _is_here(self, reading: Reading) -> None:
        """Or it is nobody's concern any more."""
        if self._misplaced is not None:
            self._misplaced.discard(reading)

    def _place(self, reading: Reading, extent: Extent, newest: list[Any]) -> None:
        """Where a stream begins, or goes on. `newest`: its last entry that is not behind the position, if any."""
        after, is_entry = extent.last, False
        if reading.at:
            position = entry_id(reading.at)
            hole = extent.hole(position)
            if hole is not None:
                self._approach(hole, reading)
                return
            last = entry_id(newest[0][0]) if newest else None
            after = extent.go_on_behind(position, last)
            is_entry = last == after
        at = write_id(after).encode()
        count = Count(extent.last, extent.added, self._asked_at)
        if at == reading.at and self._reader.is_read(reading):
            if extent.last == after:
                self._compare(reading, count)
            elif reading.ahead is None:
                reading.ahead = count
            return
        if at != reading.at:
            reading.at, reading.told = at, at.decode()
            reading.begin(None, self._asked_at)
        reading.is_at_entry = is_entry
        self._is_there(reading)
        if extent is ABSENT and not self._absent.add(reading):
            self._reader.hold(reading)
        else:
            self._reader.read_on(reading, extent)
            self._verification.flows(reading)
        self._reader.sink.confirmed(reading.stream, after=reading.told)
        if extent.last > after:
            reading.ahead = count
        else:
            self._compare(reading, count)

    def _is_there(self, reading: Reading) -> None:
        """The server has it, and permits it."""
        reading.away = None
        for which in (self._verification.forget, self._absent.discard, self._is_here):
            which(reading)

    def _approach(self, hole: EntryId, reading: Reading) -> None:
        """Go on where it is, for what is left before the entry `hole`, which was deleted."""
        flows = self._reader.is_read(reading)
        self._hold(reading)
        reading.begin(None, self._asked_at)
        self._holes[reading] = hole
        self._unchecked[reading] = None
        if not flows:
            self._is_there(reading)
            self._reader.sink.confirmed(reading.stream, after=reading.told)

    def _hold(self, reading: Reading) -> None:
        self._absent.discard(reading)
        self._reader.hold(reading)

    def has_read(self, reading: Reading, entries: list[Any]) -> None:
        """These were published."""
        self._absent.discard(reading)
        count = reading.ahead  # up to an entry that was not read before; it may be one of these, or not
        if count is None:
            return
        behind = sum([entry_id(entry) > count.last for entry, _ in entries])
        if behind or entry_id(entries[-1][0]) == count.last:
            self._compare(reading, count, behind)

    def _compare(self, reading: Reading, count: Count, behind: int = 0) -> None:
        whole_at = reading.misses(count, behind)
        if whole_at is not None:
            self._reader.sink.missed(reading.stream, self._clock.seconds() - whole_at)

    def _read_up_to(self, hole: EntryId, reading: Reading, found: Any) -> None:
        """Deliver what is left of a stream before the entry `hole`, which was deleted."""
        entries = found[0][1] if found else []
        left = [entry for entry in entries if entry_id(entry[0]) < hole]
        if left:
            self._reader.deliver(reading, left)
        if not self._reader.is_wanted(reading):  # a publication may be the last that somebody wanted
            return
        self._unchecked[reading] = None
        if len(left) == LEFT:
            reading.at = left[-1][0]
            self._holes[reading] = hole
        else:
            reading.told = write_id(hole)
            reading.at = reading.told.encode()
            self._reader.sink.confirmed(reading.stream, after=reading.told)  # on whichever server it is checked next
