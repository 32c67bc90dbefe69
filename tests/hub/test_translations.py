"""Clients of two processes that hear the same server: whoever comes to the other one gets exactly what it missed.

The model is what the server has published. Each process hears it on a link of its own, where everything is late as the
test likes, and numbers it for itself; what they ask each other is under way as long as the test likes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from twisted.internet.defer import Deferred, succeed

from marketfeed.boundaries import Past, Pasts
from marketfeed.hub.counted_history import CountedHistory
from marketfeed.hub.translations import SECONDS
from marketfeed.wire.dialects import Shape
from tests.fakes import FakeSource
from tests.rooms import Client, Room, member, trade
from tests.strategies import machine_test

STREAM = "trade@A"
UNKNOWN = "0badc0de.7-7"
"""An offset that nobody has given."""


class Server:
    def __init__(self) -> None:
        self.published: list[bytes] = []


class Link(FakeSource):
    """One stream of a server, on a link on which everything is under way until the test lets it come."""

    def __init__(self, room: Room, server: Server) -> None:
        super().__init__(room.hub, room.source._now)
        self.server = server
        self.called = "server"
        self.on_its_way: deque[Callable[[], None]] = deque()
        self.waiting: list[Deferred[str | None]] = []
        self.is_up = False
        self.heard = 0  # how many had been published at the server before what comes next
        self.room = room
        self.places: dict[str, int] = {}  # of each offset: how many had been published up to there

    def caught_up(self, stream: str) -> Deferred[str | None]:
        if not self.is_up:
            return succeed(None)
        done = Deferred[str | None]()
        self.waiting.append(done)
        self.on_its_way.append(lambda: self._pong(done))
        return done

    def _pong(self, done: Deferred[str | None]) -> None:
        self.waiting.remove(done)
        done.callback(self.called)

    def connect(self) -> None:
        self.is_up = True
        begin = len(self.server.published)
        self.on_its_way.append(lambda: self._begin(begin))

    def _begin(self, begin: int) -> None:
        self.heard = begin
        self.confirm(STREAM)
        self._note()

    def hear(self, payload: bytes) -> None:
        if self.is_up:
            self.on_its_way.append(lambda: self._deliver(payload))

    def _deliver(self, payload: bytes) -> None:
        self.heard += 1
        self.room.hub.publish(STREAM, payload)
        self._note()
        self.room.hub.flush()

    def _note(self) -> None:
        live = self.room.hub._registry.find(STREAM)
        assert live is not None
        self.places[live.history.latest or ""] = self.heard

    def fail(self) -> None:
        """A publication is not passed on to all, though it was heard: the stream has another epoch."""
        if self.is_up and self.confirmed:
            live = self.room.hub._registry.find(STREAM)
            assert live is not None
            live.fail(None)
            self._note()

    def cut(self) -> None:
        self.is_up = False
        self.on_its_way.clear()
        waiting, self.waiting = self.waiting, []
        for each in waiting:
            each.callback(None)
        self.lose(5)

    def bring(self, count: int = 1 << 30) -> None:
        while self.on_its_way and count:
            count -= 1
            self.on_its_way.popleft()()


class Line:
    """What a process asks another one: the question is under way, and so is the answer."""

    def __init__(self, other: Pasts) -> None:
        self.other = other
        self.on_its_way: deque[Callable[[], None]] = deque()
        self.asked: list[list[tuple[str, str]]] = []

    def of(self, wanted: Sequence[tuple[str, str]]) -> Deferred[list[Past]]:
        self.asked.append(list(wanted))
        done = Deferred[list[Past]](lambda _: None)

        def answered(found: list[Past]) -> None:
            self.on_its_way.append(lambda: done.called or done.callback(found))

        self.on_its_way.append(lambda: self.other.of(wanted).addCallback(answered) and None)
        return done

    def bring(self) -> None:
        if self.on_its_way:
            self.on_its_way.popleft()()


class Process:
    """A hub that one client keeps at the stream."""

    def __init__(self, server: Server, **limits: Any) -> None:
        self.room = Room(**limits)
        self.link = Link(self.room, server)
        self.room.hub._upstream.source = self.link
        self.watcher = Client(self.room).join(STREAM)
        self.link.connect()
        self.line: Line

    def end(self) -> None:
        self.link.bring()
        self.room.clock.advance(SECONDS)
        self.room.hub.stopService()
        assert not self.room.clock.getDelayedCalls()


def pair(**limits: Any) -> tuple[Server, Process, Process]:
    """Two who are confirmed."""
    server = Server()
    one, other = Process(server, **limits), Process(server, **limits)
    for each, sibling in ((one, other), (other, one)):
        each.line = Line(sibling.room.hub.pasts)
        each.room.hub.ask(each.line)
        each.link.bring()
    return server, one, other


def publish(server: Server, processes: Sequence[Process], *payloads: bytes) -> None:
    for payload in payloads:
        server.published.append(payload)
        for each in processes:
            each.link.hear(payload)


def settle(*processes: Process) -> None:
    """All that is under way arrives."""
    for _ in range(8):
        for each in processes:
            each.link.bring()
            each.line.bring()
            each.room.turn()


class Comer:
    """A client with an offset, which had been given when so many publications had been published."""

    def __init__(self, to: Process, offset: str, place: int) -> None:
        self.to = to
        self.place = place
        self.client = Client(to.room, shape=Shape.OFFSET)
        self.client.join(STREAM, since={STREAM: offset})

    def check(self) -> None:
        """It misses nothing and gets nothing twice, if it is told so."""
        if self.client.recovered is None or not self.client.recovered[STREAM]:
            return
        got = [each for each in self.client.outbox.messages if isinstance(each, dict) and "data" in each]
        link = self.to.link
        if not link.is_up:
            return
        expected = link.server.published[self.place : link.heard]
        assert [int(each["data"]["t"]) for each in got] == [number_of(payload) for payload in expected]
        assert [link.places[each["offset"]] for each in got] == list(range(self.place + 1, link.heard + 1))


def number_of(payload: bytes) -> int:
    return int(payload.split(b'"t":')[1].split(b",")[0])


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.server, *self.processes = pair(history=5)
        self.comers: list[Comer] = []

    @rule(numbers=st.lists(st.integers(1, 2), min_size=1, max_size=4))
    def publish(self, numbers: list[int]) -> None:
        publish(self.server, self.processes, *map(trade, numbers))

    @rule()
    def publish_something_new(self) -> None:
        publish(self.server, self.processes, trade(100 + len(self.server.published)))

    @rule(at=st.integers(0, 1), count=st.integers(1, 4))
    def bring(self, at: int, count: int) -> None:
        self.processes[at].link.bring(count)

    @rule(at=st.integers(0, 1))
    def carry(self, at: int) -> None:
        self.processes[at].line.bring()

    @rule(at=st.integers(0, 1))
    def turn(self, at: int) -> None:
        self.processes[at].room.turn()

    @rule(at=st.integers(0, 1))
    def cut(self, at: int) -> None:
        process = self.processes[at]
        if process.link.is_up:
            for comer in self.comers:
                comer.check()
            for comer in [each for each in self.comers if each.to is process]:
                comer.client.end()
                self.comers.remove(comer)
            process.link.cut()

    @rule(at=st.integers(0, 1))
    def fail(self, at: int) -> None:
        self.processes[at].link.fail()

    @rule(at=st.integers(0, 1))
    def hurry(self, at: int) -> None:
        """All that this one has asked for is told; its own link may be as late as before."""
        one, other = self.processes[at], self.processes[1 - at]
        one.line.bring()
        other.link.bring()
        one.line.bring()

    @rule(at=st.integers(0, 1))
    def connect(self, at: int) -> None:
        if not self.processes[at].link.is_up:
            self.processes[at].link.connect()

    @precondition(lambda self: len(self.comers) < 8)
    @rule(at=st.integers(0, 1), back=st.integers(0, 9))
    def come(self, at: int, back: int) -> None:
        """With an offset of the other one's."""
        places = list(self.processes[1 - at].link.places.items())
        offset, place = places[max(0, len(places) - 1 - back)]
        self.comers.append(Comer(self.processes[at], offset, place))

    @rule()
    def time_passes(self) -> None:
        for process in self.processes:
            process.room.clock.advance(0.7)

    def teardown(self) -> None:
        settle(*self.processes)
        for comer in self.comers:
            comer.check()
        for process in self.processes:
            process.end()


def test_nobody_is_told_what_is_not_so() -> None:
    run_state_machine_as_test(Machine, settings=machine_test(0.5, 60))


def test_whoever_comes_gets_what_it_missed_also_what_comes_meanwhile() -> None:
    server, one, other = pair()
    publish(server, (one, other), *map(trade, range(1, 6)))
    settle(one, other)
    offset = next(offset for offset, place in one.link.places.items() if place == 3)
    comer = Comer(other, offset, 3)
    publish(server, (one, other), trade(6))
    settle(one, other)
    assert comer.client.recovered == {STREAM: True}
    comer.check()
    one.end()
    other.end()


def test_once_it_is_known_nobody_is_asked_any_more() -> None:
    server, one, other = pair()
    publish(server, (one, other), trade(1), trade(2))
    settle(one, other)
    comers = [Comer(other, offset, place) for offset, place in one.link.places.items()]
    settle(one, other)
    comers += [Comer(other, offset, place) for offset, place in one.link.places.items()]
    other.room.turn()
    for comer in comers:
        assert comer.client.recovered == {STREAM: True}
        comer.check()
    assert len(other.line.asked) == 1
    one.end()
    other.end()


def test_who_has_heard_more_than_this_process_gets_nothing_twice() -> None:
    """Also where it is known already how the two go together."""
    server, one, other = pair()
    Comer(other, next(iter(one.link.places)), 0)
    settle(one, other)
    publish(server, (one, other), trade(1))
    one.link.bring()
    comer = Comer(other, list(one.link.places)[-1], 1)
    assert comer.client.waiting is not None
    settle(one, other)
    assert comer.client.recovered == {STREAM: True}
    comer.check()
    one.end()
    other.end()


def test_one_that_does_not_answer_is_waited_for_so_long_and_no_longer() -> None:
    server, one, other = pair()
    publish(server, (one, other), trade(1))
    settle(one, other)
    offset = list(one.link.places)[-1]
    comers = [Comer(other, offset, 1), Comer(other, UNKNOWN, 1)]
    other.room.clock.advance(SECONDS - 0.01)
    assert [comer.client.recovered for comer in comers] == [None, None]
    other.room.clock.advance(0.01)
    other.room.turn()
    assert [comer.client.recovered for comer in comers] == [{STREAM: False}, {STREAM: False}]
    one.end()
    other.end()


def test_of_another_server_nothing_is_believed() -> None:
    """After a failover that only one of them has followed."""
    _, one, other = pair()
    one.link.called = "the old one"
    comer = Comer(other, next(iter(one.link.places)), 0)
    settle(one, other)
    assert comer.client.recovered == {STREAM: False}
    one.end()
    other.end()


def test_who_reads_by_other_rules_is_not_believed() -> None:
    server = Server()
    one, other = Process(server), Process(server, max_payload=1000)
    other.line = Line(one.room.hub.pasts)
    other.room.hub.ask(other.line)
    one.link.bring()
    other.link.bring()
    one.line = Line(other.room.hub.pasts)
    comer = Comer(other, next(iter(one.link.places)), 0)
    settle(one, other)
    assert comer.client.recovered == {STREAM: False}
    one.end()
    other.end()


def test_of_what_is_kept_no_longer_the_answer_is_no() -> None:
    server, one, other = pair(history=2)
    publish(server, (one, other), *map(trade, range(1, 6)))
    settle(one, other)
    comers = [Comer(other, offset, place) for offset, place in one.link.places.items()]
    settle(one, other)
    for comer in comers:
        assert comer.client.recovered == {STREAM: comer.place >= 3}
        comer.check()
    one.end()
    other.end()


def test_without_a_history_whoever_has_missed_nothing_goes_on() -> None:
    server, one, other = pair(history=0)
    publish(server, (one, other), trade(1))
    settle(one, other)
    comers = [Comer(other, offset, place) for offset, place in one.link.places.items()]
    settle(one, other)
    assert [comer.client.recovered for comer in comers] == [{STREAM: False}, {STREAM: True}]
    one.end()
    other.end()


@pytest.mark.parametrize("is_late", [0, 1])
def test_whoever_is_late_comes_up_first(is_late: int) -> None:
    """Otherwise what is the same again and again would be taken for what it is not; as it is, it may be anything."""
    server, one, other = pair()
    publish(server, (one, other), trade(7), trade(7), trade(7))
    (other, one)[is_late].link.bring()
    (one, other)[is_late].link.bring(1)
    offset, place = list(one.link.places.items())[-1]
    comer = Comer(other, offset, place)
    other.line.bring()
    one.link.bring(1 + is_late)
    other.line.bring()
    other.room.turn()
    assert comer.client.recovered is None
    settle(one, other)
    assert comer.client.recovered == {STREAM: not is_late}
    comer.check()
    one.end()
    other.end()


@pytest.mark.parametrize("anew", [0, 1])
@pytest.mark.parametrize("step", range(4))
def test_an_epoch_that_ends_meanwhile_is_good_for_nothing(anew: int, step: int) -> None:
    """Without any loss of the link. What was said of it before it ended stays true."""
    server, one, other = pair()
    publish(server, (one, other), trade(7), trade(7))
    settle(one, other)
    offset, place = next(iter(one.link.places.items()))
    steps: list[Callable[[], object]] = [other.line.bring, one.link.bring, other.line.bring, other.link.bring]
    comer = Comer(other, offset, place)
    for number, act in enumerate(steps):
        if number == step:
            (one, other)[anew].link.fail()
        act()
    settle(one, other)
    assert comer.client.recovered == {STREAM: anew == 0 and step >= 2}
    comer.check()
    one.end()
    other.end()


def test_what_was_known_of_an_own_epoch_is_gone_with_it() -> None:
    server, one, other = pair()
    publish(server, (one, other), trade(1), trade(2))
    settle(one, other)
    first = Comer(other, list(one.link.places)[1], 1)
    settle(one, other)
    assert first.client.recovered == {STREAM: True}
    other.link.fail()
    publish(server, (one, other), trade(3))
    settle(one, other)
    comers = [Comer(other, offset, place) for offset, place in one.link.places.items()]
    settle(one, other)
    assert [comer.client.recovered for comer in comers] == [{STREAM: comer.place >= 2} for comer in comers]
    for comer in comers:
        comer.check()
    one.end()
    other.end()


def test_one_that_begins_anew_meanwhile_knows_nothing() -> None:
    for lost in (0, 1):
        _, *both = pair()
        one, other = both
        comer = Comer(other, next(iter(one.link.places)), 0)
        other.line.bring()
        both[lost].link.cut()
        both[lost].link.connect()
        settle(one, other)
        assert comer.client.recovered == {STREAM: False}
        one.end()
        other.end()


def test_a_client_that_goes_while_it_waits_leaves_nothing() -> None:
    _, one, other = pair()
    comer = Comer(other, next(iter(one.link.places)), 0)
    comer.client.end()
    settle(one, other)
    assert comer.client.recovered is None
    other.watcher.end()
    one.end()
    other.end()


def test_the_end_of_the_hub_is_the_end_of_who_waits() -> None:
    _, one, other = pair()
    comer = Comer(other, next(iter(one.link.places)), 0)
    other.room.hub.stopService()
    assert comer.client.recovered is None
    assert not other.room.clock.getDelayedCalls()
    one.end()


def test_what_is_no_offset_is_not_asked_for() -> None:
    """Nor one of an archive's."""
    _, one, other = pair()
    for text in (
        "",
        "-",
        "-1",
        "of another daemon",
        "0badc0de.7-",
        "0badc0de.7-b",
        "1-9",
        "0badc0de.7-²",
        "0BADC0DE.7-7",
    ):
        Comer(other, text, 0)
    Comer(other, f"0badc0de.{'7' * 17}-7", 0)
    Comer(other, f"0badc0de.7-{'7' * 21}", 0)
    assert not other.line.asked
    one.end()
    other.end()


def test_who_invents_offsets_pays_and_makes_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even with what a sibling's offsets begin with."""
    server, one, other = pair()
    publish(server, (one, other), trade(1))
    settle(one, other)
    monkeypatch.setattr("marketfeed.hub.counted_history.digest", None)
    comer = Comer(other, f"{one.room.hub.epochs}.fff-1", 1)
    assert comer.client.waiting is not None
    assert comer.client.waiting.written == 32 * 16
    other.line.bring()
    assert not one.link.waiting, "Redis is not asked either"
    settle(one, other)
    assert comer.client.recovered == {STREAM: False}
    one.end()
    other.end()


def test_for_what_nobody_waits_any_more_nobody_is_asked() -> None:
    """Those who come after it are not behind all that was wanted before."""
    room = Room(linger=0)
    line = Line(room.hub.pasts)
    room.hub.ask(line)
    clients = []
    for first in range(0, 900, 90):
        streams = [f"trade@S{number}" for number in range(first, first + 90)]
        clients.append(Client(room).join(*streams, since=dict.fromkeys(streams, UNKNOWN)))
    room.source.confirm()
    room.clock.advance(SECONDS - 0.1)
    last = Client(room).join(STREAM, since={STREAM: UNKNOWN})
    room.source.confirm()
    room.clock.advance(0.1)
    assert all(client.recovered is not None for client in clients)
    assert line.asked[-1] == [(STREAM, UNKNOWN[:10])]
    line.bring()
    for _ in range(4):
        line.bring()
        room.turn()
    assert last.recovered == {STREAM: False}
    assert len(line.asked) == 2


def test_many_streams_are_asked_for_a_portion_at_a_time() -> None:
    room = Room()
    line = Line(room.hub.pasts)
    room.hub.ask(line)
    streams = [f"trade@S{number}" for number in range(450)]
    member(room, *streams[:90])
    client = Client(room).join(*streams, since=dict.fromkeys(streams, UNKNOWN))
    while client.waiting is not None:
        room.source.confirm()
        line.bring()
        room.turn()
    assert [len(asked) for asked in line.asked] == [200, 200, 50]
    assert client.recovered == dict.fromkeys(streams, False)


def test_a_history_tells_the_digests_of_what_it_keeps() -> None:
    room = Room(history=3)
    member(room, STREAM)
    history = room.hub._registry.find(STREAM).history  # type: ignore[union-attr]
    assert isinstance(history, CountedHistory)
    assert history.newest_digests(9) == []
    room.source.publish(STREAM, *map(trade, (1, 2, 3, 4, 2)))
    digests = history.newest_digests(9)
    assert len(digests) == 3
    assert digests[-2:] == history.newest_digests(2)
    assert len(set(digests)) == 3
