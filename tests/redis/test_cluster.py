"""A cluster, as its nodes describe it one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from twisted.internet.task import Clock
from twisted.logger import formatEvent

from marketfeed.redis.address import ClusterAddress, RedisAddress
from marketfeed.redis.any_node import AnyNode
from marketfeed.redis.cluster import HINT_SECONDS, HINTS, LOOK_SECONDS, ClusterTopology
from marketfeed.redis.cluster_view import SPREAD_SECONDS
from marketfeed.redis.topology import Node, Topology, key_slot
from tests.conftest import LogCapture
from tests.redis.memory import Connection, Endpoint, resp
from tests.redis.test_cluster_view import THREE, Row, written

NOW = 1_700_000_000
A_KEY, B_KEY, C_KEY = b"a", b"c", b"b"
assert [key_slot(key) // 5461 for key in (A_KEY, B_KEY, C_KEY)] == [2, 1, 0]
A_KEY, C_KEY = C_KEY, A_KEY

TAKEN: tuple[Row, ...] = (("a", "master,fail", 1, ""), *THREE[1:3], ("d", "master", 4, "0-5460"))


def connection_from(node: str, made_at: int = 1) -> list[object]:
    """One of the rows of CLUSTER LINKS."""
    return [b"direction", b"from", b"node", node.encode(), b"create-time", made_at]


class Cluster:
    """The nodes of `test_cluster_view`, each of which says what the test lets it say: what stands in `says`."""

    def __init__(self, *seeds: str, with_words: bool = False) -> None:
        self.clock = Clock()
        self.endpoints: dict[int, Endpoint] = {}
        self.servers: dict[str, Connection] = {}
        self.says: dict[str, bytes] = {}
        self.links: dict[str, list[object]] = {}
        address = ClusterAddress(tuple(("10.0.0.1", ord(seed)) for seed in seeds or ("a",)))
        self.topology = ClusterTopology(
            self.clock, address, self.endpoint, lambda: NOW + self.clock.seconds(), with_words=with_words
        )
        self.changes = 0
        self.topology.follow(self.changed)
        self.topology.startService()

    def changed(self) -> None:
        self.changes += 1

    def endpoint(self, address: RedisAddress) -> Endpoint:
        assert address.host == "10.0.0.1"
        return self.endpoints.setdefault(address.port, Endpoint(self.clock))

    def let(self, rows: tuple[Row, ...], *names: str, disconnected: str = "") -> None:
        """These nodes say this from now on."""
        for name in names:
            self.says[name] = written(name, *rows, disconnected=disconnected)

    def connect(self, *names: str) -> None:
        for name in names:
            self.servers[name] = self.endpoints[ord(name)].link()
            self.answer()

    def answer(self) -> None:
        """Let all answer what they were asked."""
        for _ in range(8):
            for name, server in self.servers.items():
                for command in server.asked() if server.is_open else ():
                    server.say(self.reply(name, command))

    def reply(self, name: str, command: tuple[bytes, ...]) -> bytes:
        if command[0] == b"CONFIG":
            return resp([b"cluster-node-timeout", b"5000"])
        if command == (b"CLUSTER", b"LINKS"):
            return resp(self.links.get(name, [connection_from(other) for other in "abcd" if other != name]))
        if command == (b"TIME",):
            return resp([b"1700000002", b"500000"])
        return b"+PONG\r\n" if command == (b"PING",) else resp(self.says[name])

    def look(self, seconds: float = LOOK_SECONDS) -> None:
        self.clock.advance(seconds)
        self.answer()

    def places(self) -> str:
        """Who has a key of each third."""
        nodes = [self.topology.node_for(key) for key in (A_KEY, B_KEY, C_KEY)]
        return "".join("-" if node is None else chr(node.address.port) for node in nodes)

    def node(self, name: str) -> Node:
        (found,) = [node for node in self.topology.nodes if node.address.port == ord(name)]
        return found

    def cut(self, name: str) -> None:
        self.servers.pop(name).cut()

    def stop(self) -> None:
        ended: list[object] = []
        self.topology.stopService().addBoth(ended.append)
        self.clock.advance(0)
        assert len(ended) == 1
        assert self.clock.getDelayedCalls() == []


if TYPE_CHECKING:
    _topology: Topology = Cluster().topology
    _any: Topology = AnyNode(Cluster().topology)


def known() -> Cluster:
    """All three masters are asked."""
    cluster = Cluster()
    cluster.let(THREE, "a", "b", "c", "d")
    cluster.connect("a", "b", "c")
    return cluster


def test_a_cluster_is_known_from_one_node() -> None:
    """Then all its masters are asked, and not those any more that were only named; its replicas serve nothing."""
    cluster = Cluster("d", "a")
    assert not cluster.topology.is_known
    assert not cluster.topology.nodes
    assert cluster.topology.node_for(A_KEY) is None
    cluster.let(THREE, "a", "b", "c", "d")
    cluster.connect("d")
    assert cluster.topology.is_known
    assert (cluster.places(), cluster.changes, cluster.topology.epoch) == ("abc", 1, 1)
    assert [node.name for node in cluster.topology.nodes] == [f"redis 10.0.0.1:{port}" for port in (97, 98, 99)]
    cluster.connect("a", "b", "c")
    cluster.look()
    assert not cluster.servers["d"].is_open
    assert cluster.changes == 1
    cluster.stop()


def test_a_replica_takes_over(logged: LogCapture) -> None:
    """One node that knows is enough; the node that it was is gone, and where nobody has slots that is said."""
    cluster = known()
    old = cluster.node("a")
    cluster.cut("a")
    cluster.let(TAKEN, "c", "d")
    cluster.look()
    assert (cluster.places(), cluster.changes) == ("dbc", 2)
    assert old not in cluster.topology.nodes
    cluster.connect("d")
    cluster.let(TAKEN[:3], "b", "c", "d")
    cluster.look()
    assert cluster.places() == "dbc"  # the old word of a stays as long as nobody has a newer one for its slots
    lines = [str(formatEvent(event)) for event in logged.events if "slots have moved" in str(event)]
    assert lines
    cluster.stop()


def test_a_node_that_sends_elsewhere_is_believed_at_once() -> None:
    """For that slot, until the word of the others is there: if it does not come, not for ever, nor again and again."""
    cluster = known()
    slot = key_slot(A_KEY)
    cluster.topology.doubt(f"MOVED {slot} 10.0.0.1:98")
    assert (cluster.places(), cluster.changes) == ("bbc", 2)
    cluster.topology.doubt(f"MOVED {slot} 10.0.0.1:99")
    assert cluster.places() == "bbc"
    cluster.look()
    assert cluster.places() == "bbc"
    cluster.look(HINT_SECONDS)
    assert (cluster.places(), cluster.changes) == ("abc", 3)
    cluster.stop()


def test_of_many_slots_that_have_moved_some_are_believed_at_once() -> None:
    """For each, all that follow look at all that they have; the answers of the others say the rest."""
    cluster = known()
    for slot in range(3 * HINTS):
        cluster.topology.doubt(f"MOVED {slot} 10.0.0.1:98")
    assert cluster.changes == 1 + HINTS
    cluster.let((("a", "master", 1, "100-5460"), ("b", "master", 4, "0-99 5461-10922"), *THREE[2:]), "a", "b", "c")
    cluster.answer()
    assert cluster.changes == 2 + HINTS
    cluster.stop()


@pytest.mark.parametrize(
    "fault", ["", "MOVED", "MOVED x y", "MOVED 99999 10.0.0.1:98", "MOVED 1 10.0.0.2:98", "MOVED 1 b"]
)
def test_what_says_nothing(fault: str) -> None:
    """All are asked at once all the same."""
    cluster = known()
    cluster.topology.doubt(fault)
    assert cluster.changes == 1
    assert [server.asked() for server in cluster.servers.values()] == 3 * [[(b"CLUSTER", b"NODES")]]
    cluster.servers.clear()
    cluster.stop()


def test_who_is_doubted_while_it_is_asked_is_asked_again() -> None:
    cluster = known()
    cluster.topology.doubt()
    cluster.topology.doubt()
    server = cluster.servers["a"]
    assert server.asked() == [(b"CLUSTER", b"NODES")]
    server.say(resp(cluster.says["a"]))
    assert server.asked() == [(b"CLUSTER", b"NODES")]
    cluster.servers.clear()
    cluster.stop()


def test_where_nobody_can_be_asked_all_stays_as_it_was() -> None:
    """Those that the operator has named are asked again, which may be elsewhere by now."""
    cluster = known()
    for name in "abc":
        cluster.cut(name)
    cluster.look()
    assert (cluster.places(), cluster.changes) == ("abc", 1)
    cluster.stop()


def test_a_server_that_is_no_cluster(logged: LogCapture) -> None:
    """Is said once."""
    cluster = Cluster()
    server = cluster.endpoints[ord("a")].link()
    for _ in range(3):
        for command in server.asked():
            text = "ERR This instance has cluster support disabled"
            server.say(resp(text if command[0] == b"CLUSTER" else b"PONG"))
        cluster.clock.advance(LOOK_SECONDS)
    lines = [str(formatEvent(event)) for event in logged.events if "cluster support" in str(formatEvent(event))]
    assert lines == ["redis 10.0.0.1:97 map: redis://10.0.0.1:97: ERR This instance has cluster support disabled"]
    logged.events.clear()
    assert not cluster.topology.is_known
    cluster.stop()


def test_how_long_a_node_was_certain() -> None:
    """By the word of most; of one that was replaced, until it was."""
    cluster = known()
    cluster.look(3.0)
    node = cluster.node("a")
    assert cluster.topology.certain_at(node) == NOW + 3 - SPREAD_SECONDS
    before: list[float] = []
    cluster.topology.follow(lambda: before.append(cluster.topology.certain_at(node)))
    cluster.let(TAKEN, "b", "c", "d")
    cluster.look(2.0)
    assert before == [NOW + 3 - SPREAD_SECONDS]
    cluster.stop()


# One node for all.

OTHERS = [connection_from("c"), connection_from("d")]
TO = [b"direction", b"to", b"node", b"b", b"create-time", 3]


def one_of(cluster: Cluster) -> tuple[AnyNode, list[str]]:
    """The first that is good, and whom it was each time that it changed."""
    chosen = AnyNode(cluster.topology, lambda nodes: nodes[0])
    changes: list[str] = []
    chosen.follow(lambda: changes.append("".join(chr(node.address.port) for node in chosen.nodes)))
    return chosen, changes


def one_of_three() -> tuple[Cluster, AnyNode, list[str]]:
    """The same, where all three have said that they are whole."""
    cluster = Cluster(with_words=True)
    chosen, changes = one_of(cluster)
    cluster.let(THREE, "a", "b", "c")
    cluster.connect("a", "b", "c")
    cluster.look()
    return cluster, chosen, changes


def test_one_that_reaches_all() -> None:
    """As long as it does; where none does there is none."""
    cluster = Cluster(with_words=True)
    chosen, changes = one_of(cluster)
    assert chosen.node_for(b"x") is None
    cluster.let(THREE, "a", "b", "c")
    cluster.connect("a", "b", "c")
    cluster.look()
    assert changes == ["a"]
    assert chosen.node_for(b"x") is chosen.node_for(b"y")
    cluster.let(THREE, "a", disconnected="b")
    cluster.look()
    assert changes == ["a", "b"]
    cluster.let(THREE, "b", "c", disconnected="a")
    cluster.look()
    assert changes == ["a", "b", "c", ""]
    assert chosen.node_for(b"x") is None
    cluster.let(THREE, "a", "b", "c")
    cluster.look()
    assert changes[4:] == ["a"]
    cluster.cut("a")
    cluster.look()
    assert changes[5:] == ["b"]
    cluster.stop()


def test_a_connection_between_nodes_that_was_made_anew() -> None:
    """The node is another one then, though it is the same."""
    cluster = Cluster(with_words=True)
    chosen, changes = one_of(cluster)
    cluster.let(THREE, "a", "b", "c")
    cluster.links["a"] = [TO, *OTHERS, connection_from("b")]
    cluster.connect("a", "b", "c")
    cluster.look()
    before = chosen.node_for(b"x")
    cluster.links["a"] = [*OTHERS, connection_from("b")]
    cluster.look()
    assert chosen.node_for(b"x") is before
    cluster.links["a"] = [*OTHERS, connection_from("b", 2), TO]
    cluster.look()
    after = chosen.node_for(b"x")
    assert changes == ["a", "a"]
    assert before is not None
    assert after is not None
    assert after is not before
    assert after.address == before.address
    cluster.stop()


def test_it_is_certain_until_it_had_last_heard_from_all() -> None:
    """By its own clock: each had answered 2.5 s before it was asked."""
    cluster, chosen, _ = one_of_three()
    cluster.look()
    node = chosen.node_for(b"x")
    assert node is not None
    assert chosen.certain_at(node) == NOW + 2 * LOOK_SECONDS - 2.5
    cluster.stop()


def test_a_node_that_is_gone_may_have_been_out_of_reach_before() -> None:
    """Between two questions most masters have agreed on it: what came through it since it was last heard is missing."""
    cluster, chosen, changes = one_of_three()
    before = chosen.node_for(b"x")
    assert before is not None
    certain = chosen.certain_at(before)
    lost_since: list[float] = []
    chosen.follow(lambda: lost_since.append(chosen.certain_at(before)))
    cluster.let((*THREE[:3], ("d", "slave,fail", 1, "")), "a", "b", "c")
    cluster.look()
    assert changes == ["a", "a"]
    assert lost_since == [certain]
    cluster.look()
    cluster.let(THREE, "a", "b", "c")
    cluster.look()
    assert changes == ["a", "a"]  # what it was told while it was gone nobody could know
    cluster.stop()


def test_a_node_that_has_no_connection() -> None:
    """To the one that is to hear all: it is there, and what it is told is not passed on."""
    cluster, chosen, changes = one_of_three()
    cluster.links |= {"a": OTHERS, "c": []}
    cluster.look()
    assert changes == ["a", "b"]
    cluster.links["b"] = OTHERS
    cluster.look()
    assert changes == ["a", "b", ""]
    assert chosen.node_for(b"x") is None
    cluster.stop()
