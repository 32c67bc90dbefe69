"""Clients on their way into streams: whole or not at all, each at the right moment, and nothing is left behind."""

from __future__ import annotations

import gc

import msgspec
import pytest

from marketfeed.boundaries import Entry, TooManyStreams
from marketfeed.hub.counted_history import CountedHistory
from marketfeed.hub.groups import Group
from marketfeed.hub.join import Join
from marketfeed.hub.readiness import CONFIRM_SECONDS
from marketfeed.wire.dialects import Shape
from tests.conftest import LogCapture
from tests.fakes import FakeArchive, FakeSnapshots, FakeSubscriber
from tests.rooms import KINDS, LINGER, Client, Room, depth, member, offsets, ticker, trade

STATE = {"wants_state": True}


def publish(room: Room, archive: FakeArchive, *numbers: int, stream: str = "trade@A") -> None:
    """The archive has what the source says."""
    for number in numbers:
        archive.add(stream, f"{number}-0", trade(number))
        room.source.publish(stream, trade(number), offsets=[f"{number}-0"])


class Archived(Room):
    """A room with an archive, and a ring of two, in which one stream has published 1 to 9."""

    def __init__(self, **archive: int) -> None:
        self.archive = FakeArchive(**archive)
        super().__init__(self.archive, history=2)
        self.first = member_behind(self, "0-0", "trade@A")
        publish(self, self.archive, *range(1, 10))
        self.first.take()

    def publish(self, *numbers: int) -> None:
        publish(self, self.archive, *numbers)

    def end(self, *clients: Client) -> None:
        super().end(self.first, *clients)


def member_behind(room: Room, after: str, *spellings: str) -> Client:
    client = Client(room).join(*spellings)
    room.source.confirm(after=after)
    client.take()
    return client


# State.


def test_the_state_comes_right_behind_the_reply_and_before_what_is_published_next(room: Room) -> None:
    """Of every stream that has one, and only for who asks for it; what was pending is in it already."""
    watches = member(room, "depth@A", "ticker@A", "trade@A")
    room.source.publish("depth@A", depth(1, is_snapshot=True))
    room.hub.publish("depth@A", depth(2))
    room.hub.publish("ticker@A", ticker(3))
    room.hub.publish("trade@A", trade(4))
    client = Client(room).join("depth@A", "ticker@A", "trade@A", wants_state=True)
    plain = Client(room).join("depth@A", "ticker@A")
    room.hub.publish("depth@A", depth(3))
    room.hub.flush()
    assert watches.take() == [("depth@A", 1), ("depth@A", 2), ("ticker@A", 3), ("trade@A", 4), ("depth@A", 3)]
    reply, book, *rest = client.outbox.messages
    assert reply == ["joined", "depth@A", "ticker@A", "trade@A"]
    assert (book["data"]["snapshot"], book["data"]["u"], book["data"]["b"]) == (True, 2, [["1", "2"]])
    assert [message["data"]["t"] for message in rest] == [3, 3]
    assert plain.take() == [["joined", "depth@A", "ticker@A"], ("depth@A", 3)]


def test_a_state_has_the_offset_of_what_is_in_it(room: Room) -> None:
    """A client that resumes from there gets what came behind it."""
    member(room, "ticker@A")
    room.source.publish("ticker@A", ticker(1), ticker(2))
    client = Client(room, shape=Shape.OFFSET).join("ticker@A", wants_state=True)
    (offset,) = offsets(client)
    room.source.publish("ticker@A", ticker(3))
    again = Client(room).join("ticker@A", since={"ticker@A": offset}, wants_state=True)
    assert again.recovered == {"ticker@A": True}
    assert again.take() == [["joined", "ticker@A"], ("ticker@A", 3)]


def test_no_state_is_sent_while_it_is_incomplete(room: Room) -> None:
    """An empty ticker, a book without a beginning: the reply alone."""
    client = Client(room).join("depth@A", "ticker@A", wants_state=True)
    room.source.confirm()
    room.source.publish("depth@A", depth(5))
    other = Client(room).join("depth@A", wants_state=True)
    assert client.take() == [["joined", "depth@A", "ticker@A"], ("depth@A", 5)]
    assert other.take() == [["joined", "depth@A"]]


@pytest.mark.parametrize("late", [False, True])
def test_states_that_do_not_fit_are_refused_whole(room: Room, late: bool) -> None:
    """The client is in none of the streams, and is answered: at once or, where it had to wait, then."""
    keeper = member(room, "ticker@A", "ticker@B")
    for name in ("ticker@A", "ticker@B"):
        room.source.publish(name, ticker(1))
    small = Client(room, queue=680)  # of which a reply may take 600
    small.join("ticker@A", "ticker@B", *(["trade@C"] if late else []), wants_state=True)
    room.source.confirm()
    assert "larger than --client-queue" in small.refusal
    assert (small.answers, small.settlings) == (0, late)
    assert small.take() == []
    small.join("ticker@A", wants_state=True)
    assert small.take() == [["joined", "ticker@A"], ("ticker@A", 1)]
    room.end(small, keeper)


def test_seeds_are_read_after_the_confirmation_and_waited_for() -> None:
    """What is published meanwhile is ordered against the seed; who wants no state does not wait for it."""
    snapshots = FakeSnapshots()
    snapshots.late = True
    snapshots.states["depth@A"] = depth(5, is_snapshot=True)
    room = Room(snapshots=snapshots)
    client, plain = Client(room).join("depth@A", wants_state=True), Client(room).join("depth@A")
    assert not snapshots.asked
    room.source.confirm()
    assert snapshots.asked == ["depth@A"]
    room.source.publish("depth@A", depth(6))
    assert client.take() == []
    assert plain.take() == [["joined", "depth@A"], ("depth@A", 6)]
    snapshots.answer()
    room.source.publish("depth@A", depth(7))
    reply, *messages = client.outbox.messages
    assert reply == ["joined", "depth@A"]
    assert [message["data"]["u"] for message in messages] == [6, 7]
    assert plain.take() == [("depth@A", 7)]
    assert not room.timers


def test_seeds_are_waited_for_only_so_long() -> None:
    """Then the client is in without its state, and gets it when it is found."""
    snapshots = FakeSnapshots()
    snapshots.late = True
    room = Room(snapshots=snapshots)
    client, plain = Client(room).join("ticker@A", wants_state=True), Client(room).join("ticker@A")
    room.source.confirm()
    room.clock.advance(CONFIRM_SECONDS)
    assert client.take() == plain.take() == [["joined", "ticker@A"]]
    assert (client.settlings, plain.settlings) == (1, 1)
    snapshots.states["ticker@A"] = ticker(7)
    snapshots.answer()
    assert client.take() == [("ticker@A", 7)]
    assert plain.take() == []


# Resume.


def test_what_was_missed_comes_instead_of_the_state(room: Room) -> None:
    """`recovered` is true: exactly what came behind the offset. False: the state, as for everybody else."""
    first = member(room, "ticker@A", "ticker@B", shape=Shape.OFFSET)
    for name in ("ticker@A", "ticker@B"):
        room.source.publish(name, ticker(1), ticker(2), ticker(3))
    known = offsets(first)[0]
    since = {"ticker@A": known, "ticker@B": "no-offset"}
    client = Client(room).join("ticker@A", "ticker@B", "ticker@C", since=since, wants_state=True)
    assert client.take() == []
    room.source.confirm()
    assert client.recovered == {"ticker@A": True, "ticker@B": False}
    assert client.take()[1:] == [("ticker@A", 2), ("ticker@A", 3), ("ticker@B", 3)]
    plain = Client(room).join("ticker@A", "ticker@B", since=since)
    assert plain.take()[1:] == [("ticker@A", 2), ("ticker@A", 3)]
    assert Client(room).join("ticker@A").recovered is None


def test_nothing_to_replay_is_recovered_too(room: Room) -> None:
    """Who was there to the end gets no state either: it has it."""
    first = member(room, "ticker@A", shape=Shape.OFFSET)
    room.source.publish("ticker@A", ticker(1))
    (latest,) = offsets(first)
    client = Client(room).join("ticker@A", since={"ticker@A": latest}, wants_state=True)
    assert client.recovered == {"ticker@A": True}
    assert client.take() == [["joined", "ticker@A"]]


def test_a_replay_is_framed_as_the_client_wants_it(room: Room) -> None:
    """Each publication under the offset that it had, in the client's spelling."""
    first = member(room, "trade@A", shape=Shape.OFFSET)
    room.source.publish("trade@A", *[trade(number) for number in range(4)])
    known = offsets(first)
    client = Client(room, shape=Shape.OFFSET).join("a@trade", since={"a@trade": known[0]})
    assert [message["stream"] for message in client.outbox.messages[1:]] == ["a@trade"] * 3
    assert offsets(client) == known[1:]


def test_a_replay_beyond_the_room_is_none(room: Room) -> None:
    """Never a part; several replays share the room, and the ones that fit are whole."""
    first = member(room, "trade@A", "trade@B", shape=Shape.OFFSET)
    room.source.publish("trade@A", *[trade(number) for number in range(10)])
    room.source.publish("trade@B", *[trade(number) for number in range(10)])
    known = offsets(first)
    since = {"trade@A": known[0], "trade@B": known[10]}
    size = 9 * (len(trade(1)) + 60)
    for room_for, expected in ((2 * size, [True, True]), (size, [True, False]), (size // 2, [False, False])):
        client = Client(room, queue=room_for + 650).join("trade@A", "trade@B", since=since)
        assert client.recovered is not None
        assert list(client.recovered.values()) == expected
        assert client.take()[1:] == [
            (name, n) for name, whole in zip(since, expected, strict=True) if whole for n in range(1, 10)
        ]


@pytest.mark.parametrize("window", [0, 15])
def test_what_was_missed_is_framed_a_portion_at_a_time(window: int) -> None:
    """Publications go on in between: all of it arrives once, in order, right behind the reply."""
    room = Room(history=5000)
    first = member(room, "trade@A", shape=Shape.OFFSET)
    room.source.publish("trade@A", *[trade(number) for number in range(4000)])
    since = {"trade@A": offsets(first)[0]}
    client = Client(room, window=window).join("trade@A", since=since)
    published, turns = 4000, 0
    while client.waiting is not None:
        assert not client.outbox.writes
        room.source.publish("trade@A", trade(published))
        published += 1
        room.turn()
        turns += 1
    assert turns > 3
    assert client.recovered == {"trade@A": True}
    assert client.take()[1:] == [("trade@A", number) for number in range(1, published)]
    assert not len(room.hub.portions)


def test_many_that_do_not_fit_are_not_put_together(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for much more than there is room for does not make us look at each publication of it."""
    names = [f"trade@M{number}" for number in range(40)]
    first = member(room, *names, shape=Shape.OFFSET, queue=1 << 24)
    for name in names:
        room.source.publish(name, *[trade(number) for number in range(300)])
    known = offsets(first)
    since = {name: known[300 * number] for number, name in enumerate(names)}
    looked_at = []
    listed = CountedHistory._entries

    def list_entries(history: CountedHistory, at: int) -> list[Entry]:
        looked_at.append(history)
        return listed(history, at)

    monkeypatch.setattr(CountedHistory, "_entries", list_entries)
    client = Client(room, queue=100_000).join(*names, since=since)
    while client.waiting is not None:
        room.turn()
    assert client.recovered is not None
    assert 0 < sum(client.recovered.values()) < 10
    assert len(looked_at) <= 2 * sum(client.recovered.values())


# With an archive.


@pytest.mark.parametrize("most", [1, 2, 100])
@pytest.mark.parametrize("late", [False, True])
def test_the_archive_and_the_ring_make_one_replay(most: int, late: bool) -> None:
    """Whatever the portions, and whatever is published between them, nothing is missing and nothing comes twice."""
    room = Archived(most=most)
    room.archive.late = late
    client = Client(room).join("trade@A", since={"trade@A": "3-0"}, wants_state=True)
    number = 9
    while late and room.archive.waiting:
        assert client.take() == []
        if number < 12:
            room.publish(number := number + 1)
        room.archive.answer(1)
    room.publish(20)
    assert client.recovered == {"trade@A": True}
    assert client.settlings == late
    assert client.take() == [["joined", "trade@A"], *[("trade@A", n) for n in (*range(4, number + 1), 20)]]
    room.end(client)


def test_a_recovery_that_falls_behind_while_others_are_made_is_taken_up_again() -> None:
    """Several streams are recovered one after the other; in the end all of them reach the ring at one moment."""
    room = Archived(most=2)
    other = member_behind(room, "0-0", "trade@B")
    publish(room, room.archive, *range(1, 10), stream="trade@B")
    room.archive.late = True
    client = Client(room).join("trade@A", "trade@B", since={"trade@A": "2-0", "trade@B": "2-0"})
    while room.archive.waiting and room.archive.asked[-1][0] == "trade@A":
        room.archive.answer(1)
    room.publish(10, 11, 12)
    room.archive.answer()
    assert client.recovered == {"trade@A": True, "trade@B": True}
    assert client.take()[1:] == [*[("trade@A", n) for n in range(3, 13)], *[("trade@B", n) for n in range(3, 10)]]
    room.end(client, other)


@pytest.mark.parametrize("answers", [0, 1, 2])
def test_a_client_that_goes_while_it_is_recovered_leaves_nothing(answers: int) -> None:
    """At whatever portion; the answer that comes later is nobody's."""
    room = Archived(most=1)
    room.archive.late = True
    client = Client(room).join("trade@A", since={"trade@A": "2-0"})
    for _ in range(answers):
        room.archive.answer(1)
    client.end()
    room.archive.answer()
    assert client.answers == 0
    assert len(room.archive.asked) == answers + 1
    room.end()


def test_a_fault_in_a_recovered_client_is_its_own(logged: LogCapture) -> None:
    """What its session raises then has no caller."""
    room = Archived()
    room.archive.late = True
    client = Client(room).join("trade@A", since={"trade@A": "2-0"})
    client.reply = lambda what, spellings: 1 // 0  # type: ignore[assignment, method-assign]
    room.archive.answer()
    assert client.outbox.failures == 1
    assert len(logged.flush_failures(ZeroDivisionError)) == 1
    room.end(client)


# Many streams.

MANY = [f"trade@M{number}" for number in range(250)]


def test_many_streams_are_asked_for_a_portion_at_a_time(room: Room) -> None:
    """Others are served between the portions, and the reply comes when all of them flow."""
    client = Client(room).join(*MANY)
    assert not room.source.wanted
    other = Client(room).join("trade@A")
    room.source.confirm()
    assert other.take() == [["joined", "trade@A"]]
    asked = []
    for _ in range(5):
        room.turn()
        asked.append(len(room.source.wanted) - 1)
        assert client.take() == []
        room.source.confirm()
    assert asked == [50, 100, 150, 200, 250]
    assert client.take() == [["joined", *MANY]]
    assert client.settlings == 1
    assert not room.timers


def test_many_who_wait_for_one_stream_go_on_a_portion_at_a_time(room: Room) -> None:
    """Some of them may have gone by then, and the stream may be lost again: that is told to those who come in then."""
    clients = [Client(room).join("trade@A") for _ in range(130)]
    room.source.confirm()
    assert [client.waiting is None for client in clients] == [True] * 50 + [False] * 80
    room.source.publish("trade@A", trade(1))
    clients[50].end()
    room.turn()
    assert sum(client.waiting is None for client in clients[51:]) == 50
    room.source.lose(5)
    room.turn()
    assert all(client.waiting is None for client in clients[51:])
    gap = ("gap", ["trade@A"], "source-down", 5, None)
    assert clients[0].take() == [["joined", "trade@A"], ("trade@A", 1), gap]
    assert clients[-1].take() == [["joined", "trade@A"], gap]
    room.end(*clients)


def test_a_portion_is_everybodys(room: Room) -> None:
    """Two clients with many streams wait for each other, not the reactor for both."""
    clients = [Client(room).join(*MANY[:150]), Client(room).join(*MANY[100:])]
    counts = []
    for _ in range(6):
        room.turn()
        counts.append(sum(len(client.waiting.streams) for client in clients if client.waiting is not None))
    assert counts == [50, 100, 150, 200, 250, 300]
    room.source.confirm()
    assert [len(client.groups) for client in clients] == [150, 150]


def test_many_streams_that_flow_already_are_answered_in_a_later_turn(room: Room) -> None:
    """Whoever must wait for nothing is told that its answer was late all the same."""
    member(room, *MANY[:101])
    for _ in range(3):
        room.turn()
    room.source.confirm()
    client = Client(room).join(*MANY[:101])
    for _ in range(3):
        assert client.take() == []
        room.turn()
    assert client.take() == [["joined", *MANY[:101]]]
    assert client.settlings == 1


def test_room_for_many_streams_is_set_aside() -> None:
    """Nobody takes it between the portions, and nobody is refused a stream that is there."""
    room = Room(max_distinct_streams=251)
    with pytest.raises(TooManyStreams):
        Client(room).join(*MANY, "trade@X", "trade@Y")
    client = Client(room).join(*MANY)
    room.turn()
    late = Client(room).join(MANY[0], MANY[249], "trade@X")
    with pytest.raises(TooManyStreams):
        Client(room).join("trade@Y")
    for _ in range(4):
        room.turn()
    room.source.confirm()
    assert len(client.groups) == 250
    assert len(late.groups) == 3
    client.end()
    late.end()
    room.clock.advance(0)
    room.clock.advance(LINGER)
    room.assert_empty()


@pytest.mark.parametrize("turns", range(6))
def test_a_client_with_many_streams_may_go_between_any_two_portions(turns: int) -> None:
    """All that it had, and all that was set aside, is given back; who comes behind it is served."""
    room = Room(max_distinct_streams=350)
    client, other = Client(room).join(*MANY), Client(room).join(*MANY[150:])
    for _ in range(turns):
        room.turn()
    client.end()
    for _ in range(8):
        room.turn()
    room.source.confirm()
    assert client.take() == []
    assert len(other.groups) == 100
    room.end(other)


def test_stopping_ends_what_is_taken_up_in_portions() -> None:
    """No turn is left over."""
    room = Room()
    client = Client(room).join(*MANY)
    room.turn()
    room.hub.stopService()
    assert not room.timers
    client.end()
    room.assert_empty()


def test_a_client_that_its_own_streams_end_leaves_nothing() -> None:
    """A source that confirms at once, and a state that is there at once: its flush may end the very client."""
    snapshots = FakeSnapshots()
    room = Room(snapshots=snapshots)
    client = member(room, "trade@A", queue=1)
    watcher = Client(room).join("ticker@M200", wants_state=True)
    watcher.end()
    room.clock.advance(LINGER)
    snapshots.states["ticker@M50"] = ticker(1)
    room.source.at_once = True
    client.join(*[f"ticker@M{number}" for number in range(150)])
    client.outbox.stall()
    room.hub.publish("trade@A", trade(1))
    room.turn()
    room.turn()
    assert client.outbox.overflows == 1
    room.clock.advance(LINGER)
    room.assert_empty()


def test_a_fault_in_the_flow_of_many_is_that_clients_own(room: Room, logged: LogCapture) -> None:
    """Its turn of the reactor takes up the next one all the same."""
    member(room, *MANY[:90])
    client, other = Client(room).join(*MANY[:90]), Client(room)
    assert client.groups
    streams = {spelling: KINDS.parse(spelling) for spelling in (*MANY[:90], *[f"m{n}@trade" for n in range(20)])}
    client.reply = lambda what, spellings: 1 // 0  # type: ignore[assignment, method-assign]
    room.hub.join(client.outbox, Shape.DATA, streams, client)
    other.join(*streams)
    for _ in range(5):
        room.turn()
    room.turn()
    assert client.outbox.failures == 1
    assert len(logged.flush_failures(ZeroDivisionError)) == 1
    assert len(other.groups) == 110
    assert msgspec.json.decode(other.outbox.texts[0])[0] == "joined"


# The gaps that are open, and clients that end on the way.


def test_the_open_gaps_follow_what_was_missed(room: Room) -> None:
    """One event for all streams of a gap, behind the reply and the replay."""
    first = member(room, "trade@A", "trade@B", "trade@C", shape=Shape.OFFSET)
    room.source.publish("trade@A", trade(1), trade(2))
    known = offsets(first)
    room.source.lose(5)
    room.source.refuse("trade@C")
    client = Client(room).join("trade@A", "trade@B", "trade@C", since={"trade@A": known[0]})
    assert client.take() == [
        ["joined", "trade@A", "trade@B", "trade@C"],
        ("trade@A", 2),
        ("gap", ["trade@A", "trade@B"], "source-down", 5, None),
        ("gap", ["trade@C"], "source-refused", 5, None),
    ]


def test_a_client_that_its_reply_or_a_gap_ends_is_written_no_more(room: Room) -> None:
    """Behind a close frame nothing is sent: no replay, no gap."""
    first = member(room, "trade@A", "trade@B", shape=Shape.OFFSET)
    room.source.publish("trade@A", trade(1), trade(2))
    known = offsets(first)
    room.source.lose(5)
    room.source.refuse("trade@B")
    for queue, late in ((1, 0), (60, 0), (150, 0)):
        client = Client(room, queue=queue)
        client.outbox.stall()
        client.join("trade@A", "trade@B", since={"trade@A": known[1]})
        assert (client.outbox.overflows, len(client.outbox.late)) == (1, late)
    room.end(first)


def test_a_client_that_the_flush_before_its_answer_ends_is_not_answered(room: Room) -> None:
    """What is pending goes out first, and may be one publication too many."""
    client = member(room, "trade@A", queue=1)
    client.join("trade@B")
    client.outbox.stall()
    room.hub.publish("trade@A", trade(1))
    room.source.confirm("trade@B")
    assert client.outbox.overflows == 1
    assert client.answers == client.settlings == 0
    room.clock.advance(LINGER)
    room.assert_empty()


def test_cancelling_what_is_finished_changes_nothing(room: Room) -> None:
    """The streams are the client's by then, and it leaves them as a member."""
    client = Client(room).join("trade@A")
    join = client.waiting
    assert join is not None
    room.source.confirm()
    room.hub.cancel(join)
    room.source.publish("trade@A", trade(1))
    assert client.take() == [["joined", "trade@A"], ("trade@A", 1)]


def ahead(room: Archived) -> Client:
    """A client who has had from another process what this one has not got yet."""
    for number in (10, 11):
        room.archive.add("trade@A", f"{number}-0", trade(number))
    return Client(room, shape=Shape.OFFSET).join("trade@A", since={"trade@A": "11-0"})


def test_who_is_ahead_of_the_history_is_waited_for() -> None:
    """What this process gets until then is no news to that client; what comes behind it is."""
    room = Archived()
    client = ahead(room)
    room.clock.advance(0.04)
    for number in (10, 11, 12):
        room.source.publish("trade@A", trade(number), offsets=[f"{number}-0"])
    assert not client.answers
    room.clock.advance(0.01)
    assert (client.recovered, offsets(client)) == ({"trade@A": True}, ["12-0"])
    room.end(client)


def joins() -> set[Join]:
    """All that there are in this process."""
    return {each for each in gc.get_objects() if isinstance(each, Join)}


def test_who_is_ahead_and_goes_leaves_no_timer() -> None:
    """The pause ends with the join."""
    room = Archived()
    before = joins()
    client = ahead(room)
    gc.collect()
    gc.disable()
    try:
        client.end()
        client.waiting = None
        assert joins() <= before, "a cycle keeps the join, and its client with it"
    finally:
        gc.enable()
    room.end()


def test_who_stays_ahead_has_not_recovered() -> None:
    """The source may be stalled: three seconds are enough for anything else."""
    room = Archived()
    client = ahead(room)
    room.clock.pump([0.05] * 70)
    assert client.recovered == {"trade@A": False}
    room.end(client)


# At the moment of the answer.


class Faulty:
    """A session that has a fault in what it does at one point of a join."""

    def __init__(self, point: str) -> None:
        self.point = point

    def _reach(self, point: str) -> None:
        if point == self.point:
            raise ZeroDivisionError("a fault in a session")

    def joined(
        self, groups: dict[str, Group], recovered: dict[str, bool] | None, rewound: dict[str, int] | None
    ) -> None:
        self._reach("joined")

    def refused(self, why: str) -> None:
        self._reach("refused")

    def settled(self) -> None:
        self._reach("settled")


def test_who_leaves_before_the_confirmation_leaves_nothing_behind(room: Room) -> None:
    """A cancelled join gives back its streams, its timer and its place."""
    client, other = Client(room).join("trade@A", "depth@A"), Client(room).join("trade@A")
    client.end()
    client.end()
    assert room.hub.streams == {"trade@A"}
    room.source.confirm("trade@A")
    assert client.take() == []
    assert other.take() == [["joined", "trade@A"]]
    room.end(other)


def test_a_server_at_its_limit_takes_all_of_a_request_or_nothing() -> None:
    """`--max-distinct-streams` counts streams that have clients; those that are there already cost nothing."""
    room = Room(max_distinct_streams=2)
    client = member(room, "trade@A")
    with pytest.raises(TooManyStreams):
        Client(room).join("trade@A", "trade@B", "trade@C")
    assert list(room.source.wanted) == ["trade@A"]
    other = Client(room).join("trade@A", "a@trade", "trade@B")
    with pytest.raises(TooManyStreams):
        Client(room).join("trade@C")
    room.end(client, other)


def test_who_joins_gets_what_comes_after_the_reply_and_nothing_before_it(room: Room) -> None:
    """Publications that arrived before the join are flushed to the others first."""
    first = member(room, "trade@A")
    room.hub.publish("trade@A", trade(1))
    second = Client(room).join("trade@A")
    room.hub.publish("trade@A", trade(2))
    room.hub.flush()
    assert first.take() == [("trade@A", 1), ("trade@A", 2)]
    assert second.take() == [["joined", "trade@A"], ("trade@A", 2)]


def test_a_join_that_need_not_wait_is_answered_before_it_returns(room: Room) -> None:
    """`settled` is for joins that were waited for; an empty one is no exception."""
    member(room, "trade@A")
    client = Client(room).join("trade@A")
    empty = Client(room).join()
    assert client.take() == [["joined", "trade@A"]]
    assert empty.take() == [["joined"]]
    assert client.settlings == empty.settlings == 0


def test_a_late_confirmation_is_not_waited_for(room: Room, logged: LogCapture) -> None:
    """After five seconds the client is answered, and told that nothing flows; the gap ends before a publication."""
    client = Client(room).join("trade@A", "depth@A")
    began = room.now_ms
    room.source.confirm("depth@A")
    room.clock.advance(CONFIRM_SECONDS - 0.1)
    assert client.take() == []
    room.clock.advance(0.1)
    gap = ("gap", ["trade@A"], "source-down", began)
    assert client.take() == [["joined", "trade@A", "depth@A"], (*gap, None)]
    assert client.settlings == 1
    room.clock.advance(2)
    room.hub.confirmed("trade@A")
    room.source.publish("trade@A", trade(1))
    assert client.take() == [(*gap, room.now_ms), ("trade@A", 1)]
    assert len([text for text in logged.formats() if text.startswith("no confirmation within")]) == 1


def test_a_client_that_is_ended_inside_its_join_can_leave_in_the_answer(room: Room) -> None:
    """The flush inside `join` may end the client before its session knows of the join: `answer` still gets groups."""
    member(room, "trade@B").end()
    client = member(room, "trade@A", queue=1)
    client.outbox.stall()
    room.hub.publish("trade@A", trade(1))
    client.join("trade@B")
    assert client.outbox.overflows == 1
    assert client.outbox.late == []
    room.clock.advance(LINGER)
    room.assert_empty()


@pytest.mark.parametrize("late", [False, True])
def test_a_fault_in_a_waiting_session_ends_that_client_only(room: Room, logged: LogCapture, late: bool) -> None:
    """What a session raises when its join completes does not reach the source, nor keep the others waiting."""
    streams = {"trade@A": KINDS.parse("trade@A")}
    broken, careless = [FakeSubscriber(), FakeSubscriber()], FakeSubscriber()
    room.hub.join(broken[0], Shape.ENVELOPE, streams, Faulty("joined"))
    room.hub.join(careless, Shape.ENVELOPE, streams, Faulty(""))
    room.hub.join(broken[1], Shape.ENVELOPE, streams, Faulty("settled"))
    healthy = Client(room).join("trade@A")
    if late:
        room.clock.advance(CONFIRM_SECONDS)
    else:
        room.source.confirm("trade@A")
    assert healthy.take()[0] == ["joined", "trade@A"]
    assert [subscriber.failures for subscriber in (*broken, careless)] == [1, 1, 0]
    assert len(logged.flush_failures(ZeroDivisionError)) == 1  # and one line more, when the second is over


def test_a_fault_in_a_session_that_need_not_wait_is_its_own(room: Room) -> None:
    """Inside `join` there is a caller to tell."""
    member(room, "trade@A")
    with pytest.raises(ZeroDivisionError):
        room.hub.join(FakeSubscriber(), Shape.ENVELOPE, {"trade@A": KINDS.parse("trade@A")}, Faulty("joined"))
