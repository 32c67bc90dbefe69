"""Past publications and books, for those who ask once."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, Deferred

from marketfeed.boundaries import Dated, Entry, NoBook, UnknownOffset
from marketfeed.hub.queries import BOOK_SECONDS, KEPT_SECONDS
from marketfeed.model.book_state import BookState
from marketfeed.wire.dialects import Shape
from tests.fakes import FakeArchive
from tests.rooms import KINDS, LINGER, Client, Room, depth, member, offsets, trade


def entries(result: Deferred[list[Entry] | None]) -> list[Entry] | None:
    found: list[list[Entry] | None] = []
    result.addCallback(found.append)
    return found[0]


def found(result: Deferred[BookState | NoBook]) -> list[BookState | NoBook]:
    """The book when it is there."""
    books: list[BookState | NoBook] = []
    result.addCallback(books.append)
    return books


def test_history_is_the_newest_that_are_kept(room: Room) -> None:
    """Of a stream that is wanted; of another there is none. Old ones go by themselves."""
    client = member(room, "trade@A", shape=Shape.OFFSET)
    room.source.publish("trade@A", trade(1), trade(2), trade(3))
    known = offsets(client)
    kept = list(zip(known, (trade(1), trade(2), trade(3)), strict=True))
    name = KINDS.parse("trade@A")
    assert entries(room.hub.history(name, 100, 1 << 20)) == kept
    assert entries(room.hub.history(name, 2, 1 << 20)) == kept[1:]
    assert entries(room.hub.history(name, 100, len(trade(1)))) == kept[2:]
    assert entries(room.hub.history(KINDS.parse("trade@B"), 100, 1 << 20)) == []
    for _ in range(302):
        room.clock.advance(1)
    assert entries(room.hub.history(name, 100, 1 << 20)) == []
    assert room.source.calls == [("want", "trade@A")]


def test_history_before_an_offset(room: Room) -> None:
    """What is kept before it; an offset that is not kept any more has nothing before it."""
    client = member(room, "trade@A", shape=Shape.OFFSET)
    room.source.publish("trade@A", *(trade(number) for number in range(1, 6)))
    known = offsets(client)
    kept = [(offset, trade(number)) for number, offset in enumerate(known, 1)]
    name = KINDS.parse("trade@A")
    for at, offset in enumerate(known):
        assert entries(room.hub.history(name, 2, 1 << 20, offset)) == kept[max(0, at - 2) : at]
    for _ in range(302):
        room.clock.advance(1)
    assert entries(room.hub.history(name, 2, 1 << 20, known[4])) == []


@pytest.mark.parametrize("offset", ["", "nonsense", "e0-5", "7-1"])
def test_history_before_what_is_no_offset_of_the_stream(room: Room, offset: str) -> None:
    """It is said, whether the stream is followed or not."""
    member(room, "trade@A", shape=Shape.OFFSET)
    room.source.publish("trade@A", trade(1))
    for name in ("trade@A", "trade@B"):
        with pytest.raises(UnknownOffset):
            room.hub.history(KINDS.parse(name), 2, 1 << 20, offset)


def test_an_archive_has_what_was_before_any_id() -> None:
    archive = FakeArchive()
    room = Room(archive)
    for number in range(1, 6):
        archive.add("trade@A", f"5-{number}", trade(number))
    archive.add("trade@A", "6-0", trade(6))
    name = KINDS.parse("trade@A")
    pages = [entries(room.hub.history(name, 2, 1 << 20, before)) for before in ("6-0", "5-4", "5-2", "5-1", "0-0")]
    assert pages == [
        [("5-4", trade(4)), ("5-5", trade(5))],
        [("5-2", trade(2)), ("5-3", trade(3))],
        [("5-1", trade(1))],
        [],
        [],
    ]
    with pytest.raises(UnknownOffset):
        room.hub.history(name, 2, 1 << 20, "5")


def test_history_is_the_archives_where_there_is_one() -> None:
    """Read as publications are, whether the stream is wanted or not."""
    archive = FakeArchive()
    room = Room(archive)
    archive.add("trade@A", "5-0", b'{"stream":"trade@A","data":' + trade(1) + b"}")
    archive.add("trade@A", "6-0", b"bad")
    name = KINDS.parse("trade@A")
    assert entries(room.hub.history(name, 10, 1 << 20)) == [("5-0", trade(1))]
    Client(room).join("trade@A")
    assert entries(room.hub.history(name, 10, 1 << 20)) == [("5-0", trade(1))]
    assert archive.asked == [("trade@A", 10, 1 << 20)] * 2
    archive.reached = False
    assert entries(room.hub.history(name, 10, 1 << 20)) is None


def test_who_waits_for_a_book_may_go(room: Room) -> None:
    """Nothing of its wait is left, and the stream goes as others do."""
    book = room.hub.book(KINDS.parse("depth@A"))
    book.addErrback(lambda failure: failure.trap(CancelledError) and None)
    assert room.hub.streams == {"depth@A"}
    book.cancel()
    room.source.confirm()
    room.clock.advance(KEPT_SECONDS)
    room.clock.advance(LINGER)
    room.assert_empty()


def test_a_book_is_given_as_soon_as_it_is_complete() -> None:
    """Whoever asks waits for it; without room there is none."""
    room = Room(max_distinct_streams=1)
    name = KINDS.parse("depth@A")
    early = found(room.hub.book(name))
    room.source.confirm()
    room.clock.advance(2)
    late = found(room.hub.book(name))
    room.source.publish("depth@A", depth(1, is_snapshot=True))
    assert early == late == []
    room.clock.advance(0.1)
    assert early == late != []
    (book,) = found(room.hub.book(name))
    assert [book] == early
    assert isinstance(book, BookState)
    assert book.last == 1
    assert found(room.hub.book(KINDS.parse("depth@B"))) == [NoBook.INCOMPLETE]
    room.source.lose(5)
    lost = found(room.hub.book(name))
    room.clock.advance(BOOK_SECONDS)
    assert lost == [NoBook.INCOMPLETE]


@pytest.mark.parametrize("every", [7, 13, 59])
def test_who_polls_gets_a_book(every: int) -> None:
    """However seldom: the stream is wanted until the next time, and a snapshot of its engine is remembered."""
    room = Room()
    name, answers = KINDS.parse("depth@A"), []
    snapshots = iter(range(1, 10_000))
    for second in range(max(4 * every, 120)):
        if second % every == 0:
            answers.append(found(room.hub.book(name)))
            room.source.confirm()
        if second % 31 == 30:
            room.source.publish("depth@A", depth(next(snapshots), is_snapshot=True))
        room.clock.advance(0.5)
        room.clock.advance(0.5)
    assert isinstance(answers[-1][0], BookState)
    assert room.source.calls == [("want", "depth@A")]
    for _ in range(2):
        room.clock.advance(KEPT_SECONDS)
    room.assert_empty()


def test_a_book_that_cannot_be_had() -> None:
    """After five seconds, which is said of a market of which nothing is known; at the end of the hub at once."""
    room = Room()
    confirmed = [found(room.hub.book(KINDS.parse(f"depth@{market}"))) for market in "AB"]
    room.source.confirm()
    room.source.publish("depth@A", depth(1))
    other = found(room.hub.book(KINDS.parse("depth@C")))
    assert found(room.hub.book(KINDS.parse("ticker@A"))) == [NoBook.INCOMPLETE]
    room.clock.advance(BOOK_SECONDS - 0.01)
    assert confirmed == [[], []]
    room.clock.advance(0.1)
    assert confirmed == [[NoBook.INCOMPLETE], [NoBook.UNKNOWN]]
    assert other == [NoBook.INCOMPLETE]
    at_end = Room(linger=0)
    books = [found(at_end.hub.book(KINDS.parse(f"depth@{market}"))) for market in "ABC"]
    at_end.hub.stopService()
    assert books == [[NoBook.INCOMPLETE]] * 3
    at_end.assert_empty()


def test_streams_that_are_kept_for_those_who_ask_are_not_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of very many, the one that was asked for longest ago is kept no longer."""
    monkeypatch.setattr("marketfeed.hub.queries._MOST_KEPT", 2)
    room = Room(linger=0)
    for market in "ABAC":
        found(room.hub.book(KINDS.parse(f"depth@{market}")))
    room.clock.advance(BOOK_SECONDS + 1)
    assert room.hub.streams == {"depth@A", "depth@C"}
    room.clock.advance(KEPT_SECONDS)
    room.assert_empty()


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


def dated(result: Deferred[list[Dated] | None]) -> list[tuple[int, bytes]] | None:
    """When each came, and what it was."""
    found: list[list[Dated] | None] = []
    result.addCallback(found.append)
    return None if found[0] is None else [(entry.at, entry.data) for entry in found[0]]


def test_what_was_published_at_a_time(room: Room) -> None:
    """From there on, or up to there; as many as fit. The stream is kept for who asks again."""
    name, size, begin = KINDS.parse("trade@A"), len(trade(1)), room.now_ms
    assert dated(room.hub.last_until(name, begin, 10, 1 << 20)) == []
    assert room.source.calls == [("want", "trade@A")]
    room.source.confirm()
    for number in range(1, 5):
        room.source.publish("trade@A", trade(number))
        room.clock.advance(1)
    came = [(begin + 1000 * number, trade(number + 1)) for number in range(4)]
    assert dated(room.hub.first_from(name, 0, 10, 1 << 20)) == came
    assert dated(room.hub.first_from(name, begin + 1000, 2, 1 << 20)) == came[1:3]
    assert dated(room.hub.first_from(name, begin + 1, 10, size)) == came[1:2]
    assert dated(room.hub.last_until(name, 10**16, 10, 1 << 20)) == came
    assert dated(room.hub.last_until(name, begin + 2999, 2, 1 << 20)) == came[1:3]
    assert dated(room.hub.last_until(name, begin + 2000, 10, size)) == came[2:3]
    assert dated(room.hub.last_until(name, begin - 1, 10, 1 << 20)) == []
    for _ in range(3):
        room.clock.advance(KEPT_SECONDS)
    assert room.source.calls == [("want", "trade@A"), ("unwant", "trade@A")]


def test_there_may_be_no_room_to_keep_it() -> None:
    """Then nothing is known."""
    room = Room(max_distinct_streams=1)
    client = member(room, "trade@A")
    assert dated(room.hub.first_from(KINDS.parse("trade@B"), 0, 10, 1 << 20)) is None
    room.end(client)


def test_what_an_archive_has_of_a_time() -> None:
    """By when it was added, without what is no publication; no stream is wanted for it."""
    archive = FakeArchive()
    room = Room(archive)
    for number, payload in enumerate((trade(1), b"bad", trade(3), trade(4)), 1):
        archive.add("trade@A", f"{number}000-0", payload)
    name = KINDS.parse("trade@A")
    assert dated(room.hub.first_from(name, 1001, 2, 1 << 20)) == [(3000, trade(3))]
    assert dated(room.hub.last_until(name, 3999, 2, 1 << 20)) == [(3000, trade(3))]
    archive.reached = False
    assert dated(room.hub.last_until(name, 3999, 2, 1 << 20)) is None
    assert not room.source.calls


def test_the_books_that_are_known(room: Room) -> None:
    """Not those that are incomplete, or of a stream that is out of reach."""
    client = member(room, "depth@A", "depth@B", "trade@C")
    room.source.publish("depth@A", depth(1, is_snapshot=True))
    assert [(market, state.is_complete) for market, state in room.hub.books] == [("A", True)]
    room.source.lose()
    assert not list(room.hub.books)
    room.end(client)
