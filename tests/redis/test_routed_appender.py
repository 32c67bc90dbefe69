"""Appending to streams of several servers: each entry once, in order, wherever its stream goes, or counted as lost."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock

from marketfeed.redis import entries as redis_entries
from marketfeed.redis.address import RedisAddress
from marketfeed.redis.appender import BUSY_SECONDS
from marketfeed.redis.entries import Loss
from marketfeed.redis.routed_appender import LEAVE_SECONDS, RoutedAppender
from marketfeed.redis.topology import Node
from tests.redis.memory import PONG, Connection, Endpoint, stop
from tests.redis.test_topology import FakeTopology
from tests.strategies import property_test

ADDED = b"$3\r\n1-0\r\n"


class Server:
    """One server: its place, and the connection to it. `asked`: commands that it has not answered."""

    def __init__(self, name: str, clock: Clock) -> None:
        self.name = name
        self.endpoint = Endpoint(clock)
        self.node = Node(f"redis {name}", RedisAddress(host=name), self.endpoint)
        self.connection: Connection | None = None
        self.asked: list[tuple[bytes, ...]] = []

    def connect(self) -> Connection:
        self.connection, self.asked = self.endpoint.link(), []
        return self.connection

    def payloads(self) -> list[bytes]:
        """Of the entries that have come since this was last asked for."""
        assert self.connection is not None
        return [command[-1] for command in self.connection.asked() if command[0] == b"XADD"]


class World:
    """An appender, and servers of which the streams a, b and c are at first."""

    def __init__(self, count: int = 2) -> None:
        self.clock = Clock()
        self.servers = [Server(name, self.clock) for name in ("one", "two", "three")[:count]]
        self.owners = {key: self.servers[index % count] for index, key in enumerate((b"a", b"b", b"c"))}
        self.topology = FakeTopology()
        self.topology.others = [server.node for server in self.servers]
        self.learn()
        self.appender = RoutedAppender(self.clock, self.topology, 0, has_slots=True)
        self.entries = self.appender.entries
        self.appender.startService()

    def learn(self) -> None:
        """Let the appender hear where everything is."""
        self.topology.change({key: server.node for key, server in self.owners.items()})

    def connect(self) -> list[Connection]:
        """Links to all, each of which has taken an entry of no interest."""
        connections = [server.connect() for server in self.servers]
        self.appender.publish([("a", b"-"), ("b", b"-")])
        for connection in connections[:2]:
            connection.say(ADDED)
            connection.asked()
        return connections

    def stop(self) -> None:
        stop(self.appender, self.clock)


def test_each_server_gets_what_is_its_own() -> None:
    """In order, and one that cannot be reached keeps nobody waiting."""
    world = World()
    one, two = world.servers
    assert (world.appender.ready, world.appender.is_down) == (False, True)
    one.connect()
    world.appender.publish([("a", b"1"), ("b", b"2"), ("c", b"3")])
    assert one.payloads() == [b"1"]
    assert one.connection is not None
    one.connection.say(ADDED)
    assert one.payloads() == [b"3"]
    one.connection.say(ADDED)
    assert (world.entries.added, world.appender.ready) == (2, False)
    two.connect()
    assert two.payloads() == [b"2"]
    assert (world.appender.ready, world.appender.is_down) == (True, False)
    world.stop()


@pytest.mark.parametrize("is_told", [True, False])
def test_a_stream_that_moves(*, is_told: bool) -> None:
    """What is under way is waited for; what was refused, and what waits, goes to the other server in order.

    Whether the refusal is the first news of it, or the topology's.
    """
    world = World()
    first, second = world.connect()
    one, two = world.servers
    world.appender.publish([("a", b"1"), ("a", b"2"), ("b", b"3"), ("a", b"4")])
    assert (one.payloads(), two.payloads()) == ([b"1", b"2", b"4"], [b"3"])
    world.owners[b"a"] = two
    if is_told:
        world.learn()
    else:
        world.topology.doubted = lambda fault: world.learn() if fault == "MOVED 1 two:1" else None
    first.say(ADDED + b"-MOVED 1 two:1\r\n")
    world.appender.publish([("a", b"5"), ("c", b"6")])
    assert (one.payloads(), two.payloads()) == ([], []), "the first one has not answered all"
    first.say(b"-MOVED 1 two:1\r\n")
    assert (one.payloads(), two.payloads()) == ([b"6"], [b"2", b"4", b"5"])
    first.say(ADDED)
    second.say(ADDED * 4)
    assert (world.entries.added, world.entries.lost, world.appender.is_down) == (8, 0, False)
    world.stop()


def test_a_stream_that_is_being_moved() -> None:
    """Its entries go where it goes, each behind an ASKING, until its slot is there; its neighbours stay."""
    world = World()
    first, second = world.connect()
    world.appender.publish([("a", b"1"), ("a", b"2"), ("c", b"3")])
    first.asked()
    ask = b"-ASK 1 two:1\r\n"
    first.say(ask + ask + ADDED)
    xadd = (b"XADD", b"a", b"*", b"d")
    assert second.asked() == [(b"ASKING",), (*xadd, b"1"), (b"ASKING",), (*xadd, b"2")]
    second.say(b"+OK\r\n" + ADDED + b"+OK\r\n")
    world.appender.publish([("a", b"4"), ("c", b"5")])
    assert second.asked() == [(b"ASKING",), (*xadd, b"4")]
    assert [command[-1] for command in first.asked()] == [b"5"]
    world.owners[b"a"] = world.servers[1]
    world.learn()
    second.say(ADDED + b"+OK\r\n" + ADDED)
    first.say(ADDED)
    world.appender.publish([("a", b"6")])
    assert second.asked() == [(*xadd, b"6")]
    second.say(ADDED)
    assert (world.entries.added, world.entries.lost) == (8, 0)
    world.stop()


def test_a_move_that_is_called_off() -> None:
    """The server that was to get the stream sends back to the one that has it."""
    world = World()
    first, second = world.connect()
    world.appender.publish([("a", b"1")])
    first.asked()
    first.say(b"-ASK 1 two:1\r\n")
    second.asked()
    second.say(b"+OK\r\n-MOVED 1 one:1\r\n")
    assert [command[-2:] for command in first.asked()] == [(b"d", b"1")]
    first.say(ADDED)
    assert (world.entries.added, world.topology.doubts) == (3, ["MOVED 1 one:1"])
    world.stop()


@pytest.mark.parametrize("fault", ["CLUSTERDOWN Hash slot not served", "TRYAGAIN no", "ASK 1 nobody:1", "MOVED 1 x:1"])
def test_a_stream_that_nobody_takes_for_now(fault: str) -> None:
    """It is asked for again after a while, on the same link, until somebody takes it."""
    world = World()
    first, _ = world.connect()
    world.appender.publish([("a", b"1"), ("a", b"2")])
    first.asked()
    first.say(f"-{fault}\r\n".encode() * 2)
    assert first.asked() == []
    assert world.appender.is_down
    world.clock.advance(BUSY_SECONDS)
    assert [command[-1] for command in first.asked()] == [b"1"]
    first.say(ADDED)
    assert [command[-1] for command in first.asked()] == [b"2"]
    first.say(ADDED)
    assert (world.entries.added, world.entries.lost, world.appender.is_down) == (4, 0, False)
    world.stop()


def test_what_no_server_has_waits() -> None:
    """Until one has it, or the end."""
    world = World()
    _, second = world.connect()
    del world.owners[b"a"]
    world.learn()
    world.appender.publish([("a", b"1"), ("b", b"2"), ("a", b"3")])
    assert world.servers[1].payloads() == [b"2"]
    assert (world.appender.ready, world.appender.is_down) == (False, True)
    world.clock.advance(0.5)
    assert world.appender.lag == 0.5
    world.owners[b"a"] = world.servers[1]
    world.learn()
    assert world.servers[1].payloads() == [b"1", b"3"]
    second.say(ADDED * 3)
    assert world.entries.added == 5
    world.owners.clear()
    world.learn()
    world.appender.publish([("c", b"4")])
    world.stop()
    assert world.entries.losses[Loss.ENDED] == 1


def test_a_master_that_dies() -> None:
    """What was under way is lost, and is said to be; what waits goes to whoever has its streams then."""
    world = World()
    first, second = world.connect()
    one, two = world.servers
    world.appender.publish([("a", b"1")])
    first.cut()
    assert world.entries.losses[Loss.LINK_LOST] == 1
    world.appender.publish([("a", b"2"), ("c", b"3"), ("b", b"4")])
    assert two.payloads() == [b"4"]
    world.owners = dict.fromkeys(world.owners, two)
    world.topology.others = []
    world.learn()
    assert two.payloads() == [b"2", b"3"]
    second.say(ADDED * 3)
    assert (world.entries.added, world.entries.lost) == (5, 1)
    world.clock.advance(10)
    assert not one.endpoint.is_waiting, "nobody tries to reach it"
    world.stop()


@pytest.mark.parametrize("answers", [True, False])
def test_a_server_that_has_gone_is_waited_for_a_moment(*, answers: bool) -> None:
    """It has taken what it answers in that time; the rest is lost, and then what waited behind it goes on."""
    world = World()
    first, _ = world.connect()
    two = world.servers[1]
    world.appender.publish([("a", b"1"), ("a", b"2")])
    first.asked()
    world.owners = dict.fromkeys(world.owners, two)
    world.topology.others = []
    world.learn()
    world.appender.publish([("a", b"3")])
    first.say(ADDED)
    assert two.payloads() == []
    if answers:
        first.say(ADDED)
    else:
        world.clock.advance(LEAVE_SECONDS)
        world.clock.advance(0)
    assert two.payloads() == [b"3"]
    world.clock.advance(0)
    assert not first.is_open
    assert world.entries.losses[Loss.LINK_LOST] == (0 if answers else 1)
    assert world.entries.added == (4 if answers else 3)
    world.stop()


def test_all_servers_together_have_one_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is more is lost, whichever server it would wait for."""
    monkeypatch.setattr(redis_entries, "MOST_BYTES", 10 * (redis_entries.ENTRY_BYTES + 2))
    world = World()
    world.appender.publish([("a", b"1"), ("b", b"2")] * 6)
    assert world.entries.losses[Loss.NO_ROOM] == 2
    gone: list[object] = []
    world.appender.all_answered().addCallback(gone.append)
    for server in world.servers:
        connection = server.connect()
        connection.say(ADDED)
        connection.say(ADDED * 4)
    assert (world.entries.added, gone) == (10, [None])
    world.stop()


# Any order of events.


class Model:
    """A cluster that does what it says, of which the appender is told late, and sometimes by its servers only."""

    def __init__(self) -> None:
        self.world = World(3)
        self.at: dict[bytes, Server] = dict(self.world.owners)  # where streams are
        self.goes: dict[bytes, Server] = {}
        self.streams: dict[bytes, list[int]] = defaultdict(list)
        self.count = self.acknowledged = 0
        self.world.topology.doubted = self.hear

    def hear(self, fault: str) -> None:
        """A server that sends elsewhere is believed at once."""
        word, *_, place = fault.split(" ")
        if word == "MOVED":
            key, _, host = place.partition("@")
            server = next(each for each in self.world.servers if each.name == host.partition(":")[0])
            self.world.owners[key.encode()] = server
            self.world.learn()

    def publish(self) -> None:
        keys = ["abc"[number % 3] for number in range(self.count, self.count + 4)]
        self.world.appender.publish([(key, b"%d" % (self.count + index)) for index, key in enumerate(keys)])
        self.count += 4

    def serve(self, server: Server, most: int) -> None:
        """Answer some of what a server was asked, in one read."""
        connection = server.connection
        if connection is None or not connection.is_open:
            return
        server.asked += connection.asked()
        now, server.asked = server.asked[:most], server.asked[most:]
        answers, is_asking = b"", False
        for command in now:
            answers += self.answer(server, command, is_asking=is_asking)
            is_asking = command == (b"ASKING",)
        if is_asking and server.asked:  # the two are worked through together
            answers += self.answer(server, server.asked.pop(0), is_asking=True)
        if answers:
            connection.say(answers)
            self.world.clock.advance(0)

    def answer(self, server: Server, command: tuple[bytes, ...], *, is_asking: bool) -> bytes:
        if command[0] == b"PING":
            return PONG
        if command[0] == b"ASKING":
            return b"+OK\r\n"
        key = command[1]
        if is_asking and self.goes.get(key) is server:
            pass
        elif self.at[key] is not server:
            return b"-MOVED 1 %b@%b:1\r\n" % (key, self.at[key].name.encode())
        elif key in self.goes:
            return b"-ASK 1 %b:1\r\n" % self.goes[key].name.encode()
        self.streams[key].append(int(command[-1]))
        self.acknowledged += 1
        return ADDED

    def move(self, key: bytes, server: Server, *, slowly: bool) -> None:
        if slowly and server is not self.at[key]:
            self.goes[key] = server
        else:
            self.at[key] = self.goes.pop(key, server)

    def learn(self) -> None:
        self.world.owners = dict(self.at)
        self.world.learn()

    def lose_slot(self, key: bytes) -> None:
        """Nobody has it, as far as the appender knows."""
        self.world.owners.pop(key, None)
        self.world.learn()

    def leave(self, server: Server) -> None:
        """A server goes, and comes back as another one."""
        others = [each for each in self.world.servers if each is not server]
        fresh = Server(server.name, self.world.clock)
        self.world.servers[self.world.servers.index(server)] = fresh
        for key in self.at:
            self.goes.pop(key, None)
            if self.at[key] is server:
                self.at[key] = others[0]
        self.world.topology.others = [each.node for each in self.world.servers]
        self.learn()

    def connect(self, server: Server) -> None:
        if server.endpoint.is_waiting:
            server.connect()

    def settle(self) -> None:
        """Let everything be answered."""
        for key in list(self.goes):
            self.move(key, self.goes[key], slowly=False)
        self.learn()
        for _ in range(200):
            self.world.clock.advance(BUSY_SECONDS)
            for server in self.world.servers:
                self.connect(server)
                self.serve(server, 1000)
        assert self.world.appender.lag == 0, "what waits has found its server"


STEPS = st.one_of(
    st.just(("publish",)),
    st.just(("publish",)),
    st.tuples(st.just("connect"), st.integers(0, 2)),
    st.tuples(st.just("serve"), st.integers(0, 2), st.integers(1, 6)),
    st.tuples(st.just("serve"), st.integers(0, 2), st.integers(1, 6)),
    st.tuples(st.just("cut"), st.integers(0, 2)),
    st.tuples(st.just("move"), st.sampled_from([b"a", b"b", b"c"]), st.integers(0, 2), st.booleans()),
    st.just(("learn",)),
    st.tuples(st.just("lose_slot"), st.sampled_from([b"a", b"b", b"c"])),
    st.tuples(st.just("leave"), st.integers(0, 2)),
    st.tuples(st.just("wait"), st.sampled_from([BUSY_SECONDS, LEAVE_SECONDS])),
)


@property_test
@given(st.lists(STEPS, max_size=60))
@example([("publish",), ("publish",), ("cut", 1), ("move", b"b", 0, False), ("leave", 2)])
def test_each_entry_is_in_its_stream_once_in_order_or_counted(steps: list[tuple[object, ...]]) -> None:
    """Wherever streams go, however they go there, and whatever is lost meanwhile; and in the end nothing waits."""
    model = Model()
    for server in model.world.servers:
        server.connect()
    for step in steps:
        match step:
            case ("connect", int(index)):
                model.connect(model.world.servers[index])
            case ("serve", int(index), int(most)):
                model.serve(model.world.servers[index], most)
            case ("cut", int(index)):
                connection = model.world.servers[index].connection
                if connection is not None:
                    connection.cut()
            case ("move", bytes(key), int(index), bool(slowly)):
                model.move(key, model.world.servers[index], slowly=slowly)
            case ("lose_slot", bytes(key)):
                model.lose_slot(key)
            case ("leave", int(index)):
                model.leave(model.world.servers[index])
            case ("wait", float(seconds)):
                model.world.clock.advance(seconds)
            case (str(name),):
                getattr(model, name)()
    model.settle()
    entries = model.world.entries
    model.world.stop()
    for key, numbers in model.streams.items():
        assert numbers == sorted(set(numbers)), f"{key!r} is out of order"
    assert entries.added + entries.lost == model.count
    assert entries.added <= model.acknowledged <= entries.added + entries.losses[Loss.LINK_LOST]
    assert entries.losses[Loss.LATE] == entries.losses[Loss.REFUSED] == entries.losses[Loss.ENDED] == 0
    assert model.acknowledged == sum(map(len, model.streams.values()))


def test_a_server_that_refuses_connections_keeps_what_waits() -> None:
    """As one that is only away for a moment."""
    world = World()
    world.appender.publish([("a", b"1")])
    world.servers[0].endpoint.refuse(ConnectionRefusedError())
    assert (world.entries.lost, world.appender.is_down) == (0, True)
    world.servers[0].connect()
    assert world.servers[0].payloads() == [b"1"]
    world.stop()
