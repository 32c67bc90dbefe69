"""What was, for those who ask once and do not watch."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError

from marketfeed.hub.queries import KEPT_SECONDS
from tests.fakes import FakeArchive
from tests.rooms import KINDS, LINGER, Room, trade


@pytest.mark.parametrize("strict", [True, False])
def test_what_is_bad_in_an_archive_is_given_as_it_would_have_been_published(strict: bool) -> None:
    """Left out, or without `strict` given all the same; what is no object is never given."""
    archive = FakeArchive()
    room = Room(archive, strict=strict)
    bad = trade(2).replace(b"true", b"1")
    for number, payload in enumerate((trade(1), bad, b"bad", trade(3)), 1):
        archive.add("trade@A", f"{number}-0", payload)
    found: list[object] = []
    room.hub.history(KINDS.parse("trade@A"), 10, 1 << 20).addCallback(found.extend)
    good = [("1-0", trade(1)), ("4-0", trade(3))]
    assert found == (good if strict else [good[0], ("2-0", bad), good[1]])


def test_who_waits_for_a_book_and_goes_is_waited_for_no_more(room: Room) -> None:
    """Nothing is looked at any more, until the stream, which is kept for a while, goes."""
    book = room.hub.book(KINDS.parse("depth@A"))
    book.addErrback(lambda failure: failure.trap(CancelledError) and None)
    book.cancel()
    room.clock.advance(1)
    assert room.timers == [KEPT_SECONDS]
    room.clock.advance(KEPT_SECONDS)
    room.clock.advance(LINGER)
    room.assert_empty()
