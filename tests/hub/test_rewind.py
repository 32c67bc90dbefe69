"""The last publications before the live ones: what a client begins with, and what then comes, is what was published."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test

import marketfeed.hub.join
import marketfeed.hub.rewind
from marketfeed.hub.rewind import shares
from marketfeed.model.kinds import BUILT_IN
from marketfeed.model.streams import StreamKinds
from marketfeed.wire.dialects import Shape
from tests.fakes import FakeArchive
from tests.hub.test_resume import STREAM, ArchiveMachine, Reading, ResumeMachine
from tests.rooms import Client, Room, depth, member, ticker, trade
from tests.strategies import machine_test, property_test

A, B, T = "trade@A", "trade@B", "ticker@A"


def publish(room: Room, stream: str, *numbers: int, offsets: bool = False) -> None:
    make = ticker if stream.startswith("ticker") else trade
    room.source.publish(stream, *map(make, numbers), offsets=[f"{each}-0" for each in numbers] if offsets else ())


def archived(room: Room, archive: FakeArchive, stream: str, *numbers: int) -> None:
    """These are in the archive, and were published before the source began to deliver."""
    for number in numbers:
        archive.add(stream, f"{number}-0", trade(number))


# What there is.


@pytest.mark.parametrize("stream", [A, T])
def test_the_last_ones_come_behind_the_reply_and_before_the_live_ones(stream: str) -> None:
    """As many as were asked for; the others that watch the stream get nothing twice."""
    room = Room()
    other = member(room, stream)
    publish(room, stream, 1, 2, 3, 4)
    client = Client(room).join(stream, rewind=3)
    publish(room, stream, 5)
    assert client.take() == [["joined", stream], (stream, 2), (stream, 3), (stream, 4), (stream, 5)]
    assert client.rewound == {stream: 3}
    assert client.recovered is None
    assert other.take() == [(stream, number) for number in range(1, 6)]
    room.end(client, other)


def test_what_waits_for_its_flush_comes_once() -> None:
    """It is in the history, and the client was not there when it was published."""
    room = Room()
    other = member(room, A)
    room.hub.publish(A, trade(1))
    client = Client(room).join(A, rewind=9)
    room.hub.flush()
    assert client.take() == [["joined", A], (A, 1)]
    assert other.take() == [(A, 1)]
    room.end(client, other)


def test_of_a_stream_of_which_nothing_is_kept_nothing_comes() -> None:
    """And the reply says so."""
    room = Room()
    client = Client(room).join(A, B, rewind=9)
    room.source.confirm()
    assert client.take() == [["joined", A, B]]
    assert client.rewound == {A: 0, B: 0}
    room.end(client)


def test_each_stream_in_the_order_in_which_they_were_named() -> None:
    """Those with `since` are resumed, and not rewound."""
    room = Room()
    other = member(room, A, B, T, shape=Shape.OFFSET)
    for stream in (T, A, B):
        publish(room, stream, 1, 2, 3)
    offset = room.hub._registry.find(A).history.since(room.hub._registry.find(A).history.at(0))[1][0]  # type: ignore
    client = Client(room).join(B, A, T, since={A: offset}, rewind=2)
    assert client.take() == [["joined", B, A, T], (B, 2), (B, 3), (A, 3), (T, 2), (T, 3)]
    assert (client.recovered, client.rewound) == ({A: True}, {B: 2, T: 2})
    room.end(client, other)


def test_in_a_gap_the_last_ones_before_it_come_before_it() -> None:
    """After it there are none from before: nobody knows what there was in between."""
    room = Room()
    other = member(room, A)
    publish(room, A, 1, 2)
    room.source.lose(5)
    client = Client(room).join(A, rewind=1)
    assert [each[0] for each in client.take()] == ["joined", A, "gap"]
    room.source.confirm(A)
    publish(room, A, 3)
    late = Client(room).join(A, rewind=9)
    assert late.take() == [["joined", A], (A, 3)]
    room.end(client, other, late)


@pytest.mark.parametrize("rewind", [1, 5])
def test_a_state_comes_once(rewind: int) -> None:
    """The last publication of a ticker is its state; both were asked for."""
    room = Room()
    other = member(room, T)
    publish(room, T, 1, 2, 3)
    client = Client(room, shape=Shape.OFFSET).join(T, rewind=rewind, wants_state=True)
    numbers = [1, 2, 3][-rewind:]
    assert client.take() == [["joined", T], *[(T, number) for number in numbers]]
    assert client.rewound == {T: len(numbers)}
    room.end(client, other)


def test_a_state_comes_though_there_is_no_room_for_more() -> None:
    """What was asked for as state is not what may be left out."""
    room = Room()
    other = member(room, T)
    publish(room, T, 1, 2, 3)
    client = Client(room, queue=800).join(T, rewind=3, wants_state=True)
    got = client.take()
    assert got[-1] == (T, 3)
    assert client.rewound == {T: len(got) - 1}
    room.end(client, other)


def candle(number: int, *, closed: bool) -> bytes:
    fields = f'"t":{number},"T":{number},"i":"1m","o":"1","c":"1","h":"1","l":"1","v":"1","x":{str(closed).lower()}'
    return f'{{"e":"kline","t":{number},"s":"A","k":{{{fields}}}}}'.encode()


@pytest.mark.parametrize("wants_state", [False, True])
def test_of_candles_the_closed_ones(wants_state: bool) -> None:
    """The open one is the state, which everybody gets."""
    stream = "kline_1m@A"
    room = Room()
    other = member(room, stream)
    for number in range(1, 9):
        room.source.publish(stream, candle(number, closed=False), candle(number + 10, closed=True))
    room.source.publish(stream, candle(9, closed=False))
    client = Client(room).join(stream, rewind=3, wants_state=wants_state)
    expected = [(stream, 16), (stream, 17), (stream, 18), (stream, 9)]
    assert client.take() == [["joined", stream], *expected]
    assert client.rewound == {stream: 3}
    room.end(client, other)


def test_which_kinds_have_last_publications() -> None:
    """Not those of which one says nothing without those before it."""
    others = {"depth", "bookTicker", "depth5", "depth10", "depth20", "!miniTicker"}
    assert {kind.name for kind in BUILT_IN if not kind.is_rewound} == others


@pytest.mark.parametrize("spelling", ["a@trade", "a@aggTrade"])
def test_where_clients_of_other_exchanges_come(spelling: str) -> None:
    """The last publications are made good as those that follow them are."""
    room = Room(kinds=StreamKinds(rebuilds=True))
    early = Client(room, on_paths=True).join(spelling)
    room.source.confirm()
    publish(room, A, 1, 2)
    late = Client(room, on_paths=True).join(spelling, rewind=2)
    publish(room, A, 3)
    (_, *expected), (_, *got) = early.outbox.messages, late.outbox.messages
    assert got == expected
    assert len(got) == 3
    assert all("E" in message["data"] for message in got)
    room.end(early, late)


# Room.


def test_the_newest_that_fit() -> None:
    """In half of the queue, so that what is published next has room as well."""
    room = Room(history_bytes=1 << 20)
    other = member(room, A)
    publish(room, A, *range(1, 101))
    client = Client(room, queue=4000).join(A, rewind=100)
    got = client.take()[1:]
    assert got == [(A, number) for number in range(101 - len(got), 101)]
    assert client.rewound == {A: len(got)}
    assert 10 < len(got) < 30
    room.end(client, other)


def test_streams_share_the_room() -> None:
    """None takes it all because it was named first."""
    room = Room(history_bytes=1 << 20)
    other = member(room, A, B, T)
    publish(room, A, *range(1, 101))
    publish(room, B, *range(1, 101))
    publish(room, T, 1)
    client = Client(room, queue=4000).join(A, B, T, rewind=100)
    assert client.rewound is not None
    assert client.rewound[T] == 1
    assert client.rewound[A] == client.rewound[B] > 5
    room.end(client, other)


@property_test
@given(wanted=st.lists(st.integers(0, 50), max_size=8), room=st.integers(-5, 200))
def test_shares(wanted: list[int], room: int) -> None:
    """Nobody gets more than it wants, nor all together more than there is; who gets less gets as much as any other."""
    got = shares(wanted, room)
    assert all(share <= want for share, want in zip(got, wanted, strict=True))
    assert sum(got) <= max(0, room)
    short = [share for share, want in zip(got, wanted, strict=True) if share < want]
    if short:
        assert min(short) >= max(got) - 1
        assert sum(got) > room - len(wanted)
    else:
        assert got == wanted


# The archive.


def in_archive(*numbers: int, after: int, **archive: Any) -> tuple[Room, FakeArchive]:
    """A room whose source delivers from behind `after` on."""
    store = FakeArchive(**archive)
    room = Room(store)
    archived(room, store, A, *numbers)
    return room, store


def test_what_the_history_does_not_have_comes_from_the_archive() -> None:
    """Together as many as were asked for."""
    room, store = in_archive(1, 2, 3, 4, after=4)
    other = Client(room).join(A)
    room.source.confirm(A, after="4-0")
    store.add(A, "5-0", trade(5))
    publish(room, A, 5, offsets=True)
    client = Client(room, shape=Shape.OFFSET).join(A, rewind=3)
    assert client.take() == [["joined", A], (A, 3), (A, 4), (A, 5)]
    assert client.rewound == {A: 3}
    assert store.asked == [(A, 3, client.outbox.limit // 2)]
    room.end(client, other)


def test_what_is_there_is_not_asked_for() -> None:
    """The history has enough."""
    room, store = in_archive(1, 2, after=2)
    other = Client(room).join(A)
    room.source.confirm(A, after="2-0")
    publish(room, A, 3, 4, offsets=True)
    client = Client(room).join(A, rewind=2)
    assert client.take() == [["joined", A], (A, 3), (A, 4)]
    assert not store.asked
    room.end(client, other)


def test_what_comes_while_the_archive_answers() -> None:
    """Goes behind what it answers; of all of it the newest."""
    room, store = in_archive(1, 2, after=2)
    store.late = True
    other = Client(room).join(A)
    room.source.confirm(A, after="2-0")
    client = Client(room).join(A, rewind=3)
    for number in (3, 4):
        store.add(A, f"{number}-0", trade(number))
        publish(room, A, number, offsets=True)
    assert not client.take()
    store.answer()
    assert client.take() == [["joined", A], (A, 2), (A, 3), (A, 4)]
    assert client.rewound == {A: 3}
    room.end(client, other)


@pytest.mark.parametrize("fault", ["out of reach", "another past"])
def test_an_archive_that_is_of_no_use(fault: str) -> None:
    """The client gets what the history has."""
    room, store = in_archive(1, 2, after=2)
    other = Client(room).join(A)
    room.source.confirm(A, after="2-0")
    publish(room, A, 3, offsets=True)
    store.reached = fault == "another past"  # which has not got what was published last
    client = Client(room).join(A, rewind=9)
    assert client.take() == [["joined", A], (A, 3)]
    assert client.rewound == {A: 1}
    room.end(client, other)


def test_what_was_lost_unnoticed_is_not_passed_over_in_silence() -> None:
    """Before it nothing is rewound, though the archive has it: nobody would say what is missing in between."""
    room, store = in_archive(1, 2, after=2)
    other = Client(room).join(A)
    room.source.confirm(A, after="2-0")
    store.add(A, "3-0", trade(3))
    publish(room, A, 3, offsets=True)
    room.hub.missed(A, 1.0)
    store.add(A, "4-0", trade(4))
    publish(room, A, 4, offsets=True)
    client = Client(room).join(A, rewind=9)
    got = client.take()
    assert got == [["joined", A], (A, 3), (A, 4)]
    room.end(client, other)


# With a rate.


def test_with_a_rate_the_last_ones_come_at_once() -> None:
    """And what then comes, as seldom as was asked for."""
    room = Room()
    other = member(room, T)
    publish(room, T, 1, 2, 3, 4)
    slow = T + "@1000ms"
    client = Client(room).join(slow, rewind=3)
    assert client.take() == [["joined", slow], (slow, 2), (slow, 3), (slow, 4)]
    assert client.rewound == {slow: 3}
    publish(room, T, 5, 6, 7)
    assert client.take() == [(slow, 5)]
    room.clock.advance(1)
    assert client.take() == [(slow, 7)]
    room.end(client, other)


Acts = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(1, 3)),
        st.tuples(st.just("wait"), st.sampled_from((0.03, 0.1, 0.5, 1.0))),
        st.tuples(st.just("join"), st.integers(1, 6)),
    ),
    max_size=30,
)


@property_test
@given(Acts, st.sampled_from((100, 1000)))
def test_whenever_one_joins_with_a_rate(acts: list[tuple[str, Any]], rate: int) -> None:
    """It has the last ones, and then no more than one in so long, each the newest when it came; one that waited for
    that when it joined may be both.
    """
    room, name, count = Room(history=4), f"{T}@{rate}ms", 0
    clients = [member(room, T)]
    live: list[list[tuple[float, int]]] = []

    def read() -> None:
        for client, got in zip(clients[1:], live, strict=True):
            for each in client.take():
                number = each[1]
                assert number == count, "an old one"
                assert number >= got[-1][1]
                assert number > got[-1][1] or len(got) == 1, "twice, and not by the rewind"
                got.append((room.clock.seconds(), number))

    for act, much in acts:
        if act == "publish":
            for _ in range(much):
                count += 1
                publish(room, T, count)
                read()
        elif act == "wait":
            for _ in range(round(much / 0.01)):
                room.clock.advance(0.01)
                read()
        else:
            client = Client(room).join(name, rewind=much)
            first = max(0, count - min(much, 4)) + 1
            assert client.take() == [["joined", name], *[(name, number) for number in range(first, count + 1)]]
            assert client.rewound == {name: count + 1 - first}
            clients.append(client)
            live.append([(float("-inf"), count)])
    for _ in range(round(rate / 10) + 1):
        room.clock.advance(0.01)
        read()
    for got in live:
        assert got[-1][1] == count
        times = [at for at, _ in got[1:]]
        assert all(later - earlier > rate / 1000 * 0.89 for earlier, later in pairwise(times))
    room.end(*clients)


# Any sequence.


class Rewinding(Reading):
    """A client that begins with the last publications, and checks what it gets."""

    def __init__(self, machine: ResumeMachine, most: int, *, queue: int) -> None:
        super().__init__(machine, queue=queue)
        self.most = most
        self.has_little_room = queue < 10_000
        self.begin: int | None = None
        self.client.join(STREAM, rewind=most)

    def check(self) -> None:
        """What it has got is the end of what was published, and begins as the reply has said."""
        self.read()
        if not self.client.answers or self.client.ended:
            assert not self.got
            return
        machine = self.machine
        if self.begin is None:
            assert self.client.rewound is not None
            rewound = self.client.rewound[STREAM]
            self.begin = machine.got - len(self.got)
            assert rewound <= min(self.most, len(self.got))
            assert len(self.got) - rewound <= machine.fresh, "more than was said"
            assert rewound >= min(self.most, self._least()), "less than there is"
        assert self.got == machine.published[self.begin : machine.got]

    def _least(self) -> int:
        """How many there are for certain, of those before all that is new."""
        machine = self.machine
        if self.has_little_room or not machine.flows:
            return 0
        return min(machine.HISTORY, len(machine.published) - machine.begun) - machine.fresh


def in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each publication is framed in a turn of its own."""
    monkeypatch.setattr(marketfeed.hub.join, "_TOGETHER", 1)
    monkeypatch.setattr(marketfeed.hub.join, "_EACH_IN_US", 5000)
    monkeypatch.setattr(marketfeed.hub.rewind, "_LOOK_IN_US", 5000)


def test_what_is_published_while_the_last_ones_are_framed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Belongs to the last ones; those that are not any more are left out."""
    in_turns(monkeypatch)
    room = Room()
    other = member(room, A)
    publish(room, A, 1, 2, 3)
    client = Client(room).join(A, rewind=3)
    for number in range(4, 7):
        room.turn()
        publish(room, A, number)
    while not client.answers:
        room.turn()
    publish(room, A, 7)
    assert client.take() == [["joined", A], *[(A, number) for number in range(4, 8)]]
    assert client.rewound == {A: 3}
    room.end(client, other)


class RewindMachine(ResumeMachine):
    """Clients come back, and others come that want the last publications, of one process."""

    @rule(most=st.integers(1, 12), queue=st.sampled_from([1 << 20, 1 << 20, 1100]))
    def come_to_rewind(self, most: int, queue: int) -> None:
        self.clients.append(Rewinding(self, most, queue=queue))  # type: ignore[arg-type]


class ArchiveRewindMachine(ArchiveMachine):
    """The same with an archive that is trimmed, and answers when it likes."""

    @rule(most=st.integers(1, 12), queue=st.sampled_from([1 << 20, 1 << 20, 1100]))
    def come_to_rewind(self, most: int, queue: int) -> None:
        self.begun = len(self.published)  # nothing is certain
        self.clients.append(Rewinding(self, most, queue=queue))  # type: ignore[arg-type]


@pytest.mark.parametrize("machine", [RewindMachine, ArchiveRewindMachine])
@pytest.mark.parametrize("slowness", ["at once", "in turns"])
def test_what_was_published_and_nothing_else(
    machine: type[ResumeMachine], slowness: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever happens in between."""
    if slowness == "in turns":
        in_turns(monkeypatch)
    run_state_machine_as_test(machine, settings=machine_test(1.5, 40))


def test_books_are_not_rewound_and_stay_what_they_are() -> None:
    """One that is resumed beside streams that are rewound."""
    room = Room()
    other = member(room, "depth@A", A)
    room.source.publish("depth@A", depth(1, is_snapshot=True), depth(2))
    publish(room, A, 1, 2)
    stream: Any = room.hub._registry.find("depth@A")
    client = Client(room).join("depth@A", A, since={"depth@A": stream.history.at(1)}, rewind=1)
    assert client.take() == [["joined", "depth@A", A], ("depth@A", 2), (A, 2)]
    room.end(client, other)
