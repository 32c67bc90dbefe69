"""The two kinds of history: offsets that are counted here, and those that the source gives."""

from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import patch

import pytest

from marketfeed.hub.counted_history import CountedHistory
from marketfeed.hub.entry_history import EntryHistory
from marketfeed.hub.histories import Histories
from marketfeed.hub.stream import Group
from tests.compiled import replaces_methods
from tests.conftest import LogCapture
from tests.fakes import FakeArchive
from tests.rooms import Client, Room, member, trade

SECONDS = 10.0


@pytest.mark.parametrize("epoch", ["", "-", "a-1", "1", "é"])
def test_an_epoch_may_be_any_text(epoch: str) -> None:
    """It is compared whole: what stands behind the last dash is the number."""
    history = CountedHistory(Histories(10, SECONDS, 1 << 20), epoch)
    assert history.latest == f"{epoch}-0"
    history.add(b"x", 0.0)
    offset = history.latest
    assert history.since(f"{epoch}-0") == [(offset, b"x")]
    assert history.since(offset) == []
    assert history.since("1") is None
    assert history.since(f"-{offset}") is None


def test_what_is_kept_beside_goes_with_its_publication() -> None:
    """Also where that is not kept itself: it came before the stream began, or more than all histories may have."""
    for most_bytes, first in ((1 << 20, 5), (150, 9)):
        histories = Histories(4, SECONDS, most_bytes)
        counted, entries = CountedHistory(histories), EntryHistory(histories)
        for number in range(1, 9):
            counted.add(b"x" * 40, float(number))
            counted.keep_beside(b"%d" % number)
            entries.add(b"x" * 40, float(number), f"{number}-0")
            entries.keep_beside(b"%d" % number)
        for history in (counted, entries):
            kept = history.notes_of_newest(9)
            assert [note.beside for note in kept] == [b"%d" % number for number in range(9 - len(kept), 9)]
            assert len(kept) == 9 - first or most_bytes == 150
            history.close()
        assert histories.size == 0


def test_what_is_kept_beside_is_not_looked_through() -> None:
    """However many publications have something beside them, one more takes the same."""

    class Watched(dict[int, bytes]):
        looks = 0

        def __iter__(self) -> Iterator[int]:
            self.looks += 1
            return super().__iter__()

    history = CountedHistory(Histories(10, SECONDS, 1 << 20))
    history._beside = watched = Watched()
    for number in range(30):
        history.add(b"x", float(number))
        history.keep_beside(b"y")
    assert (len(watched), watched.looks) == (10, 0)


def test_ids_are_compared_as_numbers() -> None:
    """Nine comes before ten, in both parts; an id between two entries is a place to resume from."""
    history = EntryHistory(Histories(10, SECONDS, 1 << 20))
    history.confirm("9-9")
    offsets = ["9-10", "10-2", "10-11", "100-0"]
    for offset in offsets:
        history.add(offset.encode(), 0.0, offset)
    for after, count in (("9-9", 4), ("9-10", 3), ("9-11", 3), ("10-3", 2), ("99-99", 1), ("100-0", 0)):
        assert history.since(after) == [(offset, offset.encode()) for offset in offsets[4 - count :]]
    for after in ("9-8", "8-100", "100-1", "101-0"):
        assert history.since(after) is None
    for offset, is_behind in (
        ("100-0", False),
        ("9-9", False),
        ("100-1", True),
        ("101-0", True),
        ("x", False),
        ("", False),
    ):
        assert history.is_behind(offset) == is_behind
    assert EntryHistory(Histories(10, SECONDS, 1 << 20)).is_behind("0-0")


def test_a_stream_of_entries_begins_where_it_is_told() -> None:
    """Before that it has no offsets; beginning where it ends keeps what there is, elsewhere drops it."""
    history = EntryHistory(Histories(10, SECONDS, 1 << 20))
    assert (history.latest, history.newest(9, 99)) == (None, [])
    history.confirm("5-0")
    assert history.since("5-0") == []
    history.add(b"x", 0.0, "6-0")
    history.confirm("6-0")
    assert history.since("5-0") == [("6-0", b"x")]
    history.confirm("7-0")
    assert (history.since("5-0"), history.since("7-0")) == (None, [])


def test_a_stream_that_has_not_begun_begins_behind_the_first_entry() -> None:
    """What was before it is not known, so that it can be reached from nowhere."""
    one, other = EntryHistory(Histories(10, SECONDS, 1 << 20)), EntryHistory(Histories(10, SECONDS, 1 << 20))
    one.add(b"x", 0.0, "6-0")
    other.pass_over("6-0")
    for history in (one, other):
        assert (history.latest, history.kept) == ("6-0", 0)
        assert (history.since("5-0"), history.since("6-0")) == (None, [])


@pytest.mark.parametrize("offset", ["", "5", "5-", "-5", "a-b", "5-5-5", "$", "9" * 21 + "-0"])
def test_a_beginning_that_is_no_offset_is_an_error(offset: str) -> None:
    """It comes from the source, and is a fault there; so is an entry without its offset."""
    history = EntryHistory(Histories(10, SECONDS, 1 << 20))
    with pytest.raises(ValueError, match="not an offset"):
        history.confirm(offset)
    with pytest.raises(ValueError, match="without its offset"):
        history.add(b"x", 0.0)


@replaces_methods
def test_what_could_not_be_published_is_asked_of_the_archive(logged: LogCapture) -> None:
    """What the hub keeps of the stream begins behind it."""
    archive = FakeArchive()
    room = Room(archive)
    client = member(room, "trade@A")
    for number in range(1, 4):
        archive.add("trade@A", f"{number}-0", trade(number))
        with patch.object(Group, "published", lambda *_: 1 // 0) if number == 2 else patch.dict({}):
            room.source.publish("trade@A", trade(number), offsets=[f"{number}-0"])
    assert [message[0] for message in client.take()] == ["trade@A", "gap", "trade@A"]
    for since, is_asked in (("1-0", True), ("2-0", False)):
        archive.asked.clear()
        late = Client(room).join("trade@A", since={"trade@A": since})
        assert late.recovered == {"trade@A": True}
        assert bool(archive.asked) == is_asked
    assert len(logged.flush_failures(ZeroDivisionError)) == 1


def test_what_was_never_heard_stays_void_until_ids_are_set_back() -> None:
    """Also where the source goes on from just there; ids from before that are new ones."""
    history = EntryHistory(Histories(10, SECONDS, 1 << 20))
    history.miss()
    assert not history.is_void("0-0")
    history.confirm("5-5")
    history.miss()
    history.add(b"x", 0.0, "9-0")
    for after in ("5-5", "7-0", "5-5"):
        history.reset(after)
        assert [history.is_void(offset) for offset in ("0-0", "5-4", "5-5", "9-0", "x")] == [True, True, *[False] * 3]
    history.reset("5-4")
    assert not history.is_void("5-3")
