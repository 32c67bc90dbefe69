"""Streams on several servers: each is wanted from the one that has it, whatever moves where."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed

from marketfeed.boundaries import Sink, Source, Subscriber
from marketfeed.redis.routed_source import RoutedSource
from marketfeed.redis.stream_reads import Away, Reading
from marketfeed.redis.topology import Node
from tests.fakes import FakeSnapshots
from tests.redis.test_topology import FakeTopology, node
from tests.strategies import machine_test

A, B, C = "trade@A", "trade@B", "trade@C"
NOW = 1_700_000_000
GOOD = 5_000
"""When each server was last good, in ms; later for each that was made."""


class Heard:
    """What the sink was told of streams; `ended` is called for each that is lost."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.ends: list[Any] = []

    def publish(self, stream: str, payload: bytes, offset: str | None = None) -> None: ...
    def flush(self) -> None: ...
    def behind(self) -> list[Subscriber]:
        return []

    def confirmed(self, stream: str, after: str | None = None) -> None: ...
    def missed(self, stream: str, seconds: float) -> None: ...
    def discovered(self, stream: str) -> None: ...
    def refused(self, stream: str, why: str) -> None: ...

    def reached(self, link: str) -> None:
        self.events.append(("reached", link))

    def lost(self, since: int, streams: Collection[str], link: str) -> None:
        self.events.append(("lost", since, sorted(streams), link))
        ends, self.ends = self.ends, []
        for end in ends:
            end()

    def take(self) -> list[tuple[Any, ...]]:
        events, self.events = self.events, []
        return events


class ServerSource(Service):
    """What delivers from one server. With `keeps` its streams have positions."""

    def __init__(self, of: Node, good_at: int, *, keeps: bool) -> None:
        self.of = of
        self.called = of.name
        self.good_at = good_at
        self.keeps = keeps
        self.down_since: int | None = None
        self.streams: dict[str, Reading] = {}
        self.late: Deferred[bool] | None = None

    def want(self, stream: str, position: Reading | None = None) -> int | None:
        assert stream not in self.streams, "it is wanted twice"
        self.streams[stream] = position or Reading(stream, stream.encode())
        return self.down_since

    def unwant(self, stream: str) -> Reading | None:
        position = self.streams.pop(stream)
        return position if self.keeps else None

    @property
    def server(self) -> str:
        return f"at {self.called}"

    def catch_up(self, stream: str) -> Deferred[bool]:
        return self.late or succeed(stream in self.streams)


class World:
    def __init__(self, owners: dict[bytes, Node], *, keeps: bool = False, prefix: str = "") -> None:
        self.topology = FakeTopology(owners)
        self.heard = Heard()
        self.made = 0
        self.keeps = keeps
        self.snapshots = FakeSnapshots()
        make: Any = self.make
        self.source = RoutedSource(
            self.topology, make, self.heard, prefix, lambda: float(NOW), snapshots=self.snapshots
        )
        self.source.startService()

    def make(self, of: Node) -> ServerSource:
        self.made += 1
        return ServerSource(of, GOOD * self.made, keeps=self.keeps)

    def at(self, of: Node) -> ServerSource:
        source: Any = self.source.at(of)
        assert isinstance(source, ServerSource)
        return source


if TYPE_CHECKING:
    _sink: Sink = Heard()
    _source: Source = World({}).source


def test_each_stream_is_wanted_from_the_server_that_has_it() -> None:
    a, b = node("a"), node("b")
    world = World({b"md:trade@A": a, b"md:trade@B": b}, prefix="md:")
    assert world.source.want(A) is None
    world.at(b).down_since = 7
    assert world.source.want(B) == 7
    assert (list(world.at(a).streams), list(world.at(b).streams)) == ([A], [B])
    world.source.unwant(A)
    assert not world.at(a).streams
    assert not world.heard.events


def test_what_moves_is_lost_from_when_its_server_was_last_good() -> None:
    """Only that; a server that has nothing any more is no concern of anybody's."""
    a, b = node("a"), node("b")
    world = World({A.encode(): a, B.encode(): b})
    for stream in (A, B):
        world.source.want(stream)
    world.topology.change({A.encode(): b, B.encode(): b})
    assert world.heard.take() == [("lost", GOOD, [A], ""), ("reached", "redis a")]
    assert list(world.at(b).streams) == [B, A]


def test_what_moves_to_a_server_that_is_away_is_out_of_reach() -> None:
    """Since it was good where it was, however long that server has been away."""
    a, b = node("a"), node("b")
    world = World({A.encode(): a, B.encode(): b}, keeps=True)
    world.at(b).down_since = 9
    world.source.want(A)
    world.topology.change({A.encode(): b, B.encode(): a})
    assert world.heard.take() == [("lost", GOOD, [A], "")]


def test_what_nobody_had_before_it_moved_was_good_before_that() -> None:
    """As the server knows that had it; not since that server itself was good."""
    a, b = node("a"), node("b")
    world = World({A.encode(): a, B.encode(): b}, keeps=True)
    world.at(b).down_since = 9
    world.source.want(A)
    world.at(a).streams[A].away = Away(GOOD - 7, 0.0)
    world.topology.change({A.encode(): b, B.encode(): a})
    assert world.heard.take() == [("lost", GOOD - 7, [A], "")]


def test_a_position_goes_with_its_stream() -> None:
    """So nothing is lost; not even where no server has the stream for a while, which it is told of."""
    a, b = node("a"), node("b")
    world = World({A.encode(): a, B.encode(): b}, keeps=True)
    world.source.want(A)
    position = world.at(a).streams[A]
    world.topology.change({A.encode(): b, B.encode(): a})
    assert world.at(b).streams == {A: position}
    assert world.heard.take() == []
    world.topology.change({B.encode(): a})
    assert world.heard.take() == [("lost", 2 * GOOD, [A], ""), ("reached", "redis b")]
    world.topology.change({A.encode(): a, B.encode(): a})
    assert world.at(a).streams == {A: position}


def test_what_no_server_has() -> None:
    """Is out of reach at once, unless nobody has said yet where things are."""
    a = node("a")
    world = World({})
    assert world.source.want(A) == NOW * 1000
    world.topology.is_known = False
    assert world.source.want(B) is None
    world.source.unwant(B)
    world.topology.change({A.encode(): a})
    assert list(world.at(a).streams) == [A]
    assert not world.heard.events


def test_a_loss_may_end_whoever_wanted_it() -> None:
    """And somebody else may want it in the same moment."""
    a, b = node("a"), node("b")
    world = World({A.encode(): a, B.encode(): a, C.encode(): a})
    for stream in (A, B, C):
        world.source.want(stream)
    world.heard.ends = [lambda: world.source.unwant(A), lambda: (world.source.unwant(B), world.source.want(B))]
    world.topology.change({A.encode(): b, B.encode(): b, C.encode(): b})
    assert sorted(world.at(b).streams) == [B, C]


def test_a_state_is_given_when_its_server_has_caught_up() -> None:
    a = node("a")
    world = World({A.encode(): a})
    world.snapshots.states = {A: b"1", B: b"2"}
    world.source.want(A)
    given: list[bytes | None] = []
    assert world.source.snapshots is not None
    for stream in (A, B):
        world.source.snapshots.read(stream).addCallback(given.append)
    assert given == [b"1", None]


STREAMS = [f"trade@{number}" for number in range(6)]
NODES = [node(name) for name in "abc"]


class Moves(RuleBasedStateMachine):
    """Wishes and moves in any order."""

    @initialize(keeps=st.booleans())
    def begin(self, keeps: bool) -> None:
        self.world = World({}, keeps=keeps)
        self.wanted: set[str] = set()

    @rule(stream=st.sampled_from(STREAMS))
    def want(self, stream: str) -> None:
        if stream not in self.wanted:
            self.wanted.add(stream)
            self.world.source.want(stream)

    @rule(stream=st.sampled_from(STREAMS))
    def unwant(self, stream: str) -> None:
        if stream in self.wanted:
            self.wanted.discard(stream)
            self.world.source.unwant(stream)

    @rule(places=st.lists(st.sampled_from([*NODES, None]), min_size=len(STREAMS), max_size=len(STREAMS)))
    def move(self, places: list[Node | None]) -> None:
        self.world.topology.change(
            {stream.encode(): of for stream, of in zip(STREAMS, places, strict=True) if of is not None}
        )

    @invariant()
    def each_is_wanted_where_it_is(self) -> None:
        if not hasattr(self, "world"):
            return
        there: dict[str, Node] = {}
        for of in self.world.topology.nodes:
            there |= dict.fromkeys(self.world.at(of).streams, of)
            assert self.world.at(of).running
        owners = self.world.topology.owners
        assert there == {each: owners[each.encode()] for each in self.wanted if each.encode() in owners}


TestMoves = Moves.TestCase
TestMoves.settings = machine_test(1.5, 50)


def test_who_has_told_all_of_a_stream_is_its_server() -> None:
    a = node("a")
    world = World({A.encode(): a})
    world.source.want(A)
    world.source.want(B)
    assert world.source.caught_up(A).result == "at redis a"
    assert world.source.caught_up(B).result is None, "no server has it"


def test_what_moves_meanwhile_was_told_by_nobody() -> None:
    a, b = node("a"), node("b")
    world = World({A.encode(): a, B.encode(): b})
    world.source.want(A)
    world.at(a).late = Deferred()
    caught_up = world.source.caught_up(A)
    world.topology.change({A.encode(): b, B.encode(): a})
    world.at(a).late.callback(True)
    assert caught_up.result is None
