"""The source: what it says of streams, and what follows from that for their clients."""

from __future__ import annotations

from collections import Counter

import pytest

from marketfeed.wire.dialects import Shape
from tests.conftest import LogCapture
from tests.fakes import FakeArchive, FakeSnapshots
from tests.rooms import EPOCH, LINGER, Client, Room, depth, member, offsets, ticker, trade


def test_a_source_may_confirm_at_once(room: Room) -> None:
    """A stream that is subscribed still is confirmed inside `want`: the join need not wait, even after a loss."""
    room.source.at_once = True
    room.source.lose(5)
    client = Client(room).join("trade@A", "depth@A")
    room.source.publish("trade@A", trade(1))
    assert client.take() == [["joined", "trade@A", "depth@A"], ("trade@A", 1)]


def test_a_loss_answers_those_too_whose_stream_is_overdue_already(room: Room) -> None:
    """Nobody waits for a source that is unreachable, though the stream's gap began before."""
    Client(room).join("trade@A")
    since = room.now_ms
    room.clock.advance(3)
    second = Client(room).join("trade@A")
    room.clock.advance(2)
    room.source.lose(5)
    assert second.take() == [["joined", "trade@A"], ("gap", ["trade@A"], "source-down", since, None)]


def test_while_the_source_is_unreachable_joins_are_answered_at_once(room: Room) -> None:
    """A gap since the source was last good follows the reply; when the source is back, joins wait again."""
    room.source.lose(EPOCH * 1000 - 400)
    client = Client(room).join("trade@A", "a@trade")
    gap = ("gap", ["trade@A", "a@trade"], "source-down", EPOCH * 1000 - 400)
    assert client.take() == [["joined", "trade@A", "a@trade"], (*gap, None)]
    room.source.reach()
    waits = Client(room).join("trade@B")
    assert waits.take() == []
    room.clock.advance(1)
    room.source.confirm()
    room.hub.flush()
    assert client.take() == [(*gap, room.now_ms)]
    assert waits.take() == [["joined", "trade@B"]]


def test_a_source_that_was_never_good_is_lost_since_now(room: Room) -> None:
    """Before the first success there is no last good moment to name."""
    waiting = Client(room).join("trade@A")
    room.clock.advance(1)
    room.source.lose(None)
    assert waiting.take() == [["joined", "trade@A"], ("gap", ["trade@A"], "source-down", room.now_ms, None)]
    assert waiting.settlings == 1
    assert not room.hub.overview.source_reached
    room.clock.advance(1)
    room.source.lose(None)
    gap = ("gap", ["trade@B"], "source-down", room.now_ms - 1000, None)
    assert Client(room).join("trade@B").take()[1:] == [gap], "a further attempt in vain begins nothing"
    room.source.reach()
    assert room.hub.overview.source_reached


def test_gaps_are_control_events(room: Room) -> None:
    """What waits for a slow client before such an event, and what comes after it, is kept apart."""
    client = member(room, "trade@A")
    room.source.lose(5)
    room.source.reach()
    room.source.confirm()
    room.hub.flush()
    room.source.lose(9)
    late = Client(room).join("trade@A")
    assert [message["data"]["to"] for message in client.outbox.messages] == [None, room.now_ms, None]
    assert client.outbox.events == client.outbox.writes
    assert late.outbox.events == late.outbox.writes[1:]


def test_a_gap_ends_before_the_next_publication_with_the_same_from(room: Room) -> None:
    """Recovery is told stream by stream as it is confirmed, in one event for those that came back together."""
    client = member(room, "trade@A", "trade@B", "trade@C")
    room.source.lose(5)
    client.take()
    room.clock.advance(3)
    room.source.reach()
    room.hub.flush()
    assert client.take() == []
    room.hub.confirmed("trade@A")
    room.hub.confirmed("trade@C")
    room.source.publish("trade@C", trade(1))
    assert client.take() == [("gap", ["trade@A", "trade@C"], "source-down", 5, room.now_ms), ("trade@C", 1)]
    room.hub.confirmed("trade@B")
    room.hub.flush()
    assert client.take() == [("gap", ["trade@B"], "source-down", 5, room.now_ms)]
    room.source.confirm()
    room.hub.flush()
    assert client.take() == []


def test_a_refused_stream_is_answered_and_never_waited_for(room: Room, logged: LogCapture) -> None:
    """The client is told why nothing flows: who waited at the refusal, and who asks afterwards."""
    client = Client(room).join("trade@A", "trade@B")
    room.source.confirm("trade@B")
    room.source.refuse("trade@A")
    gap = ("gap", ["trade@A"], "source-refused", room.now_ms)
    assert client.take() == [["joined", "trade@A", "trade@B"], (*gap, None)]
    later = Client(room).join("trade@A")
    assert later.take() == [["joined", "trade@A"], (*gap, None)]
    room.source.refuse("trade@A")
    assert client.take() == []
    room.clock.advance(4)
    room.source.confirm("trade@A")
    room.source.publish("trade@A", trade(1))
    assert client.take() == later.take() == [(*gap, room.now_ms), ("trade@A", 1)]
    assert logged.formats().count("the source refuses {stream}: {why}") == 2


def test_a_refusal_after_a_loss_says_since_when_nothing_flows(room: Room) -> None:
    """The gap has another reason now; it is the same gap, also when the source is lost once more."""
    client = member(room, "trade@A", "trade@B")
    room.source.lose(5)
    client.take()
    room.source.reach()
    room.source.refuse("trade@A")
    assert client.take() == [("gap", ["trade@A"], "source-refused", 5, None)]
    room.source.lose(8)
    assert client.take() == []
    room.source.confirm()
    room.hub.flush()
    refused = ("gap", ["trade@A"], "source-refused", 5, room.now_ms)
    down = ("gap", ["trade@B"], "source-down", 5, room.now_ms)
    assert client.take() == [refused, down]


def test_refused_streams_do_not_fill_the_log(room: Room, logged: LogCapture) -> None:
    """A client may ask for any number of them: after a hundred lines there is one a second."""
    for index in range(300):
        Client(room).join(f"trade@M{index}")
        room.source.refuse(f"trade@M{index}")
    assert logged.formats().count("the source refuses {stream}: {why}") == 100
    room.clock.advance(1)
    room.source.refuse("trade@M0", "trade@M1")
    assert logged.formats().count("the source refuses {stream}: {why}") == 101


def test_a_stream_refused_in_the_midst_of_its_flow_gets_its_gap_after_what_arrived(room: Room) -> None:
    """Permission can be withdrawn; the gap begins now, and right after a recovery that one is told first."""
    client = member(room, "trade@A")
    room.hub.publish("trade@A", trade(1))
    room.source.refuse("trade@A")
    gap = ("gap", ["trade@A"], "source-refused", room.now_ms)
    assert client.take() == [("trade@A", 1), (*gap, None)]
    room.clock.advance(1)
    room.source.confirm("trade@A")
    room.source.refuse("trade@A")
    assert client.take() == [(*gap, room.now_ms), ("gap", ["trade@A"], "source-refused", room.now_ms, None)]


def test_news_of_a_stream_that_nobody_wants_changes_nothing(room: Room) -> None:
    """Confirmations and refusals may cross with an unwant."""
    room.hub.confirmed("trade@X")
    room.hub.refused("trade@X", "no permission")
    room.assert_empty()


def test_a_wrapped_publication_may_name_its_channel() -> None:
    """Engines wrap under the stream's name, with the prefix or without it; clients see neither wrapping."""
    room = Room(channel_prefix="live.")
    client = member(room, "trade@A", shape=Shape.DATA)
    for name in (b"trade@A", b"live.trade@A", b"test.trade@A"):
        room.source.publish("trade@A", b'{"stream":"' + name + b'","data":' + trade() + b"}")
    assert client.outbox.texts == [trade()] * 2
    assert room.hub.drops == Counter({"wrong-stream": 1})


def test_a_publication_beyond_the_limit_is_dropped() -> None:
    """`--max-payload` is in bytes of the payload."""
    room = Room(max_payload=len(trade()))
    client = member(room, "trade@A")
    room.source.publish("trade@A", trade(), trade() + b" ")
    assert client.take() == [("trade@A", 1)]
    assert room.hub.drops == Counter({"too-large": 1})


def test_a_jump_right_behind_a_loss_is_part_of_its_gap(room: Room) -> None:
    """It has been told; the next one has not."""
    client = member(room, "depth@A")
    room.source.publish("depth@A", depth(1))
    room.source.lose(5)
    room.source.confirm()
    room.source.publish("depth@A", depth(9))
    assert [message[-1] for message in client.take()] == [1, None, room.now_ms, 9]
    room.source.publish("depth@A", depth(11))
    assert client.take() == [("gap", ["depth@A"], "sequence", room.now_ms, room.now_ms), ("depth@A", 11)]


def test_a_jump_while_a_gap_is_open_is_part_of_it(room: Room) -> None:
    """A stream that was never confirmed may be heard yet: whoever is in its gap is not told that one is over."""
    client = Client(room).join("depth@A")
    room.source.refuse("depth@A")
    client.take()
    room.source.publish("depth@A", depth(1), depth(9))
    assert client.take() == [("depth@A", 1), ("depth@A", 9)]


def test_a_jump_right_behind_a_seed_is_told(room: Room) -> None:
    """The client had a state, which does not lead to what comes next: nobody has told it of a gap."""
    snapshots = FakeSnapshots()
    snapshots.states["depth@A"] = depth(5, is_snapshot=True)
    room = Room(snapshots=snapshots)
    client = Client(room).join("depth@A", wants_state=True)
    room.source.confirm()
    del snapshots.states["depth@A"]
    assert [message["data"]["u"] for message in client.outbox.messages[1:]] == [5]
    client.outbox.writes.clear()
    room.source.publish("depth@A", depth(9))
    assert client.take() == [("gap", ["depth@A"], "sequence", room.now_ms, room.now_ms), ("depth@A", 9)]


@pytest.mark.parametrize("late", [False, True])
def test_a_state_found_after_a_jump_goes_to_those_who_want_it(late: bool) -> None:
    """Behind what was published before, which it has in it, and before what comes next; to nobody else."""
    snapshots = FakeSnapshots()
    snapshots.late = late
    room = Room(snapshots=snapshots)
    client = Client(room, shape=Shape.OFFSET).join("depth@A", wants_state=True)
    plain = Client(room).join("depth@A")
    room.source.confirm()
    snapshots.answer()
    room.source.publish("depth@A", depth(1, is_snapshot=True))
    client.take()
    plain.take()
    last = 9 if late else 8
    snapshots.states["depth@A"] = depth(last, is_snapshot=True)
    room.clock.advance(1)
    room.hub.publish("depth@A", depth(8))
    room.hub.publish("depth@A", depth(9))
    snapshots.answer()
    room.source.publish("depth@A", depth(10))
    gap, *messages = client.outbox.messages
    assert gap["data"]["reason"] == "sequence"
    books = [(message["data"]["u"], message["data"].get("snapshot")) for message in messages]
    assert [u for u, snapshot in books if not snapshot] == [8, 9, 10]
    states = [at for at, (_, snapshot) in enumerate(books) if snapshot]
    assert [books[at] for at in states] == [(last, True)]
    assert [u for u, _ in books[: states[0]]] == list(range(8, last + 1))
    assert messages[states[0]]["offset"] == messages[states[0] - 1]["offset"]
    assert [message[-1] for message in plain.take()[1:]] == [8, 9, 10]


def test_a_state_is_looked_for_again_while_it_is_incomplete() -> None:
    """The hub's sweep does it: who is in gets it when it is there."""
    snapshots = FakeSnapshots()
    room = Room(snapshots=snapshots)
    client = Client(room).join("ticker@A", wants_state=True)
    room.source.confirm()
    assert client.take() == [["joined", "ticker@A"]]
    room.hub.publish("ticker@B", ticker(0))
    snapshots.states["ticker@A"] = ticker(7)
    for _ in range(4):
        room.clock.advance(1)
        assert client.take() == []
    room.clock.advance(1)
    assert client.take() == [("ticker@A", 7)]
    room.clock.advance(100)
    assert snapshots.asked == ["ticker@A"] * 2


@pytest.mark.parametrize("again", [False, True])
def test_a_state_that_came_with_the_stream_is_not_sent_again(again: bool) -> None:
    """There is no seed. Some seconds after a confirmation the state is complete by itself, which who is in knows."""
    room = Room(snapshots=FakeSnapshots())
    client = Client(room).join("ticker@A", "depth@A", wants_state=True)
    room.source.confirm()
    if again:
        room.source.publish("depth@A", depth(1, is_snapshot=True))
        room.source.lose(5)
        room.source.confirm()
    room.source.publish("ticker@A", ticker(2))
    room.source.publish("depth@A", depth(2, is_snapshot=not again))
    client.take()
    room.clock.pump([1] * 100)
    assert client.take() == []
    assert Client(room).join("depth@A", wants_state=True).take()[1:] == [("depth@A", 2)]


def test_a_seed_ahead_of_the_stream_goes_to_those_who_are_in_when_the_stream_has_come_so_far() -> None:
    """In the flush that brings it there, once; who comes later gets it as he joins, and not again."""
    snapshots = FakeSnapshots()
    room = Room(snapshots=snapshots)
    client = Client(room).join("depth@A", wants_state=True)
    plain = Client(room).join("depth@A")
    room.source.confirm()
    room.source.publish("depth@A", depth(1, is_snapshot=True))
    snapshots.states["depth@A"] = depth(9, is_snapshot=True)
    room.clock.advance(1)
    room.source.publish("depth@A", depth(8))
    client.take()
    plain.take()
    assert Client(room).join("depth@A", wants_state=True).take() == [["joined", "depth@A"]]
    room.hub.publish("depth@A", depth(9))
    room.hub.publish("depth@A", depth(10))
    late = Client(room).join("depth@A", wants_state=True)
    assert late.take() == [["joined", "depth@A"], ("depth@A", 10)]
    books = [(message["data"]["u"], message["data"].get("snapshot")) for message in client.outbox.messages]
    assert books == [(9, None), (10, None), (10, True)]
    assert plain.take() == [("depth@A", 9), ("depth@A", 10)]
    room.clock.pump([1] * 100)
    assert late.take() == []


def test_a_stream_whose_last_client_a_jump_ends_is_not_looked_for() -> None:
    """What is pending goes out before the jump is told; without linger the stream may be gone by then."""
    snapshots = FakeSnapshots()
    room = Room(snapshots=snapshots, linger=0)
    client = Client(room, queue=1).join("depth@A")
    room.source.confirm()
    room.source.publish("depth@A", depth(1))
    asked = len(snapshots.asked)
    client.outbox.stall()
    room.clock.advance(2)
    room.hub.publish("depth@A", depth(2))
    room.hub.publish("depth@A", depth(9))
    assert client.ended
    room.clock.pump([1] * 200)
    assert len(snapshots.asked) == asked
    room.assert_empty()


def test_a_stream_whose_last_client_a_confirmation_ends_is_forgotten() -> None:
    """The same where the source goes on elsewhere."""
    snapshots = FakeSnapshots()
    archive = FakeArchive()
    room = Room(archive, snapshots, linger=0)
    client = Client(room, queue=1).join("depth@A")
    room.source.confirm(after="4-0")
    room.source.publish("depth@A", depth(1), offsets=["5-0"])
    asked = len(snapshots.asked)
    client.outbox.stall()
    room.hub.publish("depth@A", depth(2), "6-0")
    room.hub.confirmed("depth@A", "9-0")
    assert client.ended
    room.clock.pump([1] * 200)
    assert len(snapshots.asked) == asked
    room.assert_empty()


@pytest.mark.parametrize("name", ["ticker@A", "depth@A"])
def test_what_was_heard_before_a_confirmation_is_no_state_behind_it(name: str) -> None:
    """Between the end of one subscription and the beginning of the next anything may have been missed."""
    snapshots = FakeSnapshots()
    room = Room(snapshots=snapshots)
    client = Client(room).join(name, wants_state=True)
    heard = ticker(1) if name == "ticker@A" else b'{"e":"depth","t":1,"a":[],"b":[["1","1"]],"snapshot":true}'
    room.source.publish(name, heard)
    room.source.confirm()
    assert client.take() == [["joined", name]]
    assert snapshots.asked == [name]
    assert Client(room).join(name, wants_state=True).take() == [["joined", name]]


def test_a_book_of_too_many_levels_is_not_given_out_and_is_said(logged: LogCapture) -> None:
    """Its publications go out as ever. The log has few lines, however many books there are."""
    room = Room(max_book_levels=2)
    names = [f"depth@M{number}" for number in range(30)]
    client = member(room, *names)
    for name in names:
        room.source.publish(name, depth(1, is_snapshot=True))
        for price in (b"2", b"3"):
            room.hub.publish(name, b'{"e":"depth","t":5,"a":[["%b","1"]],"b":[],"U":2,"u":2}' % price)
        room.hub.flush()
        assert Client(room).join(name, wants_state=True).take() == [["joined", name]]
        room.source.publish(name, depth(3, is_snapshot=True))
        assert Client(room).join(name, wants_state=True).take() == [["joined", name], (name, 3)]
    assert len(client.take()) == 4 * len(names)
    lines = [event for event in logged.events if str(event.get("log_format")).startswith("the book of")]
    assert (lines[0]["stream"], lines[0]["most"]) == ("depth@M0", 2)
    assert len(lines) == 10


@pytest.mark.parametrize("end", ["lost", "refused", "unwanted"])
def test_an_answer_behind_the_end_of_the_flow_is_nobodys(end: str) -> None:
    """What is found then may be old, and is looked for again when the stream flows again."""
    snapshots = FakeSnapshots()
    snapshots.late = True
    snapshots.states["ticker@A"] = ticker(7)
    room = Room(snapshots=snapshots, linger=0)
    client = Client(room).join("ticker@A", wants_state=True)
    room.source.confirm()
    match end:
        case "lost":
            room.source.lose(5)
        case "refused":
            room.source.refuse("ticker@A")
        case _:
            client.end()
            client = Client(room).join("ticker@A", wants_state=True)
    client.take()
    snapshots.answer()
    assert client.take() == []
    room.source.confirm()
    snapshots.answer()
    assert client.take()[-1] == ("ticker@A", 7)


def test_without_an_archive_each_confirmation_begins_an_epoch(room: Room) -> None:
    """What may have been missed makes every earlier offset void; while the source is lost, they hold."""
    client = member(room, "trade@A", shape=Shape.OFFSET)
    room.source.publish("trade@A", trade(1), trade(2))
    first, second = offsets(client)
    epoch = first.rpartition("-")[0]
    assert second == f"{epoch}-2"
    room.source.lose(5)
    during = Client(room).join("trade@A", since={"trade@A": first})
    assert during.recovered == {"trade@A": True}
    room.source.confirm()
    after = Client(room).join("trade@A", since={"trade@A": second})
    assert after.recovered == {"trade@A": False}
    client.outbox.writes.clear()
    room.source.publish("trade@A", trade(3))
    (third,) = offsets(client)
    assert third.rpartition("-")[2] == "1"
    assert third.rpartition("-")[0] != epoch
    room.hub.confirmed("trade@A")
    assert Client(room).join("trade@A", since={"trade@A": third}).recovered == {"trade@A": True}


@pytest.mark.parametrize("is_whole", [False, True])
def test_with_an_archive_a_confirmation_says_whether_anything_was_missed(is_whole: bool) -> None:
    """Where it goes on where it was, history and state go on; otherwise both begin anew."""
    archive = FakeArchive()
    archive.reached = False
    room = Room(archive)
    client = Client(room).join("depth@A", wants_state=True)
    room.source.confirm(after="4-0")
    room.source.publish("depth@A", depth(1, is_snapshot=True), depth(2), offsets=["5-0", "6-0"])
    heard = room.now_ms
    room.source.lose(5)
    room.clock.advance(2)
    room.source.confirm(after="6-0" if is_whole else "8-0")
    room.hub.flush()
    client.take()
    other = Client(room).join("depth@A", since={"depth@A": "5-0"})
    assert other.recovered == {"depth@A": is_whole}
    newcomer = Client(room).join("depth@A", wants_state=True)
    assert len(newcomer.outbox.messages) == (2 if is_whole else 1)
    room.hub.publish("depth@A", depth(4), "9-0")
    room.hub.flush()
    gap = ("gap", ["depth@A"], "sequence", heard, room.now_ms)
    assert client.take() == ([gap] if is_whole else []) + [("depth@A", 4)]


def test_a_source_that_has_to_skip_something_says_so_by_confirming_anew() -> None:
    """The stream flows on from elsewhere: its jump is told, and nothing from before can be resumed."""
    archive = FakeArchive()
    archive.reached = False
    room = Room(archive)
    client = Client(room).join("ticker@A", wants_state=True)
    room.source.confirm(after="4-0")
    room.source.publish("ticker@A", ticker(1), offsets=["5-0"])
    heard = room.now_ms
    room.clock.advance(2)
    client.take()
    room.hub.confirmed("ticker@A", "5-0")
    assert client.take() == []
    room.hub.confirmed("ticker@A", "9-0")
    assert client.take() == [("gap", ["ticker@A"], "sequence", heard, room.now_ms)]
    assert Client(room).join("ticker@A", since={"ticker@A": "5-0"}).recovered == {"ticker@A": False}
    assert Client(room).join("ticker@A", wants_state=True).take() == [["joined", "ticker@A"]]


def test_what_was_missed_unnoticed_makes_the_offsets_until_then_void() -> None:
    """The archive has all that is behind them, but nobody who comes with one was told what is missing before it."""
    archive = FakeArchive()
    room = Room(archive)
    client = Client(room).join("depth@A", wants_state=True)
    room.source.confirm(after="4-0")
    room.source.publish("depth@A", depth(1, is_snapshot=True), offsets=["5-0"])
    heard = room.now_ms
    room.clock.advance(2)
    for number in (7, 8):
        archive.add("depth@A", f"{number}-0", depth(number - 5))
        room.source.publish("depth@A", depth(number - 5), offsets=[f"{number}-0"])
    during = Client(room).join("depth@A", since={"depth@A": "7-0"})
    assert during.recovered == {"depth@A": True}
    for each in (client, during):
        each.take()
    room.hub.missed("depth@A", 2.0)
    gap = ("gap", ["depth@A"], "sequence", heard, room.now_ms)
    assert client.take() == during.take() == [gap]
    for offset in ("5-0", "7-0", "8-0"):
        later = Client(room).join("depth@A", since={"depth@A": offset})
        assert later.recovered == {"depth@A": offset == "8-0"}
    assert Client(room).join("depth@A", wants_state=True).take() == [["joined", "depth@A"]]
    room.hub.confirmed("depth@A", "2-0")  # ids were set back
    archive.add("depth@A", "3-0", depth(9))
    room.source.publish("depth@A", depth(9), offsets=["3-0"])
    assert Client(room).join("depth@A", since={"depth@A": "2-0"}).recovered == {"depth@A": True}


@pytest.mark.parametrize("how", ["missed", "confirmed"])
def test_what_a_quiet_stream_loses_is_told(how: str) -> None:
    """Nothing has come since it was confirmed: what the source says to have lost is part of no gap told before."""
    archive = FakeArchive()
    archive.reached = False
    room = Room(archive)
    client = Client(room).join("trade@A")
    room.source.confirm(after="4-0")
    known = room.now_ms
    client.take()
    for end in ("7-0", "9-0"):
        room.clock.advance(5)
        if how == "missed":
            room.hub.missed("trade@A", 5)
        else:
            room.hub.confirmed("trade@A", end)
        assert client.take() == [("gap", ["trade@A"], "sequence", known, room.now_ms)]
        known = room.now_ms


def test_bad_publications_are_passed_over(logged: LogCapture) -> None:
    """A client that comes back behind one has missed nothing by it."""
    archive = FakeArchive()
    archive.reached = False
    room = Room(archive)
    first = Client(room, shape=Shape.OFFSET).join("trade@A")
    room.source.confirm(after="4-0")
    first.take()
    room.source.publish("trade@A", trade(1), b"bad", trade(2), b"bad", offsets=["5-0", "6-0", "7-0", "8-0"])
    assert offsets(first) == ["5-0", "7-0"]
    for offset, missed in (("6-0", [2]), ("7-0", []), ("8-0", [])):
        client = Client(room).join("trade@A", since={"trade@A": offset})
        assert client.recovered == {"trade@A": True}
        assert [number for _, number in client.take()[1:]] == missed
    room.source.lose(5)
    room.source.confirm(after="8-0")
    assert Client(room).join("trade@A", since={"trade@A": "5-0"}).recovered == {"trade@A": True}


def test_what_is_discovered_is_kept_without_clients() -> None:
    """By its canonical name, once, and while there is room; whoever comes finds it flowing and its state ready."""
    room = Room(max_distinct_streams=2)
    for name in ("ticker@A", "ticker@A", "a@ticker", "nonsense", "other@A", "trade@A", "trade@B"):
        room.hub.discovered(name)
    assert room.hub.streams == {"ticker@A", "trade@A"}
    assert room.source.calls == [("want", "ticker@A"), ("want", "trade@A")]
    room.source.confirm()
    room.source.publish("ticker@A", ticker(1))
    client = Client(room).join("ticker@A", wants_state=True)
    assert client.take() == [["joined", "ticker@A"], ("ticker@A", 1)]
    client.end()
    room.clock.advance(LINGER)
    assert room.hub.streams == {"ticker@A", "trade@A"}
