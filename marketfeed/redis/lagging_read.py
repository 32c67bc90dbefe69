"""A read of streams that lag, which says whether anything behind the positions it began at was removed before it.

1. With the read the server is asked whether all behind each position is still there: trimming begins at the front, so
   the entry at the position is the first to go. Where there is none, `stream_entries` says it; where it has gone, that
   is asked the next time, and what was read is left until then.
2. XDEL takes entries from anywhere. The count shows that as well as trimming, where it is known for the position
   (see `stream_checks`). Where it is not, `stream_entries` says it. What may have been deleted may lie between any of
   those that were read: they are left, for whoever checks the stream.
3. A fault concerns the streams of its command, and no others: all those of an XREAD, the one of a question.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from hiredis import ReplyError, pack_command

from marketfeed.redis.stream_entries import ABSENT, entry_id, read_extent
from marketfeed.redis.stream_reads import Reading

__all__ = ["Fault", "Lagging", "LaggingRead"]

Fault = tuple[list[Reading], str]
"""Streams, and what the server said of them."""


class Lagging(NamedTuple):
    """What was read of a stream. `is_whole`: nothing that was added behind its position before that is missing; if
    something is, it is so before all `entries`.
    """

    reading: Reading
    entries: list[Any]
    is_whole: bool


class LaggingRead:
    """One read, and the questions. `readings`: all are in groups. `most`: the entries that it may bring of each."""

    def __init__(self, readings: Sequence[Reading], most: int) -> None:
        self.most = most
        self._groups: dict[object, list[Reading]] = {}
        for reading in readings:
            self._groups.setdefault(reading.group, []).append(reading)
        self._begun_at = [
            (reading, reading.at, reading.is_at_entry, not reading.is_at_entry or reading.added is None)
            for group in self._groups.values()
            for reading in group
        ]

    def commands(self) -> list[bytes]:
        commands = []
        for group in self._groups.values():
            words = [*[reading.key for reading in group], *[reading.at for reading in group]]
            commands.append(pack_command(("XREAD", "COUNT", self.most, "STREAMS", *words)))
        for reading, at, _, is_measured in self._begun_at:
            commands.append(pack_command(("XREVRANGE", reading.key, at, "-", "COUNT", 1)))
            if is_measured:
                commands.append(pack_command(("XINFO", "STREAM", reading.key)))
        return commands

    def judge(self, answers: list[Any]) -> tuple[list[Lagging], list[Fault]]:
        """What was read, and what failed. Of streams that are in neither nothing is known yet.

        `answers`: to all commands.
        """
        found: dict[Reading, list[Any]] = {}
        faults: list[Fault] = []
        for group, answer in zip(self._groups.values(), answers, strict=False):
            if isinstance(answer, ReplyError):
                faults.append((group, str(answer)))
            else:
                entries = dict(answer or ())
                found.update({reading: entries.get(reading.key, []) for reading in group})
        lagging = []
        rest = iter(answers[len(self._groups) :])
        for reading, at, is_at_entry, is_measured in self._begun_at:
            newest = next(rest)
            extent: Any = next(rest) if is_measured else None
            if reading not in found:
                continue
            fault = _fault_of(newest, extent)
            if fault:
                faults.append(([reading], fault))
                continue
            is_there = bool(newest) and newest[0][0] == at
            is_whole = True
            if is_at_entry and not is_there:
                reading.is_at_entry = False
                continue
            if is_measured:
                position = entry_id(at)
                known = ABSENT if isinstance(extent, ReplyError) else read_extent(extent)
                is_whole = known.has_all_behind(position, is_entry=is_there)
                if known.hole(position) is not None:
                    found[reading] = []
            lagging.append(Lagging(reading, found[reading], is_whole))
        return lagging, faults


def _fault_of(*answers: Any) -> str:
    """The first error but that there is no such stream."""
    faults = [str(answer) for answer in answers if isinstance(answer, ReplyError)]
    return next((fault for fault in faults if not fault.startswith("ERR no such key")), "")
