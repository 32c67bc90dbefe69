"""Ids of entries of a Redis stream, which are the offsets of what was published in it.

1. An id is `<ms>-<seq>`, two numbers of 64 bits, written without leading zeros; `0-0` lies before every entry.
2. What somebody sends is an id in this one spelling, or it is none: `parse_id`. What a server has given is one:
   `read_id`.
"""

from __future__ import annotations

import re

__all__ = ["ORIGIN", "EntryId", "before", "parse_id", "read_id", "write_id"]

EntryId = tuple[int, int]

ORIGIN: EntryId = (0, 0)
"""Behind it lies the whole of every stream."""

_ID = re.compile(r"(0|[1-9][0-9]{0,19})-(0|[1-9][0-9]{0,19})", re.ASCII)
_MOST = 2**64 - 1


def parse_id(text: str) -> EntryId | None:
    """The id that a text is, in its only spelling; None: it is none."""
    found = _ID.fullmatch(text)
    if found is None:
        return None
    milliseconds, sequence = int(found[1]), int(found[2])
    return (milliseconds, sequence) if max(milliseconds, sequence) <= _MOST else None


def read_id(text: str) -> EntryId:
    """The id that a text is sure to be."""
    milliseconds, _, sequence = text.partition("-")
    return int(milliseconds), int(sequence)


def write_id(entry: EntryId) -> str:
    return f"{entry[0]}-{entry[1]}"


def before(entry: EntryId) -> EntryId:
    """The id next to it, towards the beginning; there is no room for another between them."""
    milliseconds, sequence = entry
    if sequence:
        return milliseconds, sequence - 1
    return (milliseconds - 1, _MOST) if milliseconds else ORIGIN
