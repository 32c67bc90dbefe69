"""Commands for whichever server has the key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock

from marketfeed.redis.commands import CommandFault, CommandRefused, KeyedCommands, OutOfReach
from marketfeed.redis.routed_commands import RoutedCommands
from tests.redis.memory import Connection, Endpoint
from tests.redis.test_topology import FakeTopology, node

if TYPE_CHECKING:
    _commands: KeyedCommands = RoutedCommands(Clock(), FakeTopology())


class World:
    """Two servers: `x` is on the first."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.a, self.b = node("a", self.clock), node("b", self.clock)
        self.topology = FakeTopology({b"x": self.a, b"y": self.b})
        self.commands = RoutedCommands(self.clock, self.topology)
        self.commands.startService()
        self.first, self.second = (self.accept(each.endpoint) for each in (self.a, self.b))
        self.answers: list[Any] = []
        self.faults: list[CommandFault] = []

    def accept(self, endpoint: Any) -> Connection:
        assert isinstance(endpoint, Endpoint)
        return endpoint.link()

    def ask(self, key: bytes) -> None:
        asked = self.commands.ask_for(key, "GET", key)
        asked.addCallbacks(self.answers.append, lambda failure: self.faults.append(failure.value))

    def move(self, fault: str) -> None:
        """What the topology makes of a doubt."""
        self.topology.change({b"x": self.b, b"y": self.b})

    def stop(self) -> None:
        self.commands.stopService()
        self.clock.advance(0)
        assert not self.clock.getDelayedCalls()


def test_where_a_key_is() -> None:
    """The same as long as its server is, and the link to that."""
    world = World()
    place = world.commands.place_of(b"x")
    assert place == world.commands.place_of(b"x") != world.commands.place_of(b"y")
    world.first.cut()
    world.first = world.accept(world.a.endpoint)
    again = world.commands.place_of(b"x")
    assert again != place
    world.move("")
    assert world.commands.place_of(b"x") not in (place, again)
    assert world.commands.place_of(b"z") is None
    world.stop()


def test_that_a_server_is_away_is_a_doubt() -> None:
    """When its link is lost, and whenever none can be made; not when it is ended."""
    world = World()
    world.first.cut()
    assert world.topology.doubts == [""]
    endpoint: Any = world.a.endpoint
    while not endpoint.is_waiting:
        world.clock.advance(0.05)
    endpoint.refuse(ConnectionRefusedError())
    assert world.topology.doubts == ["", ""]
    world.stop()
    assert world.topology.doubts == ["", ""]


def test_each_server_is_asked_for_its_keys() -> None:
    world = World()
    world.ask(b"x")
    world.ask(b"y")
    assert world.first.asked() == [(b"GET", b"x")]
    assert world.second.asked() == [(b"GET", b"y")]
    world.second.say(b"$1\r\n2\r\n")
    world.first.say(b"$1\r\n1\r\n")
    assert world.answers == [b"2", b"1"]
    world.stop()


@pytest.mark.parametrize("fault", ["MOVED 1 b:1", "CLUSTERDOWN the slot is not served", "READONLY no", "TRYAGAIN no"])
def test_a_server_that_sends_elsewhere(fault: str) -> None:
    """Whoever has the key then is asked."""
    world = World()
    world.topology.doubted = world.move
    world.ask(b"x")
    world.first.say(b"-%b\r\n" % fault.encode())
    assert world.topology.doubts == [fault]
    assert world.second.asked() == [(b"GET", b"x")]
    world.second.say(b"$1\r\n1\r\n")
    assert world.answers == [b"1"]
    world.stop()


def test_a_server_that_sends_elsewhere_and_nobody_knows_better() -> None:
    """The same is not asked again at once."""
    world = World()
    world.ask(b"x")
    world.first.say(b"-MOVED 1 elsewhere:1\r\n")
    (fault,) = world.faults
    assert (type(fault), str(fault)) == (OutOfReach, "MOVED 1 elsewhere:1")
    world.ask(b"z")
    assert str(world.faults[1]) == "no server has this key at the moment"
    world.stop()


def test_servers_that_send_in_circles() -> None:
    world = World()
    world.topology.others = [world.a, world.b]
    turn = {world.a: world.b, world.b: world.a}
    world.topology.doubted = lambda fault: world.topology.change({b"x": turn[world.topology.owners[b"x"]]})
    world.ask(b"x")
    for server in (world.first, world.second, world.first, world.second):
        assert server.asked() == [(b"GET", b"x")]
        server.say(b"-MOVED 1 there:1\r\n")
    assert [type(fault) for fault in world.faults] == [OutOfReach]
    world.stop()


def test_a_key_that_is_being_moved() -> None:
    """It is asked for where it goes, and the server is told that we know."""
    world = World()
    world.ask(b"x")
    world.first.say(b"-ASK 1 b:1\r\n")
    assert world.second.asked() == [(b"ASKING",), (b"GET", b"x")]
    world.second.say(b"+OK\r\n$1\r\n1\r\n")
    assert world.answers == [b"1"]
    world.ask(b"x")
    world.first.say(b"-ASK 1 c:1\r\n")
    assert [type(fault) for fault in world.faults] == [OutOfReach]
    world.ask(b"x")
    world.first.say(b"-ASK 1 b:1\r\n")
    world.second.cut()
    assert [type(fault) for fault in world.faults[1:]] == [OutOfReach]
    world.stop()


def test_any_other_refusal_is_the_askers() -> None:
    world = World()
    world.ask(b"x")
    world.first.say(b"-WRONGTYPE no\r\n")
    assert [type(fault) for fault in world.faults] == [CommandRefused]
    assert not world.topology.doubts
    world.stop()
