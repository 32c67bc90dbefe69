"""The last publications of a stream, page by page, by HISTORY (docs/protocol.md#history). Pure.

1. A generator says what to ask, is sent the answer, and returns everything at the end: so any event loop can drive it.
2. Each page ends before the first one of the page behind it; an empty one says that nothing before is kept. A page may
   be shorter than what was asked for, and says nothing by that.
3. Nothing comes twice: a server that answers what was there already is told as an error.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeAlias

import msgspec

from marketfeed_client.errors import FeedError

__all__ = ["MOST_OF_A_PAGE", "Past", "Pasts", "past"]

MOST_OF_A_PAGE = 1000


class Past(msgspec.Struct, frozen=True):
    """A past publication, as HISTORY answers it."""

    offset: str
    data: Any


Pasts: TypeAlias = Generator[dict[str, Any], Any, list[Past]]
"""The fields of the next HISTORY besides its stream → its result; at the end all of them, oldest first."""


def past(limit: int | None, before: str | None) -> Pasts:
    """The last `limit` publications, or all that are kept; `before`: those before this offset. Raises FeedError."""
    pages: list[list[Past]] = []
    known: set[str] = set()
    while limit is None or len(known) < limit:
        most = MOST_OF_A_PAGE if limit is None else min(MOST_OF_A_PAGE, limit - len(known))
        page = _read((yield {"limit": most} | ({} if before is None else {"before": before})))
        if not page:
            break
        offsets = {each.offset for each in page}
        if not known.isdisjoint(offsets):
            raise FeedError("protocol", "the server's HISTORY has no pages: expected one that knows before", final=True)
        known |= offsets
        pages.append(page)
        before = page[0].offset
    return [each for page in reversed(pages) for each in page]


def _read(answer: Any) -> list[Past]:
    try:
        return msgspec.convert(answer, list[Past])
    except msgspec.ValidationError as error:
        raise FeedError("protocol", f"the answer to HISTORY is not one of marketfeed: {error}") from error
