"""What a client has missed: whole or nothing, from the history and the archive behind it."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred

import marketfeed.hub.recovery
from marketfeed.boundaries import Entry
from marketfeed.hub.entry_history import EntryHistory
from marketfeed.hub.histories import Histories
from marketfeed.hub.recovery import Recovery, ReplayRoom, read_entries
from marketfeed.hub.stream import LiveStream
from marketfeed.model.publications import PublicationReader
from marketfeed.model.streams import StreamKinds
from tests.fakes import FakeArchive, make_stream
from tests.rooms import trade

OVERHEAD = 10
SIZE = len(trade(10)) + OVERHEAD
"""Of a publication with a number of two digits."""


def all_of(recovery: Recovery) -> tuple[list[Entry], int] | None:
    """All of it, and the bytes that it takes at most."""
    size = recovery.size(1 << 30)
    return None if size is None else (recovery.rest(), size)


class Past:
    """A stream of which the archive has everything, and the ring the newest three."""

    def __init__(self, count: int = 20, **archive: int) -> None:
        name = StreamKinds().parse("trade@A")
        reader = PublicationReader(name, ("trade@A",), 1 << 20)
        self.stream = LiveStream("trade@A", reader, name.kind, EntryHistory(Histories(3, 300, 1 << 20)))
        self.archive = FakeArchive(**archive)
        self.count = 9
        self.stream.history.confirm("9-0")
        self.publish(count)

    def publish(self, count: int = 1) -> None:
        for _ in range(count):
            self.count += 1
            self.archive.add("trade@A", f"{self.count}-0", trade(self.count))
            self.stream.history.add(trade(self.count), 0.0, f"{self.count}-0")

    def recovery(self, after: int, room: int | ReplayRoom = 1 << 20) -> Recovery:
        allowance = ReplayRoom(room) if isinstance(room, int) else room
        return Recovery(self.stream, f"{after}-0", allowance, OVERHEAD)

    def entries(self, after: int) -> list[Entry]:
        return [(f"{number}-0", trade(number)) for number in range(after + 1, self.count + 1)]

    def ask(self, recovery: Recovery, *, strict: bool = True) -> Deferred[None]:
        return Deferred.fromCoroutine(recovery.ask(self.archive, strict))

    def complete(self, recovery: Recovery) -> None:
        while recovery.needs_archive:
            self.ask(recovery)


def test_what_the_ring_has_needs_no_archive() -> None:
    """Down to nothing at all, for who was there to the end; and what comes before it is taken, is taken along."""
    past = Past()
    for after in (26, 28, 29):
        recovery = past.recovery(after)
        assert not recovery.needs_archive
        entries = past.entries(after)
        assert all_of(recovery) == (entries, len(entries) * SIZE)
    recovery = past.recovery(28)
    past.publish()
    assert all_of(recovery) == (past.entries(28), 2 * SIZE)


def test_what_a_counted_history_has_needs_no_archive_and_the_rest_is_gone() -> None:
    """Where there is no archive, the ring alone tells."""
    stream = make_stream()
    stream.history.add(trade(1), 0.0)
    assert all_of(Recovery(stream, "epoch-0", ReplayRoom(1000), OVERHEAD)) == (
        [("epoch-1", trade(1))],
        len(trade(1)) + OVERHEAD,
    )
    for offset in ("epoch-2", "other-0", "", "é"):
        assert all_of(Recovery(stream, offset, ReplayRoom(1000), OVERHEAD)) is None


def test_a_stream_that_has_not_begun_has_no_past() -> None:
    """Nothing is asked of the archive, for there is no end to ask up to."""
    past = Past()
    past.stream.history = EntryHistory(Histories(3, 300, 1 << 20))
    recovery = past.recovery(20)
    assert not recovery.needs_archive
    assert all_of(recovery) is None


@pytest.mark.parametrize("most", [1, 3, 100])
def test_the_archive_is_joined_to_the_ring(most: int) -> None:
    """In portions of whatever size, each publication once, in order."""
    past = Past(most=most)
    recovery = past.recovery(12)
    past.complete(recovery)
    entries = past.entries(12)
    assert all_of(recovery) == (entries, len(entries) * SIZE)
    assert past.archive.asked[0] == ("trade@A", "12-0", "29-0", 1 << 20)


@pytest.mark.parametrize("most", [2, 100])
def test_publications_go_on_coming_while_the_archive_is_asked(most: int) -> None:
    """What has left the ring meanwhile is asked for; what is in it is taken from there."""
    past = Past(most=most)
    past.archive.late = True
    recovery = past.recovery(12)
    while recovery.needs_archive:
        asked = past.ask(recovery)
        past.publish()
        past.archive.answer()
        assert asked.called
    past.archive.late = False
    past.publish(2)
    past.complete(recovery)
    assert all_of(recovery) == (past.entries(12), len(past.entries(12)) * SIZE)


def test_a_portion_with_nothing_in_it_says_that_nothing_is_left() -> None:
    """Entries may have been deleted there: the recovery has come to the end that it asked up to."""
    past = Past()
    past.archive.entries["trade@A"] = past.archive.entries["trade@A"][:5] + past.archive.entries["trade@A"][-1:]
    recovery = past.recovery(14)
    past.archive.entries["trade@A"][-1] = ("99-0", b"")
    past.complete(recovery)
    assert all_of(recovery) == ([], 0)


def test_a_recovery_that_never_reaches_the_ring_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Publications leave the ring faster than the archive tells them."""
    monkeypatch.setattr(marketfeed.hub.recovery, "_ROUNDS", 4)
    past = Past(most=2)
    recovery = past.recovery(12)
    for _ in range(5):
        assert recovery.needs_archive
        past.ask(recovery)
        past.publish(2)
    assert not recovery.needs_archive
    assert all_of(recovery) is None
    assert len(past.archive.asked) == 5


@pytest.mark.parametrize("after", ["12-0", "99-0", "nonsense", ""])
def test_what_the_archive_does_not_have_is_nothing_rather_than_a_part(after: str) -> None:
    """Trimmed, beyond the end, or no offset."""
    past = Past()
    past.archive.trim("trade@A", 10)
    recovery = Recovery(past.stream, after, ReplayRoom(1 << 20), OVERHEAD)
    assert recovery.needs_archive
    past.ask(recovery)
    assert not recovery.needs_archive
    assert all_of(recovery) is None


def test_what_is_trimmed_between_two_portions_makes_the_whole_nothing() -> None:
    """The first portion alone is no recovery."""
    past = Past(most=2)
    recovery = past.recovery(12)
    past.ask(recovery)
    past.archive.trim("trade@A", 5)
    past.complete(recovery)
    assert all_of(recovery) is None


def test_an_archive_out_of_reach_is_nothing() -> None:
    """It is not waited for."""
    past = Past()
    past.archive.reached = False
    recovery = past.recovery(12)
    past.complete(recovery)
    assert all_of(recovery) is None


@pytest.mark.parametrize(
    ("room", "rounds"), [(17 * SIZE, 9), (14 * SIZE, 8), (14 * SIZE - 1, 7), (2 * SIZE - 1, 1), (0, 1)]
)
def test_the_archive_is_asked_for_no_more_than_there_is_room_for(room: int, rounds: int) -> None:
    """Each question says what room is left, and the last one is the one that goes beyond it."""
    past = Past(most=2)
    recovery = past.recovery(12, room)
    past.complete(recovery)
    assert (all_of(recovery) is not None) == (room >= 14 * SIZE)
    asked = [max_bytes for *_, max_bytes in past.archive.asked]
    assert len(asked) == min(rounds, 7)
    assert asked[0] == max(1, room)
    assert asked == sorted(asked, reverse=True)


def test_the_recoveries_of_a_client_share_its_room() -> None:
    """A thousand streams fill no more memory than one; what does not fit leaves its place to the next."""
    past = Past(most=2)
    room = ReplayRoom(17 * SIZE)
    first, second, third = past.recovery(22, room), past.recovery(12, room), past.recovery(20, room)
    for recovery in (first, second, third):
        past.complete(recovery)
    assert [all_of(recovery) is not None for recovery in (first, second, third)] == [True, False, True]
    assert not second.entries
    assert room.left == 17 * SIZE - sum(len(recovery.entries) * SIZE for recovery in (first, third))


@pytest.mark.parametrize("rounds", [1, 3, 100])
def test_a_client_that_is_ahead_of_the_ring_waits_for_it(monkeypatch: pytest.MonkeyPatch, rounds: int) -> None:
    """What this process gets later than another is not sent to a client that has it; but not for ever."""
    monkeypatch.setattr(marketfeed.hub.recovery, "_ROUNDS", 10)
    past = Past()
    late = [past.count + 1, past.count + 2, past.count + 3]
    for number in late:
        past.archive.add("trade@A", f"{number}-0", trade(number))
    recovery = past.recovery(late[1])
    while recovery.needs_archive:
        past.ask(recovery)
        if len(past.archive.asked) == rounds:
            for number in late:
                past.stream.history.add(trade(number), 0.0, f"{number}-0")
    expected = ([(f"{late[2]}-0", trade(late[2]))], SIZE) if rounds < 10 else None
    assert all_of(recovery) == expected


def test_entries_are_read_as_publications_are() -> None:
    """Without their wrapping; the bad ones are passed over, unless `--validate warn` forwards them."""
    stream = make_stream()
    entries = [
        ("1-0", trade(1)),
        ("2-0", b'{"stream":"trade@A","data":' + trade(2) + b"}"),
        ("3-0", b'{"e":"trade"}'),
        ("4-0", b"["),
    ]
    good = [("1-0", trade(1)), ("2-0", trade(2))]
    assert read_entries(stream, entries, True) == good
    assert read_entries(stream, entries, False) == [*good, ("3-0", b'{"e":"trade"}')]


def test_bad_entries_are_no_gap_in_a_recall() -> None:
    """A portion of nothing else is a step all the same."""
    past = Past(most=1)
    entries = past.archive.entries["trade@A"]
    entries[4:7] = [(offset, b"bad") for offset, _ in entries[4:7]]
    recovery = past.recovery(12)
    past.complete(recovery)
    taken = all_of(recovery)
    assert taken is not None
    assert [offset for offset, _ in taken[0]] == [f"{n}-0" for n in (13, *range(17, 30))]


def test_what_does_not_fit_is_found_out_without_looking_at_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing always fits, and the rest to the byte."""
    past = Past(3)
    recovery = past.recovery(9)
    monkeypatch.setattr(EntryHistory, "_entries", None)
    assert recovery.size(3 * SIZE) == 3 * SIZE
    assert recovery.size(3 * SIZE - 1) is None
    assert past.recovery(12).size(-1) == 0
    assert past.recovery(8).size(1 << 20) is None


def test_what_was_taken_over_no_longer_depends_on_the_ring() -> None:
    """It is still joined to what is published behind it."""
    past = Past(3)
    recovery = past.recovery(9)
    recovery.advance()
    past.publish(2)
    assert all_of(recovery) == (past.entries(9), 5 * SIZE)
    past.publish(2)
    assert recovery.needs_archive
    past.complete(recovery)
    assert all_of(recovery) == (past.entries(9), 7 * SIZE)
