"""Streams of a cluster whose slots move: each entry comes once and in order, or it is said that some are missing."""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Callable, Collection

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from twisted.internet.task import Clock

from marketfeed.boundaries import Subscriber
from marketfeed.redis.node_source import NodeSource
from marketfeed.redis.routed_source import RoutedSource
from marketfeed.redis.streams import RedisStreams
from marketfeed.redis.topology import Node, key_slot
from tests.redis.cluster_model import ClusterModel, Command, ServerModel, StreamModel, number_of
from tests.strategies import machine_test

STREAMS = ["trade@{a}1", "trade@{a}2", "trade@{a}3", "trade@{b}1", "trade@{c}"]
KEYS = [stream.encode() for stream in STREAMS]
SLOTS = sorted({key_slot(key) for key in KEYS})
NOW = 1_700_000_000.0


class Topology:
    """What is known of a cluster: as it was when somebody last looked."""

    def __init__(self, cluster: ClusterModel) -> None:
        self._cluster = cluster
        self._followers: list[Callable[[], None]] = []
        self.epoch = 0
        self.is_known = True
        self.doubts: list[str] = []
        self.looks_at_once = False
        self.nodes: Collection[Node] = [server.node for server in cluster.servers]
        self.known = dict(cluster.slots)

    def node_for(self, key: bytes) -> Node | None:
        server = self.known.get(key_slot(key))
        return None if server is None else server.node

    def follow(self, changed: Callable[[], None]) -> None:
        self._followers.append(changed)

    def doubt(self, fault: str = "") -> None:
        self.doubts.append(fault)
        if self.looks_at_once:
            self.look()

    def named_in(self, fault: str) -> Node | None:
        return None

    def certain_at(self, node: Node) -> float:
        return math.inf

    def look(self) -> None:
        known = {slot: server for slot, server in self._cluster.slots.items() if slot not in self._cluster.down}
        if known != self.known:
            self.known = known
            self.epoch += 1
            for changed in self._followers:
                changed()


class Client:
    """The sink; what somebody would know who sees all that it hears."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.at: dict[str, int] = {}
        self.flowing: set[str] = set()
        self.added: dict[str, list[int]] = defaultdict(list)
        self.skipped: dict[str, set[int]] = defaultdict(set)
        self.kept: Callable[[str], list[int]] = lambda stream: []
        self.events: list[tuple[str, str, int]] = []

    def publish(self, stream: str, payload: bytes, offset: str | None = None) -> None:
        assert offset is not None
        number = int(payload)
        assert stream in self.flowing, "it was not confirmed"
        assert number > self.at[stream], "twice, or not in order"
        self.skipped[stream] |= {each for each in self.added[stream] if self.at[stream] < each < number}
        self.at[stream] = number
        self.events.append(("publish", stream, number))

    def confirmed(self, stream: str, after: str | None = None) -> None:
        assert after is not None
        at = number_of(after.encode())
        self.events.append(("confirmed", stream, at))
        self.flowing.add(stream)
        if at != self.at.get(stream, at):
            self.skipped.pop(stream, None)
            there = [number for number in self.kept(stream) if self.at[stream] < number <= at]
            assert not there, "what is there is to be read"
        self.at[stream] = at

    def missed(self, stream: str, seconds: float) -> None:
        assert stream in self.flowing
        self.events.append(("missed", stream, 0))
        self.skipped.pop(stream, None)

    def lost(self, since: int, streams: Collection[str], link: str) -> None:
        assert since <= self._now() * 1000
        for stream in streams:
            self.events.append(("lost", stream, since))
            self.flowing.discard(stream)

    def refused(self, stream: str, why: str) -> None:
        raise AssertionError(why)

    def discovered(self, stream: str) -> None:
        raise AssertionError("nothing is to be discovered")

    def reached(self, link: str) -> None: ...
    def flush(self) -> None: ...
    def behind(self) -> list[Subscriber]:
        return []

    def forget(self, stream: str) -> None:
        self.at.pop(stream, None)
        self.skipped.pop(stream, None)
        self.flowing.discard(stream)

    def of(self, what: str, stream: str | None = None) -> list[int]:
        return [event[2] for event in self.events if event[0] == what and stream in (None, event[1])]


class World:
    """A source of the streams of some servers, whose links are up."""

    def __init__(self, servers: int = 3, keys: Collection[bytes] = KEYS) -> None:
        self.clock = Clock()
        self.cluster = ClusterModel(self.clock, servers, keys)
        self.topology = Topology(self.cluster)
        self.client = Client(self.now)
        self.source = RoutedSource(self.topology, self._make, self.client, now=self.now)
        self.source.startService()
        self.last = 0
        self.run()

    def now(self) -> float:
        return NOW + self.clock.seconds()

    def _make(self, node: Node) -> NodeSource[RedisStreams]:
        return RedisStreams(
            self.clock,
            node.endpoint,
            node.address,
            self.client,
            now=self.now,
            name=node.name,
            doubt=self.topology.doubt,
        )

    def turn(self) -> bool:
        """Everything that is asked is done, and arrives. Whether there was something."""
        did = [server.step() | server.deliver() for server in self.cluster.servers]
        return any(did)

    def run(self, seconds: float = 0.0) -> None:
        """So much time passes, in which all that is asked is answered at once."""
        end = self.clock.seconds() + seconds
        while True:
            while self.turn():
                self.clock.advance(0)
            if self.clock.seconds() >= end:
                return
            self.clock.advance(min(0.02, end - self.clock.seconds()))

    def add(self, stream: str, most: int | None = None) -> int:
        self.last += 1
        self.client.added[stream].append(self.last)
        self.cluster.add(stream.encode(), self.last, most)
        return self.last

    def want(self, *streams: str) -> None:
        for stream in streams:
            assert self.source.want(stream) is None
        self.run()

    def server_of(self, stream: str) -> ServerModel:
        return self.cluster.slots[key_slot(stream.encode())]

    def another(self, server: ServerModel) -> ServerModel:
        servers = self.cluster.servers
        return servers[(servers.index(server) + 1) % len(servers)]

    def reads(self, server: ServerModel) -> list[Command]:
        """What was read there since this was last called."""
        asked, server.asked = server.asked, []
        return [command for command in asked if command[0] == b"XREAD"]

    def stop(self) -> None:
        """And see that nothing is left."""
        ended: list[object] = []
        self.source.stopService().addBoth(ended.append)
        for _ in self.cluster.servers:
            self.clock.advance(0)
        assert ended
        assert self.clock.getDelayedCalls() == []


A1, A2, A3, B1, C = STREAMS


def keys_of(read: Command) -> list[str]:
    words = [word.decode() for word in read[read.index(b"STREAMS") + 1 :]]
    return words[: len(words) // 2]


def test_the_streams_of_a_slot_are_read_by_one_command() -> None:
    """All that there are, again and again; of one slot they wait, of several they do not."""
    world = World(1)
    (server,) = world.cluster.servers
    world.want(A1, A2)
    assert b"BLOCK" in world.reads(server)[-1]
    world.want(B1, C)
    world.reads(server)
    world.run(0.1)
    reads = world.reads(server)
    assert len(reads) % 3 == 0
    assert 3 <= len(reads) // 3 <= 50, "pauses are neither long nor short"
    assert [sorted(keys_of(read)) for read in reads] == [[A1, A2], [B1], [C]] * (len(reads) // 3)
    assert not any(b"BLOCK" in read for read in reads)
    numbers = [world.add(stream) for stream in (C, A1, A2, B1)]
    world.run(0.05)
    assert sorted(world.client.of("publish")) == numbers
    for stream in (B1, C):
        world.source.unwant(stream)
    world.run(0.05)
    assert b"BLOCK" in world.reads(server)[-1]
    world.stop()


def test_a_slot_that_has_moved_concerns_nobody_else() -> None:
    """The others flow on; its own go on elsewhere, where they had come to, without a loss."""
    world = World(2)
    world.want(*STREAMS)
    server = world.server_of(A1)
    (other,) = {stream for stream in (B1, C) if world.server_of(stream) is server}
    world.add(A1)
    world.run(0.05)
    world.cluster.place(key_slot(A1.encode()), world.another(server))
    numbers = [world.add(stream) for stream in (A1, A2, other)]
    world.run(0.05)
    assert world.topology.doubts == [f"MOVED {key_slot(A1.encode())} {world.another(server).name}:6379"]
    assert world.client.of("publish")[1:] == numbers[2:]
    world.topology.look()
    world.run()
    assert sorted(world.client.of("publish")[1:]) == numbers
    assert world.client.of("confirmed", A1) == [0, 1]
    assert world.client.of("lost") == []
    world.stop()


def test_what_no_server_has_for_long_is_out_of_reach() -> None:
    """Since all of it was known; it is asked for, though not often, and goes on when it is there again."""
    world = World(1)
    world.want(*STREAMS)
    world.run(1)
    world.cluster.down.add(key_slot(C.encode()))
    down_at = int(world.now() * 1000)
    world.run(0.9)
    assert world.client.of("lost") == []
    world.run(0.4)
    (since,) = world.client.of("lost")
    assert down_at - 50 <= since <= down_at
    doubts = len(world.topology.doubts)
    world.run(10)
    assert 30 <= len(world.topology.doubts) - doubts <= 41
    assert len(world.client.of("lost")) == 1, "it is said once"
    world.add(B1)
    world.run(0.05)
    assert world.client.of("publish", B1) == [1]
    world.add(C)
    world.cluster.down.clear()
    world.run(0.5)
    assert world.client.of("publish", C) == [2]
    assert world.client.of("confirmed", C) == [0, 0]
    world.stop()


def test_keys_that_go_ahead_of_their_slot() -> None:
    """Those that have not gone are read on, each by itself; the others when the slot has followed."""
    world = World(2)
    world.want(A1, A2, A3)
    for stream in (A1, A2, A3):
        world.add(stream)
    world.run(0.1)
    slot = key_slot(A1.encode())
    server = world.server_of(A1)
    world.cluster.going[slot] = world.another(server)
    world.cluster.gone.add(A1.encode())
    world.add(A1)
    world.add(A2)
    world.reads(server)
    world.run(0.5)
    reads = list(map(keys_of, world.reads(server)))
    assert reads.index([A2]) < reads.index([A3]), "each is read by itself"
    assert world.client.of("publish", A2) == [2, 5]
    assert world.client.of("publish", A1) == [1]
    assert world.topology.doubts == [], "the slot is where it was"
    world.cluster.gone.add(A2.encode())
    world.add(A2)
    world.add(A3)
    world.run(1.1)
    assert sorted(world.client.of("publish")) == [1, 2, 3, 5, 7]
    world.cluster.finish(slot)
    world.topology.looks_at_once = True
    world.run(0.5)
    assert sorted(world.client.of("publish")) == [1, 2, 3, 4, 5, 6, 7]
    assert sorted(keys_of(world.reads(world.server_of(A1))[-1])) == [A1, A2, A3]
    world.stop()


def test_what_has_not_gone_is_read_together_again() -> None:
    """Without what is held, soon; and with that after a move that was taken back."""
    world = World(1)
    world.want(A1, A2, A3)
    (server,) = world.cluster.servers
    slot = key_slot(A1.encode())
    for stream in (A2, A3):
        world.add(stream)
    world.cluster.going[slot] = server
    world.run(1.3)
    assert keys_of(world.reads(server)[-1]) == [A2, A3]
    world.add(A1)
    world.cluster.place(slot, server)
    world.run(2)
    assert sorted(keys_of(world.reads(server)[-1])) == [A1, A2, A3]
    assert world.client.of("publish", A1) == [3]
    world.stop()


def test_the_answer_to_a_check_that_was_overtaken() -> None:
    """A stream that has been elsewhere since it was asked for is judged by what is asked when it is back."""
    world = World(2)
    world.topology.looks_at_once = True
    world.want(A1)
    slot, server = key_slot(A1.encode()), world.server_of(A1)
    other = world.another(server)
    world.cluster.place(slot, other)
    world.topology.look()
    world.run()
    world.cluster.place(slot, server)
    world.topology.look()
    server.step()
    world.cluster.place(slot, other)
    world.topology.look()
    world.add(A1)
    while other.step() | other.deliver():
        world.clock.advance(0)
    assert world.client.of("publish", A1) == [1]
    world.cluster.place(slot, server)
    world.topology.look()
    world.run(0.1)
    assert world.client.of("publish", A1) == [1]
    assert world.client.of("confirmed", A1) == [0, 0, 0, 1]
    world.stop()


def test_what_is_away_when_its_link_is_lost() -> None:
    """Is lost since it was away, whatever else is; and so it is where it goes to a server that is away, too."""
    world = World(2)
    world.want(*STREAMS)
    world.run(1)
    server = world.server_of(A1)
    away_since = int(world.now() * 1000)
    world.cluster.place(key_slot(A1.encode()), world.another(server))
    world.run(0.8)
    server.is_up = False
    server.cut()
    (since,) = world.client.of("lost", A1)[:1]
    assert away_since - 50 <= since <= away_since
    world.run(2)
    world.another(server).is_up = False
    world.another(server).cut()
    world.client.events.clear()
    world.topology.look()
    assert world.client.of("lost", A1)[0] == since
    world.stop()


def test_what_was_deleted_unread_before_a_move_is_missed() -> None:
    """What is read behind it says nothing of it; the server's count does, on whichever it is compared."""
    world = World(2)
    world.want(*STREAMS)
    world.add(A1)
    world.run(0.1)
    deleted = world.add(A1)
    world.add(A1)
    world.cluster.delete(A1.encode(), deleted)
    world.run(0.1)
    world.topology.looks_at_once = True
    world.cluster.place(key_slot(A1.encode()), world.another(world.server_of(A1)))
    world.run(0.1)
    assert world.client.of("publish", A1) == [1, 3]
    assert len(world.client.of("missed", A1)) == 1
    world.stop()


def test_lagging_streams_of_several_slots() -> None:
    """Are read by a command for each slot, a part of which may fail."""
    world = World(2)
    world.want(*STREAMS)
    for _ in range(300):
        for stream in STREAMS:
            world.add(stream)
    world.cluster.place(key_slot(A1.encode()), world.another(world.server_of(A1)))
    world.run(2)
    world.topology.look()
    world.run(2)
    for stream in STREAMS:
        assert world.client.of("publish", stream) == world.client.added[stream]
    world.stop()


def test_what_is_left_before_a_deleted_entry_is_published_once_its_stream_is_confirmed() -> None:
    """The loss of the link has ended the stream: it goes on where it was, and the loss is told behind what is left."""
    world = World(1)
    world.want(C)
    world.add(C)
    world.run(0.1)
    world.client.events.clear()
    (server,) = world.cluster.servers
    server.cut()
    for _ in range(3):
        world.add(C)
    world.cluster.delete(C.encode(), 3)
    world.run(8)
    assert [what for what, *_ in world.client.events[:2]] == ["lost", "confirmed"]
    assert world.client.of("publish") == [2, 4]
    behind = world.client.events.index(("confirmed", C, 3))
    assert world.client.events.index(("publish", C, 2)) < behind < world.client.events.index(("publish", C, 4))
    world.stop()


def test_what_is_passed_over_is_told_at_once() -> None:
    """Before the server says more: where the stream is set back to what was published, nothing else would tell it."""
    world = World(1)
    world.want(C)
    (server,) = world.cluster.servers
    server.cut()
    for _ in range(4):
        world.add(C)
    for deleted in (1, 3):
        world.cluster.delete(C.encode(), deleted)
    step_until(world, server, lambda: world.client.of("publish") == [2])
    assert world.client.events[-1] == ("confirmed", C, 3)
    world.run(1)
    assert world.client.of("publish") == [2, 4]
    world.stop()


def test_what_is_deleted_between_a_check_and_the_read_of_what_lags() -> None:
    """What is read around it says nothing of it: it is read up to there, told, and then read on."""
    world = World(2)
    world.want(C)
    server = world.another(world.server_of(C))
    world.cluster.place(key_slot(C.encode()), server)
    world.topology.look()
    for _ in range(4):
        world.add(C)
    server.step()
    world.cluster.delete(C.encode(), 2)
    world.run(1)
    assert world.client.of("publish") == [1, 3, 4]
    told = world.client.events.index(("confirmed", C, 2))
    assert world.client.events.index(("publish", C, 1)) < told < world.client.events.index(("publish", C, 3))
    world.stop()


def test_what_is_deleted_between_two_reads_of_what_lags() -> None:
    """While nobody knows how many entries there were up to where it was read, the count does not show it."""
    world = World(1)
    server = lag_behind_a_deleted_entry(world, 3000)
    step_until(world, server, lambda: len(world.client.of("publish")) > 1)
    world.cluster.delete(C.encode(), world.last - 1)
    world.run(1)
    assert world.client.at[C] == world.last
    assert world.client.skipped[C] == set(), "something is missing, and nobody was told"
    world.stop()


def test_what_is_deleted_before_it_is_read_by_itself() -> None:
    """Nothing of the stream is read until it was checked: what comes meanwhile would pass over what is missing."""
    world = World(1)
    server = lag_behind_a_deleted_entry(world, 1)
    world.cluster.delete(C.encode(), world.last)
    step_until(world, server, lambda: server.asked.count(EXTENT_OF_C) == 3)
    world.add(C)
    world.run(6)
    assert world.client.at[C] == world.last
    assert world.client.skipped[C] == set(), "something is missing, and nobody was told"
    world.stop()


EXTENT_OF_C = (b"XINFO", b"STREAM", C.encode())


def step_until(world: World, server: ServerModel, is_so: Callable[[], bool]) -> None:
    """Answer one command after the other, until something is so."""
    for _ in range(1000):
        if is_so():
            return
        if not server.step(1) | server.deliver():
            world.clock.advance(0.02)
    raise AssertionError("it never is")


def lag_behind_a_deleted_entry(world: World, count: int) -> ServerModel:
    """A stream goes on behind an entry that was deleted before it was read, with so many entries to be read."""
    world.want(C)
    (server,) = world.cluster.servers
    server.cut()
    for _ in range(2 + count):
        world.add(C)
    world.cluster.delete(C.encode(), 2)
    server.asked.clear()
    step_until(world, server, lambda: server.asked.count(EXTENT_OF_C) == 2)
    assert world.client.at[C] == 2
    return server


class Moves(RuleBasedStateMachine):
    """Entries come and go, slots move and servers fail, at any moment of what is asked and answered."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.world.topology.looks_at_once = True
        self.wanted: set[str] = set()
        self.replicas: dict[bytes, StreamModel] = {}
        self.set_back: set[str] = set()
        self.world.client.kept = self.kept

    def kept(self, stream: str) -> list[int]:
        """What is there of it, if that was never set back: then what was said may have been true when it was found."""
        found = self.world.cluster.streams.get(stream.encode(), StreamModel())
        return [] if stream in self.set_back else found.entries

    streams = st.sampled_from(STREAMS)
    slots = st.sampled_from(SLOTS)
    servers = st.integers(0, 2)

    @rule(stream=streams)
    def want(self, stream: str) -> None:
        if stream not in self.wanted:
            self.wanted.add(stream)
            if self.world.source.want(stream) is not None:
                self.world.client.lost(0, [stream], "")

    @rule(stream=streams)
    def unwant(self, stream: str) -> None:
        if stream in self.wanted:
            self.wanted.discard(stream)
            self.world.source.unwant(stream)
            self.world.client.forget(stream)

    @rule(stream=streams, count=st.integers(1, 40), most=st.none() | st.integers(1, 20))
    def add(self, stream: str, count: int, most: int | None) -> None:
        for _ in range(count):
            self.world.add(stream, most)

    @rule(stream=streams, which=st.integers(0, 50))
    def delete(self, stream: str, which: int) -> None:
        kept = self.world.cluster.streams.get(stream.encode(), StreamModel()).entries
        if kept:
            self.world.cluster.delete(stream.encode(), kept[which % len(kept)])

    @rule(server=servers, most=st.integers(1, 8))
    def step(self, server: int, most: int) -> None:
        self.world.cluster.servers[server].step(most)

    @rule(server=servers)
    def deliver(self, server: int) -> None:
        self.world.cluster.servers[server].deliver()

    @rule(turns=st.integers(1, 20), seconds=st.sampled_from([0.0, 0.005, 0.05, 0.3]))
    def turn(self, turns: int, seconds: float) -> None:
        for _ in range(turns):
            self.world.turn()
            self.world.clock.advance(seconds)

    @rule(slot=slots, server=servers, ahead=st.sets(st.sampled_from(KEYS)))
    def begin_a_move(self, slot: int, server: int, ahead: set[bytes]) -> None:
        cluster = self.world.cluster
        if slot not in cluster.going and cluster.slots[slot] is not cluster.servers[server]:
            cluster.going[slot] = cluster.servers[server]
            cluster.gone |= {key for key in ahead if cluster.keys[key] == slot}

    @rule(slot=slots)
    def finish_a_move(self, slot: int) -> None:
        if slot in self.world.cluster.going:
            self.world.cluster.finish(slot)

    @rule(slot=slots)
    def replicate(self, slot: int) -> None:
        for key, stream in self.world.cluster.streams.items():
            if self.world.cluster.keys[key] == slot:
                self.replicas[key] = copy.deepcopy(stream)

    @rule(slot=slots, server=servers)
    def fail_over(self, slot: int, server: int) -> None:
        """To a replica that does not have the newest."""
        cluster, client = self.world.cluster, self.world.client
        if cluster.slots[slot] is cluster.servers[server]:
            return
        for key in [key for key, of in cluster.keys.items() if of == slot]:
            self.set_back.add(key.decode())
            cluster.streams.pop(key, None)
            if key in self.replicas:
                cluster.streams[key] = copy.deepcopy(self.replicas[key])
            last = cluster.streams.get(key, StreamModel()).last
            added = client.added[key.decode()]
            added[:] = [number for number in added if number <= last]
        cluster.place(slot, cluster.servers[server])

    @rule(slot=slots)
    def take_down(self, slot: int) -> None:
        self.world.cluster.down.add(slot)

    @rule(slot=slots)
    def bring_up(self, slot: int) -> None:
        self.world.cluster.down.discard(slot)

    @rule(server=servers)
    def cut(self, server: int) -> None:
        self.world.cluster.servers[server].cut()

    @rule(at_once=st.booleans())
    def look(self, at_once: bool) -> None:
        self.world.topology.looks_at_once = at_once
        self.world.topology.look()

    def teardown(self) -> None:
        """Everything settles, and then nothing is left to be said."""
        world, cluster, client = self.world, self.world.cluster, self.world.client
        for slot in list(cluster.going):
            cluster.finish(slot)
        cluster.down.clear()
        self.look(at_once=True)
        world.run(8)
        for stream in self.wanted:
            assert stream in client.flowing
            assert not client.skipped[stream], "something is missing, and nobody was told"
            assert not [number for number in client.added[stream] if number > client.at[stream]]
        world.stop()


TestMoves = Moves.TestCase
TestMoves.settings = machine_test(1, 60)
