"""Streams of which more is there than one read brings: they are read by themselves, and watched over.

1. A stream lags when a read brought as much of it as it may, when there were entries behind its position as it was
   checked, and when nobody knows how long ago it was last read.
2. Those that lag are read some at a time, without waiting, with a large COUNT: a hot stream among many is not held to
   the few entries that a read of all of them may bring of each.
3. With such a read the server is asked whether all behind the position it began at is still there: trimming begins at
   the front, so the entry at the position is the first to go. Where there is none, `stream_entries` says it; where it
   has gone, that is asked the next time, and what was read is left until then.
4. A stream leaves when a read of it was not full.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hiredis import ReplyError, pack_command

from marketfeed.model.entry_ids import parse_id
from marketfeed.redis.rotation import Rotation
from marketfeed.redis.stream_entries import ABSENT, read_extent
from marketfeed.redis.stream_reads import Reading

__all__ = ["LaggingRead", "LaggingStreams", "is_absent"]

_GROUP = 500
"""Streams that are read at a time."""


def is_absent(answer: Any) -> bool:
    """Whether an answer says that there is no such stream."""
    return isinstance(answer, ReplyError) and str(answer).startswith("ERR no such key")


class LaggingStreams(Rotation[Reading]):
    """All that lag; each has its turn."""

    def read(self, room: int) -> LaggingRead:
        """The next read, of at most `room` entries. There is at least one stream that lags."""
        readings = self.next(max(1, min(_GROUP, room)))
        return LaggingRead(readings, max(1, room // len(readings)))


class LaggingRead:
    """One read of streams that lag. `most`: the entries that it may bring of each."""

    def __init__(self, readings: list[Reading], most: int) -> None:
        self.readings = readings
        self.most = most
        self._begun_at = [(reading.at, reading.is_at_entry) for reading in readings]

    def commands(self) -> list[bytes]:
        keys, ids = [reading.key for reading in self.readings], [at for at, _ in self._begun_at]
        commands = [pack_command(("XREAD", "COUNT", self.most, "STREAMS", *keys, *ids))]
        for key, (at, is_at_entry) in zip(keys, self._begun_at, strict=True):
            commands.append(pack_command(("XREVRANGE", key, at, "-", "COUNT", 1)))
            if not is_at_entry:
                commands.append(pack_command(("XINFO", "STREAM", key)))
        return commands

    def judged(self, answers: list[Any]) -> Iterator[tuple[Reading, list[Any], bool]]:
        """Readings with their new entries, and whether nothing that was added behind their positions is missing.

        Of those that are not given nothing is known yet. `answers`: to all commands, of which none has failed but for
        absent streams.
        """
        found = dict(answers[0] or ())
        rest = iter(answers[1:])
        for reading, (at, is_at_entry) in zip(self.readings, self._begun_at, strict=True):
            newest = next(rest)
            is_there = bool(newest) and newest[0][0] == at
            is_whole = True
            if is_at_entry and not is_there:
                reading.is_at_entry = False
                continue
            if not is_at_entry:
                answer = next(rest)
                extent = ABSENT if is_absent(answer) else read_extent(answer)
                position = parse_id(at.decode())
                is_whole = position is not None and extent.has_all_behind(position, is_entry=is_there)
            yield reading, found.get(reading.key, []), is_whole
