"""The streams that are wanted: for how long, for whose sake, and how many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock

import marketfeed.hub.registry
from marketfeed.boundaries import TooManyStreams
from marketfeed.hub.registry import StreamRegistry
from marketfeed.hub.stream import LiveStream
from marketfeed.model.streams import StreamKinds, StreamName
from tests.fakes import FakeSource, make_stream
from tests.rooms import LINGER, Room, member
from tests.strategies import machine_test


class Strict(Clock):
    """A clock that takes no time in the past, as reactors do not."""

    def callLater(self, delay: float, callable: Callable[..., object], *args: object, **kw: object) -> IDelayedCall:
        assert delay >= 0
        return super().callLater(delay, callable, *args, **kw)


def names(*markets: str) -> list[StreamName]:
    return [StreamKinds().parse(f"trade@{market}") for market in markets]


class Wanted:
    """Wanted streams with a source that says nothing, and what was dropped."""

    def __init__(self, *, linger: float = LINGER, most: int = 100, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.dropped: list[str] = []
        self.seconds_to_drop = 0.0
        self.source = FakeSource()
        self.streams = StreamRegistry(self.clock, linger, most, self)
        self.streams.open()

    def make(self, name: StreamName, key: str) -> LiveStream:
        return make_stream(key)

    def want(self, stream: LiveStream) -> None:
        self.source.want(stream.name)

    def unwant(self, stream: LiveStream) -> None:
        self.source.unwant(stream.name)
        self.dropped.append(stream.name)
        self.clock.rightNow += self.seconds_to_drop

    def reserve(self, *markets: str) -> bool:
        """Whether there was room for all of them."""
        try:
            self.streams.reserve(names(*markets))
        except TooManyStreams:
            return False
        return True

    def hold(self, *markets: str) -> list[LiveStream]:
        return [self.streams.hold(name) for name in names(*markets)]

    def release(self, *streams: LiveStream) -> None:
        for stream in streams:
            self.streams.release(stream)


def test_a_stream_is_wanted_from_its_first_holder_on() -> None:
    """The second one finds the same stream, and the source is not asked again."""
    wanted = Wanted()
    (first,), (second,) = wanted.hold("A"), wanted.hold("A")
    assert first is second is wanted.streams.find("trade@A")
    assert wanted.streams.find("trade@B") is None
    assert wanted.source.calls == [("want", "trade@A")]
    assert first.holders == 2
    assert wanted.streams.in_use == {"trade@A"}


def test_a_stream_lingers_from_its_last_release_on() -> None:
    """Whoever comes back in time keeps it, and its time begins anew."""
    wanted = Wanted()
    (stream,) = wanted.hold("A")
    wanted.release(stream)
    assert not wanted.streams.in_use
    assert list(wanted.streams.all) == [stream]
    wanted.clock.advance(LINGER - 0.1)
    assert wanted.hold("A") == [stream]
    wanted.clock.advance(LINGER - 0.1)
    wanted.release(stream)
    wanted.clock.advance(LINGER - 0.1)
    assert wanted.streams.find("trade@A") is stream
    wanted.clock.advance(0.1)
    assert wanted.source.calls == [("want", "trade@A"), ("unwant", "trade@A")]
    assert wanted.dropped == ["trade@A"]
    assert not wanted.clock.getDelayedCalls()


def test_each_stream_lingers_its_own_time() -> None:
    """There is one timer for all, set for the oldest."""
    wanted = Wanted()
    first, second = wanted.hold("A", "B")
    wanted.release(first)
    wanted.clock.advance(2)
    wanted.release(second)
    assert len(wanted.clock.getDelayedCalls()) == 1
    wanted.clock.advance(3)
    assert wanted.dropped == ["trade@A"]
    wanted.clock.advance(1.9)
    assert wanted.dropped == ["trade@A"]
    wanted.clock.advance(0.1)
    assert wanted.dropped == ["trade@A", "trade@B"]


def test_a_clock_that_goes_on_while_streams_are_dropped_is_no_fault() -> None:
    """The time of the next stream may come while the one before it is dropped: then it is due at once."""
    clock = Strict()
    wanted = Wanted(clock=clock)
    first, second = wanted.hold("A", "B")
    wanted.release(first)
    clock.advance(0.3)
    wanted.release(second)
    wanted.seconds_to_drop = 0.5
    clock.advance(LINGER - 0.3)
    clock.advance(0)
    assert wanted.dropped == ["trade@A", "trade@B"]
    assert not clock.getDelayedCalls()


@pytest.mark.parametrize("linger", [0.0, LINGER])
def test_before_it_is_open_and_after_it_is_closed_nothing_lingers(linger: float) -> None:
    """Closing drops what lingers, keeps what is held, and leaves no timer."""
    wanted = Wanted(linger=linger)
    stays, goes = wanted.hold("A", "B")
    wanted.release(goes)
    assert wanted.dropped == ([] if linger else ["trade@B"])
    wanted.streams.close()
    assert wanted.dropped == ["trade@B"]
    assert not wanted.clock.getDelayedCalls()
    wanted.release(stays)
    assert wanted.dropped == ["trade@B", "trade@A"]
    assert not wanted.clock.getDelayedCalls()


def test_what_lingers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither more than so many linger, nor any that would be one more than is allowed."""
    monkeypatch.setattr(marketfeed.hub.registry, "_MOST_LINGERING", 2)
    wanted = Wanted()
    wanted.release(*wanted.hold("A", "B", "C"))
    assert wanted.dropped == ["trade@C"]
    small = Wanted(most=1)
    small.release(*small.hold("A"))
    small.release(*small.hold("B"))
    assert small.dropped == ["trade@B"]


def test_one_stream_by_itself_is_held_only_where_there_is_room() -> None:
    """It is a holder like others, and nothing stays set aside."""
    wanted = Wanted(most=1)
    (name, other) = names("A", "B")
    stream = wanted.streams.hold_if_room(name)
    assert stream is not None
    assert wanted.streams.hold_if_room(other) is None
    assert wanted.streams.hold_if_room(name) is stream
    assert stream.holders == 2
    wanted.release(stream, stream)
    assert wanted.streams.hold_if_room(other) is not None


class WantedMachine(RuleBasedStateMachine):
    """Against a model of counters: who holds what, and for what room is set aside."""

    MOST = 3

    def __init__(self) -> None:
        super().__init__()
        self.wanted = Wanted(most=self.MOST)
        self.holders: Counter[str] = Counter()
        self.reserved: Counter[str] = Counter()

    markets = st.sampled_from("ABCDEF")

    @rule(asked=st.lists(markets, max_size=3))
    def reserve(self, asked: list[str]) -> None:
        has_room = len({*self.holders, *self.reserved, *asked}) <= self.MOST
        assert self.wanted.reserve(*asked) == has_room
        if has_room:
            self.reserved.update(asked)

    @rule(market=markets, takes=st.booleans())
    def settle(self, market: str, takes: bool) -> None:
        if self.reserved[market]:
            if takes:
                self.wanted.hold(market)
                self.holders[market] += 1
            self.wanted.streams.unreserve(*names(market))
            self.reserved -= Counter(market)

    @rule(market=markets)
    def release(self, market: str) -> None:
        if self.holders[market]:
            stream = self.wanted.streams.find(f"trade@{market}")
            assert stream is not None
            self.wanted.release(stream)
            self.holders -= Counter(market)

    @rule(seconds=st.sampled_from([1.0, 3.0]))
    def wait(self, seconds: float) -> None:
        self.wanted.clock.advance(seconds)

    @invariant()
    def as_the_model_has_it(self) -> None:
        self.holders, self.reserved = +self.holders, +self.reserved
        assert self.wanted.streams.in_use == {f"trade@{market}" for market in self.holders}
        assert self.wanted.streams.in_use <= set(self.wanted.source.wanted)


def test_holders_and_room_beside_counters() -> None:
    """Whatever is set aside, taken, given back and released: never more than is allowed, and never less."""
    run_state_machine_as_test(WantedMachine, settings=machine_test(1, 30))


def test_many_that_are_released_at_once_are_taken_up_in_portions(room: Room) -> None:
    """Everybody else is served between them; the client is out of all of them at once."""
    many = [f"trade@M{number}" for number in range(250)]
    client = member(room, *many[:100])
    for start in (100, 200):
        client.join(*many[start : start + 100])
        room.source.confirm()
    client.unsubscribe(*many)
    assert not client.groups
    in_use = [len(room.hub.streams)]
    while len(room.hub.streams):
        room.turn()
        in_use.append(len(room.hub.streams))
    assert in_use == [250, 150, 50, 0]
    assert set(room.source.wanted) == set(many)
    room.clock.advance(LINGER)
    room.assert_empty()


def test_what_is_being_released_when_it_ends_is_released(room: Room) -> None:
    """And no turn of it is left over."""
    many = [f"trade@M{number}" for number in range(101)]
    client = member(room, *many[:100])
    client.join(many[100])
    room.source.confirm()
    client.end()
    room.hub.stopService()
    room.assert_empty()
