"""Entries of a Redis stream: what they hold, and whether all behind one of them is still there.

1. The server removes entries in two ways. Trimming takes them from the front and leaves no note but the count; XDEL
   takes them from anywhere, and the server keeps the highest such id.
2. So all that was added behind an id is still there when it is not beyond the stream's end, nothing behind it was
   taken by XDEL, and the entry of this id is left, or was the last that XDEL took; or it is the stream's last id; or
   nothing fits between it and the first entry. Behind `0-0` all is there while nothing was ever removed, which servers
   before Redis 7 do not count.
3. An id that is none of the stream's entries, though nobody deleted it and nothing was removed, belongs to another
   past: the server has lost what it had acknowledged, a part or the whole of it, and something else has been added.
4. What cannot be shown to be all there is taken for a loss.
5. What XDEL has taken may have been any of the entries up to the highest such id. Those of them that are left are
   still to be had: an id before it is no place to go on behind (`hole`) until they have been read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from marketfeed.model.entry_ids import ORIGIN, EntryId, before, read_id

__all__ = ["ABSENT", "Extent", "entry_id", "payload_of", "read_extent"]

FIELD = b"d"
"""The field that holds the publication."""


def payload_of(fields: list[bytes]) -> bytes | None:
    """The publication that an entry holds; None: it holds none."""
    if fields and fields[0] == FIELD:
        return fields[1]
    return next((fields[at + 1] for at in range(0, len(fields), 2) if fields[at] == FIELD), None)


def entry_id(data: bytes) -> EntryId:
    """An entry's id as the server writes it."""
    return read_id(data.decode())


@dataclass(frozen=True, slots=True)
class Extent:
    """What the server says about a stream. `first`: its first entry, if it has one; `last`: the highest id that it
    ever gave; `deleted`: the highest id that XDEL took; `removed`: how many entries are gone, and `added`: how many
    there ever were, where that is counted.
    """

    first: EntryId | None
    last: EntryId
    deleted: EntryId
    removed: int | None
    added: int | None = None

    def has_all_behind(self, at: EntryId, *, is_entry: bool) -> bool:
        """Whether nothing that was added behind `at` is missing. `is_entry`: there is an entry of this id."""
        if at > self.last or self.deleted > at:
            return False
        if self.first is not None and self.first <= at:
            return is_entry or self.deleted == at
        if self.last == at or (self.first is not None and before(self.first) == at):
            return True
        return at == ORIGIN and self.removed == 0

    def hole(self, at: EntryId) -> EntryId | None:
        """Up to where XDEL may have taken some of what lies behind `at`; None: it has taken nothing of it."""
        return self.deleted if self.deleted > at else None

    def go_on_behind(self, at: EntryId, newest: EntryId | None) -> EntryId:
        """Where to read on for whoever has read up to `at`. `newest`: the last entry that is not behind `at`.

        Anything else than `at` says that publications are missing. Where there is a hole, what is left of it is to be
        read first.
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


ABSENT = Extent(None, ORIGIN, ORIGIN, 0, 0)
"""Of a stream that does not exist."""


def read_extent(reply: list[Any]) -> Extent:
    """The server's answer to XINFO STREAM."""
    fields = dict(zip(reply[::2], reply[1::2], strict=True))
    first = fields[b"first-entry"]
    added = fields.get(b"entries-added")
    return Extent(
        first=read_id(first[0].decode()) if first else None,
        last=read_id(fields[b"last-generated-id"].decode()),
        deleted=read_id(fields.get(b"max-deleted-entry-id", b"0-0").decode()),
        removed=None if added is None else added - fields[b"length"],
        added=added,
    )
