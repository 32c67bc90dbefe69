"""The rule by which a stream has all behind one of them, against a stream that is simulated."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from marketfeed.model.entry_ids import ORIGIN, EntryId
from marketfeed.redis.stream_entries import ABSENT, Extent, payload_of, read_extent

MOST = 2**64 - 1


def test_the_publication_is_in_the_field_d() -> None:
    """Wherever it stands; a value is no field."""
    assert payload_of([b"d", b"1", b"d", b"2"]) == b"1"
    assert payload_of([b"x", b"d", b"d", b"2"]) == b"2"
    assert payload_of([b"x", b"d"]) is None
    assert payload_of([]) is None


def test_answers_of_older_servers() -> None:
    """What they do not count is not known; what they do not note has not happened."""
    reply = [b"length", 2, b"last-generated-id", b"3-4", b"first-entry", [b"1-0", [b"d", b"1"]]]
    assert read_extent(reply) == Extent((1, 0), (3, 4), ORIGIN, None, None)
    reply[5] = None
    newer = [*reply, b"max-deleted-entry-id", b"2-0", b"entries-added", 5]
    assert read_extent(newer) == Extent(None, (3, 4), (2, 0), 3, 5)


class Stream:
    """What a server does, with ids from 1 on."""

    def __init__(self) -> None:
        self.added: list[int] = []
        self.kept: list[int] = []
        self.deleted = 0
        self.last = 0
        self.lives = [0]  # how many had been added when the stream began to exist, each time

    def do(self, action: str, number: int) -> None:
        if action == "add":
            self.last = (self.added or [0])[-1] + 1 + number % 3  # as a clock gives them, whatever was lost
            self.added.append(self.last)
            self.kept.append(self.last)
        elif action == "lose":
            self.kept.clear()
            self.deleted = self.last = 0
            self.lives.append(len(self.added))
        elif action == "trim":
            del self.kept[: number % 4]
        elif self.kept:
            gone = self.kept.pop(number % len(self.kept))
            self.deleted = max(self.deleted, gone)

    def extent(self, counts: bool) -> Extent:
        return Extent(
            (self.kept[0], 0) if self.kept else None,
            (self.last, 0),
            (self.deleted, 0),
            len(self.added) - self.lives[-1] - len(self.kept) if counts else None,
        )

    def newest(self, at: int) -> EntryId | None:
        return max(((entry, 0) for entry in self.kept if entry <= at), default=None)


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["add", "add", "add", "add", "trim", "delete", "lose"]), st.integers(0, 9)), max_size=30
)


@given(ACTIONS, st.booleans(), st.data())
def test_nothing_is_claimed_that_is_not_there(
    actions: list[tuple[str, int]], counts: bool, data: st.DataObject
) -> None:
    """After whatever was added, trimmed, deleted and lost: "all there" means that every entry behind it is left."""
    stream = Stream()
    for action in actions:
        stream.do(*action)
    # Whoever has come no further than 0-0 has it of the stream that there is: nobody could tell it from another.
    at = data.draw(st.sampled_from([0, *stream.added]))
    since = stream.lives[-1] if at == 0 else 0
    newest = stream.newest(at)
    extent = stream.extent(counts)
    behind = [entry for entry in stream.added[since:] if entry > at]
    is_whole = behind == [entry for entry in stream.kept if entry > at]
    claimed = extent.has_all_behind((at, 0), is_entry=newest == (at, 0))
    assert is_whole or not claimed
    if at in stream.kept and not stream.deleted:
        assert claimed
    onward = extent.go_on_behind((at, 0), newest)
    assert (onward == (at, 0)) == claimed
    assert onward <= extent.last
    assert claimed or onward >= (at, 0) or onward == extent.last
    if claimed:
        assert extent.hole((at, 0)) is None
    if onward <= (stream.deleted, 0):
        assert not [entry for entry in stream.kept if onward < (entry, 0) and entry <= at], "never twice"


def test_a_stream_that_was_lost_whole() -> None:
    """Something else has been added since, and nothing of that was removed; only behind 0-0 is that everything."""
    extent = Extent((5, 0), (6, 0), ORIGIN, 0)
    assert not extent.has_all_behind((3, 0), is_entry=False)
    assert extent.go_on_behind((3, 0), None) == (4, MOST)
    assert extent.has_all_behind(ORIGIN, is_entry=False)
    assert extent.go_on_behind(ORIGIN, None) == ORIGIN
    assert extent.has_all_behind((4, MOST), is_entry=False), "nothing fits between it and the first entry"


def test_what_is_left_in_a_hole() -> None:
    """Whoever has missed one entry has not missed those before it."""
    extent = Extent((1, 0), (9, 0), (6, 0), 1)
    assert extent.hole((3, 0)) == (6, 0)
    assert extent.hole((6, 0)) is None
    assert extent.hole((7, 0)) is None
    assert not extent.has_all_behind((3, 0), is_entry=True)


def test_a_stream_that_was_set_back() -> None:
    """Its end lies before the position, or other entries stand where it was."""
    extent = Extent((1, 0), (5, 0), ORIGIN, 0)
    assert extent.go_on_behind((7, 0), (5, 0)) == (5, 0)
    assert extent.go_on_behind((4, 0), (3, 0)) == (3, 0)
    assert not extent.has_all_behind((7, 0), is_entry=False)
    assert not extent.has_all_behind((4, 0), is_entry=False)
    assert ABSENT.go_on_behind((7, 0), None) == ORIGIN
    assert ABSENT.has_all_behind(ORIGIN, is_entry=False)


def test_an_entry_that_was_deleted_was_one() -> None:
    """Whoever has read it has missed nothing."""
    extent = Extent((1, 0), (5, 0), (4, 0), 1)
    assert extent.go_on_behind((4, 0), (3, 0)) == (4, 0)
    assert extent.go_on_behind((3, 0), (3, 0)) == (4, 0)
    assert Extent(None, (5, 0), ORIGIN, 5).go_on_behind((3, 0), None) == (5, 0)
