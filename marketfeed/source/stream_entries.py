"""Entries of a Redis stream: their ids, and whether all behind one of them is still there.

1. An id is `<ms>-<seq>`, two numbers of 64 bits, written without leading zeros; `0-0` lies before every entry.
2. The server removes entries in two ways. Trimming takes them from the front and leaves no note but the count; XDEL
   takes them from anywhere, and the server keeps the highest such id.
3. So all that was added behind an id is still there when it is not beyond the stream's end, nothing behind it was
   taken by XDEL, and either an entry at or before it is left, or nothing was ever removed, or it is the stream's
   last id. Where a server does not count what was added (before Redis 7), the second of these is not known.
4. An id that is between the stream's entries and none of them, though nobody deleted it, belongs to another past: the
   server has lost what it had acknowledged, and something else has been added since.
5. What cannot be shown to be all there is taken for a loss.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

__all__ = ["ABSENT", "ORIGIN", "EntryId", "Extent", "before", "parse_id", "payload_of", "read_extent", "write_id"]

EntryId = tuple[int, int]

ORIGIN: EntryId = (0, 0)
"""Behind it lies the whole of every stream."""

FIELD = b"d"
"""The field that holds the publication."""

_ID = re.compile(r"(0|[1-9][0-9]{0,19})-(0|[1-9][0-9]{0,19})", re.ASCII)
_MOST = 2**64 - 1


def parse_id(text: str) -> EntryId | None:
    """The id that a text is, in its only spelling; None: it is none."""
    found = _ID.fullmatch(text)
    if found is None:
        return None
    milliseconds, sequence = int(found[1]), int(found[2])
    return (milliseconds, sequence) if max(milliseconds, sequence) <= _MOST else None


def write_id(entry: EntryId) -> str:
    return f"{entry[0]}-{entry[1]}"


def before(entry: EntryId) -> EntryId:
    """The id next to it, towards the beginning; there is no room for another between them."""
    milliseconds, sequence = entry
    if sequence:
        return milliseconds, sequence - 1
    return (milliseconds - 1, _MOST) if milliseconds else ORIGIN


def payload_of(fields: list[bytes]) -> bytes | None:
    """The publication that an entry holds; None: it holds none."""
    if fields and fields[0] == FIELD:
        return fields[1]
    return next((fields[at + 1] for at in range(0, len(fields), 2) if fields[at] == FIELD), None)


@dataclass(frozen=True, slots=True)
class Extent:
    """What the server says about a stream. `first`: its first entry, if it has one; `last`: the highest id that it
    ever gave; `deleted`: the highest id that XDEL took; `removed`: how many entries are gone, where that is counted.
    """

    first: EntryId | None
    last: EntryId
    deleted: EntryId
    removed: int | None

    def has_all_behind(self, at: EntryId, *, is_entry: bool) -> bool:
        """Whether nothing that was added behind `at` is missing. `is_entry`: there is an entry of this id."""
        if at > self.last or self.deleted > at:
            return False
        if self.first is not None and self.first <= at:
            return is_entry or self.deleted == at
        return self.removed == 0 or self.last == at

    def go_on_behind(self, at: EntryId, newest: EntryId | None) -> EntryId:
        """Where to read on for whoever has read up to `at`. `newest`: the last entry that is not behind `at`.

        Anything else than `at` says that publications are missing.
        """
        if self.has_all_behind(at, is_entry=newest == at):
            return at
        if at > self.last:
            return self.last
        if self.deleted > at:
            return self.deleted
        if self.first is not None and self.first > at:
            return before(self.first)
        return newest if newest is not None else self.last


ABSENT = Extent(None, ORIGIN, ORIGIN, 0)
"""Of a stream that does not exist."""


def read_extent(reply: list[Any]) -> Extent:
    """The server's answer to XINFO STREAM."""
    fields = dict(zip(reply[::2], reply[1::2], strict=True))
    first = fields[b"first-entry"]
    added = fields.get(b"entries-added")
    return Extent(
        first=_id(first[0]) if first else None,
        last=_id(fields[b"last-generated-id"]),
        deleted=_id(fields.get(b"max-deleted-entry-id", b"0-0")),
        removed=None if added is None else added - fields[b"length"],
    )


def _id(data: bytes) -> EntryId:
    milliseconds, _, sequence = data.partition(b"-")
    return int(milliseconds), int(sequence)
