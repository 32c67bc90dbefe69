"""Publishing for the simulated engine: in order while there is a link, and nobody's while there is none."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogLevel, formatEvent

from marketfeed.redis.address import RedisAddress
from marketfeed.redis.publisher import REST_SECONDS, RoutedPublisher
from marketfeed.redis.topology import Node
from tests.conftest import LogCapture
from tests.redis.memory import PONG, Connection, Endpoint, resp, stop
from tests.redis.test_topology import FakeTopology

OK = b"+OK\r\n"


class World:
    """A publisher, and two servers. Each has two endpoints: one for states, of keys, and one for channels."""

    def __init__(self, *, is_sharded: bool = False) -> None:
        self.clock = Clock()
        self.keys, self.channels = FakeTopology(), FakeTopology()
        self.states = [self.node(name) for name in ("one", "two")]
        self.nodes = [self.node(name) for name in ("one", "two")]
        self.keys.owners = {b"state@A": self.states[0], b"state@B": self.states[1]}
        self.channels.owners = {b"trade@A": self.nodes[0], b"trade@B": self.nodes[1], "é".encode(): self.nodes[0]}
        self.publisher = RoutedPublisher(self.clock, self.keys, self.channels, is_sharded=is_sharded)
        self.publisher.startService()

    def node(self, name: str) -> Node:
        return Node(f"redis {name}", RedisAddress(host=name, password="a secret"), Endpoint(self.clock))

    def connect(self) -> list[Connection]:
        """Links that are ready: for states to each server, then for channels."""
        return [self.link(node) for node in (*self.states, *self.nodes)]

    def link(self, node: Node) -> Connection:
        assert isinstance(node.endpoint, Endpoint)
        return node.endpoint.link(OK, PONG)

    def stop(self) -> None:
        stop(self.publisher, self.clock)
        assert not self.publisher.ready


def complaints(logged: LogCapture) -> list[str]:
    lines = [formatEvent(event) for event in logged.events if event["log_level"] is LogLevel.error]
    return [line for line in lines if "is refused" in line]


def test_it_is_ready_when_all_servers_are() -> None:
    """Not before each has taken the login, and not after the loss of one."""
    world = World()
    assert not world.publisher.ready
    *others, last = world.connect()
    assert world.publisher.ready
    for index, connection in enumerate((last, *others)):
        connection.cut()
        assert not world.publisher.ready
        world.link([world.nodes[1], *world.states, world.nodes[0]][index])
        assert world.publisher.ready
    world.stop()


def test_without_servers_nothing_is_ready() -> None:
    """Nobody has said yet where they are."""
    world = World()
    world.connect()
    world.channels.change({})
    assert not world.publisher.ready
    world.stop()


@pytest.mark.parametrize(("is_sharded", "verb"), [(False, b"PUBLISH"), (True, b"SPUBLISH")])
def test_publications_go_in_order_byte_for_byte(*, is_sharded: bool, verb: bytes) -> None:
    """Each to the server that has its channel. Names and payloads may hold anything."""
    world = World(is_sharded=is_sharded)
    _, _, one, two = world.connect()
    world.publisher.publish([("trade@A", b'{"a":1}'), ("é", b"\r\n\x00"), ("trade@B", b"2"), ("trade@A", b"")])
    world.publisher.publish([])
    world.publisher.publish([("trade@B", b"x" * 70000)])
    assert one.asked() == [
        (verb, b"trade@A", b'{"a":1}'),
        (verb, "é".encode(), b"\r\n\x00"),
        (verb, b"trade@A", b""),
    ]
    assert two.asked() == [(verb, b"trade@B", b"2"), (verb, b"trade@B", b"x" * 70000)]
    world.stop()


def test_what_is_published_without_a_link_is_nobody_s() -> None:
    """A market does not wait: nothing is kept for later."""
    world = World()
    world.publisher.publish([("trade@A", b"1"), ("trade@B", b"1")])
    _, _, one, two = world.connect()
    assert (one.asked(), two.asked()) == ([], [])
    one.cut()
    world.publisher.publish([("trade@A", b"2"), ("trade@B", b"3")])
    one = world.link(world.nodes[0])
    world.publisher.publish([("trade@A", b"4")])
    assert (one.asked(), two.asked()) == ([(b"PUBLISH", b"trade@A", b"4")], [(b"PUBLISH", b"trade@B", b"3")])
    world.stop()


def test_states_are_kept_before_what_follows_is_published() -> None:
    """Each where its key is; what is published before them waits for nothing."""
    world = World()
    first, second, one, _ = world.connect()
    world.publisher.publish([("trade@A", b"1")])
    world.publisher.keep([("state@A", b"a"), ("state@B", b"b")])
    world.publisher.publish([("trade@A", b"2")])
    world.publisher.keep([("state@A", b"c")])
    world.publisher.publish([("trade@A", b"3")])
    assert [command[-1] for command in one.asked()] == [b"1"]
    assert first.asked() == [(b"SET", b"state@A", b"a", b"EX", b"60")]
    assert second.asked() == [(b"SET", b"state@B", b"b", b"EX", b"60")]
    second.say(OK)
    assert one.asked() == []
    first.say(OK)
    assert [command[-1] for command in one.asked()] == [b"2"]
    assert first.asked() == [(b"SET", b"state@A", b"c", b"EX", b"60")]
    first.cut()
    assert [command[-1] for command in one.asked()] == [b"3"], "nobody knows what became of it"
    world.stop()


def test_it_is_not_ready_while_states_take_long() -> None:
    """What waits behind them does not grow without end."""
    world = World()
    first, _, one, _ = world.connect()
    world.publisher.keep([("state@A", b"a")])
    count = 0
    while world.publisher.ready:
        count += 1
        world.publisher.publish([("trade@A", b"%d" % count)])
    first.say(OK)
    assert len(one.asked()) == count
    assert world.publisher.ready
    world.stop()


@pytest.mark.parametrize("fault", ["MOVED 7 two:1", "CLUSTERDOWN no", "TRYAGAIN no", "READONLY no"])
def test_a_server_that_does_not_have_a_channel(fault: str) -> None:
    """The topology looks again; meanwhile nothing is published, so that a market begins anew behind what is lost."""
    world = World(is_sharded=True)
    _, _, one, two = world.connect()
    world.publisher.publish([("trade@A", b"1")])
    one.asked()
    one.say(f"-{fault}\r\n".encode())
    assert world.channels.doubts == [fault]
    assert not world.publisher.ready
    world.channels.change({b"trade@A": world.nodes[1], b"x": world.nodes[0]})
    world.clock.advance(REST_SECONDS)
    assert world.publisher.ready
    world.publisher.publish([("trade@A", b"2"), ("nobody's", b"3")])
    assert [command[-1] for command in two.asked()] == [b"2"]
    assert not world.publisher.ready
    assert world.channels.doubts == [fault, ""]
    world.stop()


def test_a_refused_publication_is_logged_once_a_link(logged: LogCapture) -> None:
    """Thousands of publications a second are refused for one and the same reason; and states for theirs."""
    world = World()
    first, _, _, _ = world.connect()
    one = world.nodes[0]
    assert isinstance(one.endpoint, Endpoint)
    for _ in range(2):
        connection = one.endpoint.connections[-1]
        connection.say(b":1\r\n:0\r\n")
        for _ in range(100):
            connection.say(b"-NOPERM No permissions to access a channel\r\n")
        connection.cut()
        world.link(one)
    for why in ("NOPERM no", "NOPERM no", "OOM no"):
        world.publisher.keep([("state@A", b"a")])
        first.say(resp(why))
    lines = ["redis: a publication is refused: NOPERM No permissions to access a channel"] * 2
    assert complaints(logged) == [*lines, "redis: a state is refused: NOPERM no", "redis: a state is refused: OOM no"]
    world.stop()


def test_a_quiet_link_is_kept_alive() -> None:
    """Its PINGs and their answers are not mistaken for anything else."""
    world = World()
    connections = world.connect()
    for _ in range(3):
        world.clock.advance(5)
        for connection in connections:
            assert connection.asked() == [(b"PING",)]
        world.clock.advance(0.5)
        for connection in connections:
            connection.say(PONG)
    assert world.publisher.ready
    world.stop()
