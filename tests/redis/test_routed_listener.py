"""Listening wherever channels are: what the sink hears when they move."""

from __future__ import annotations

from typing import Any, cast

import pytest
from twisted.internet.defer import fail
from twisted.internet.task import Clock

from marketfeed.redis.address import RedisAddress
from marketfeed.redis.commands import CommandRefused
from marketfeed.redis.listener import RedisListener
from marketfeed.redis.routed_listener import RoutedListener, ShardedListener, make_listener
from marketfeed.redis.topology import Node
from tests.redis.memory import PONG, Connection, Endpoint, resp, stop
from tests.redis.test_listener import BOTH, COMMANDS, INFO, MASTER, FakeSink
from tests.redis.test_topology import FakeTopology


class World:
    """A sink, and servers of which each lets one connection at a time be made."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.sink = FakeSink()
        self.topology = FakeTopology()
        self.nodes = [Node(f"redis {name}", RedisAddress(host=name), Several(self.clock)) for name in ("one", "two")]

    def endpoint(self, index: int) -> Several:
        return cast("Several", self.nodes[index].endpoint)


class Several(Endpoint):
    """An endpoint for several keepers, each of which is answered by the test."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.each: list[Endpoint] = []

    def connect(self, protocolFactory: Any) -> Any:
        endpoint = Endpoint(self._clock)
        self.each.append(endpoint)
        return endpoint.connect(protocolFactory)

    def take(self) -> list[Endpoint]:
        waiting = [each for each in self.each if each.is_waiting]
        self.each.clear()
        return waiting


def roled(endpoint: Endpoint) -> Connection:
    """A link that publications come on."""
    return endpoint.link(PONG, INFO, MASTER)


def test_one_listener_goes_where_the_topology_says() -> None:
    """The sink hears of a loss, since the server that was left had all; then of what is complete again."""
    world = World()
    world.topology.owners = {b"any": world.nodes[0]}
    clock, topology = world.clock, world.topology
    listener = make_listener(clock, topology, COMMANDS, world.sink, clock.seconds, is_sharded=False)
    assert isinstance(listener, RoutedListener)
    listener.startService()
    first = roled(world.endpoint(0).take()[0])
    first.say(BOTH)
    assert world.sink.take()[-2:] == [("complete",), ("flush",)]
    clock.advance(2)
    topology.change({})
    assert world.sink.take() == [("lost",)]
    assert world.sink.good_at == pytest.approx(0), "no question was answered since"
    clock.advance(0)
    assert not first.is_open
    topology.change({b"any": world.nodes[1]})
    second = roled(world.endpoint(1).take()[0])
    assert second.asked() == COMMANDS
    second.say(BOTH)
    assert ("complete",) in world.sink.take()
    stop(listener, clock)
    assert world.sink.take() == []


def test_it_was_no_better_than_the_topology_knows() -> None:
    """A node that misses what is published on others answers every question."""
    world = World()
    certain = [2.5]
    only = Endpoint(world.clock)
    node = Node("redis", RedisAddress(), only)
    roles: Any = FakeRoles()
    seconds = world.clock.seconds
    listener = RedisListener(world.clock, node, COMMANDS, world.sink, roles, seconds, lambda: certain[0])
    listener.startService()
    connection = roled(only)
    connection.say(BOTH)
    connection.asked()
    for _ in range(4):
        world.clock.advance(1)
        connection.answer(resp([b"pong", b""]))
    assert listener.good_at == 2.5
    certain[0] = 9.0
    assert listener.good_at == pytest.approx(4.0, abs=0.3)
    connection.cut()
    assert listener.good_at == world.sink.good_at
    stop(listener, world.clock)


class FakeRoles:
    """They are not to be known."""

    def setServiceParent(self, parent: Any) -> None: ...
    def ask(self, *words: Any) -> Any:
        return fail(CommandRefused("NOPERM no"))


A, B = b"trade@A", b"trade@B"


def subscribed(connection: Connection, channel: bytes) -> None:
    assert connection.asked() == [(b"SSUBSCRIBE", channel)]
    connection.say(resp([b"ssubscribe", channel, 1]))


class Sharded(World):
    """A listener to two channels, each on a server of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.topology.owners = {A: self.nodes[0], B: self.nodes[1]}
        commands = [(b"SUBSCRIBE", A), (b"SUBSCRIBE", B)]
        self.listener = make_listener(
            self.clock, self.topology, commands, self.sink, self.clock.seconds, is_sharded=True
        )
        assert isinstance(self.listener, ShardedListener)
        self.listener.startService()
        self.links = [self.link(index) for index in (0, 1)]

    def link(self, index: int) -> Connection:
        """The second to connect is who listens; the first asks for roles."""
        roles, feed = self.endpoint(index).take()
        roles.link()
        return roled(feed)


def test_sharded_channels_are_complete_together() -> None:
    """The sink hears of a read before what comes in it, and of nothing twice."""
    world = Sharded()
    one, two = world.links
    subscribed(one, A)
    assert ("complete",) not in world.sink.take()
    subscribed(two, B)
    assert world.sink.take() == [("arrived",), ("complete",), ("flush",)]
    one.say(resp([b"smessage", A, b"1"]) + resp([b"smessage", A, b"2"]))
    two.say(resp([b"smessage", B, b"3"]))
    assert world.sink.take() == [
        ("arrived",),
        ("publication", A, A, b"1"),
        ("publication", A, A, b"2"),
        ("flush",),
        ("arrived",),
        ("publication", B, B, b"3"),
        ("flush",),
    ]
    stop(world.listener, world.clock)
    assert world.sink.take() == []


def test_the_loss_of_one_server_is_a_loss_until_it_is_back() -> None:
    """What comes on the others is told all the same."""
    world = Sharded()
    one, two = world.links
    subscribed(one, A)
    subscribed(two, B)
    world.sink.take()
    world.clock.advance(0.5)
    one.cut()
    assert world.sink.take() == [("lost",)]
    assert world.sink.good_at == 0.0
    two.say(resp([b"smessage", B, b"3"]))
    assert ("publication", B, B, b"3") in world.sink.take()
    world.topology.change({A: world.nodes[1], B: world.nodes[1]})
    subscribed(two, A)
    assert ("complete",) in world.sink.take()
    stop(world.listener, world.clock)


def test_a_channel_that_is_refused() -> None:
    """The sink hears which."""
    world = Sharded()
    one, _ = world.links
    assert one.asked() == [(b"SSUBSCRIBE", A)]
    one.say(b"-NOPERM no\r\n")
    assert ("refused", A, "NOPERM no") in world.sink.take()
    stop(world.listener, world.clock)
