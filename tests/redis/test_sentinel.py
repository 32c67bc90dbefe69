"""The master by the word of its sentinels: which is believed, since when it is not certain any more, who is asked."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionRefusedError

from marketfeed.redis.address import RedisAddress
from marketfeed.redis.commands import RedisCommands
from marketfeed.redis.pubsub import RedisPubSub
from marketfeed.redis.routed_source import RoutedSource
from marketfeed.redis.sentinel import MOST_SENTINELS, SPREAD_SECONDS, SentinelTopology, believed, most_said_so_at
from marketfeed.redis.sentinel_link import ASK_SECONDS, Master
from marketfeed.redis.topology import Node, Topology
from tests.redis.memory import PONG, Endpoint, resp, stop
from tests.redis.sentinels import NOW, FakeSentinel, World
from tests.redis.test_routed_source import Heard
from tests.strategies import property_test

masters = st.builds(Master, st.integers(0, 3), st.sampled_from("ab"), st.integers(1, 2))


@property_test
@given(st.none() | masters, st.lists(masters, max_size=5), st.integers(0, 3))
def test_who_is_believed(present: Master | None, said: list[Master], silent: int) -> None:
    """The highest epoch; what is behind it only by most of all, and where nobody says what was believed."""
    count = len(said) + silent
    master = believed(present, said, count)
    if not said:
        assert master == present
        return
    assert master is not None
    newest = max(each.epoch for each in said)
    if present is None or newest > present.epoch:
        assert master in said
        assert master.epoch == newest
    elif master != present:
        assert present not in said
        assert Counter(said)[master] * 2 > count
    else:
        assert present in said or all(2 * votes <= count for votes in Counter(said).values())


@property_test
@given(st.lists(masters, min_size=1, max_size=20), st.lists(st.booleans(), min_size=20, max_size=20))
def test_a_minority_never_leads_back(heard: list[Master], stale: list[bool]) -> None:
    """Whatever one of three says in whichever order, as long as another says what is believed."""
    present: Master | None = None
    for said, is_alone in zip(heard, stale, strict=False):
        before = present
        present = believed(present, [said] if is_alone or present is None else [said, present], 3)
        assert present is not None
        assert before is None or present.epoch >= before.epoch


@pytest.mark.parametrize(
    ("times", "count", "at"),
    [([], 1, None), ([5.0], 1, 5.0), ([5.0], 2, None), ([9.0, 5.0, 7.0], 3, 7.0), ([9.0, 5.0, 7.0], 5, 5.0)],
)
def test_when_most_had_said_so(times: list[float], count: int, at: float | None) -> None:
    assert most_said_so_at(times, count) == at


class Stage(World):
    """A topology with sentinels, `named` of which are named at the start."""

    def __init__(self, count: int = 3, named: int = 3, **address: object) -> None:
        super().__init__()
        self.fakes = self.sentinels(count)
        self.topology = SentinelTopology(self.clock, self.address(named, **address), self.endpoint, self.now)
        self.changes: list[str] = []
        self.topology.follow(lambda: self.changes.append(self.master))
        self.topology.startService()

    @property
    def node(self) -> Node:
        (node,) = self.topology.nodes
        return node

    @property
    def master(self) -> str:
        return f"{self.node.address.host}:{self.node.address.port}"

    @property
    def certain_at(self) -> float:
        return self.topology.certain_at(self.node)

    def tick(self, seconds: float = ASK_SECONDS) -> None:
        """Time passes, and those that are connected answer what they are asked."""
        for _ in range(round(seconds / ASK_SECONDS)):
            self.clock.advance(ASK_SECONDS)
            for each in self.fakes:
                if each.connection is not None and each.connection.is_open:
                    each.answer()

    def end(self) -> None:
        stop(self.topology, self.clock)


if TYPE_CHECKING:
    _topology: Topology = Stage().topology


def test_the_first_answer_says_where_the_master_is() -> None:
    """Nothing is known before. It is logged in to as servers are, not as sentinels are."""
    stage = Stage(username="u", password="p", database=2, sentinel_username="s", sentinel_password="w", tls=True)
    assert not stage.topology.is_known
    assert list(stage.topology.nodes) == []
    assert stage.topology.node_for(b"x") is None
    connection = stage.fakes[1].endpoint.accept()
    assert connection.asked() == [(b"AUTH", b"s", b"w")]
    connection.say(b"+OK\r\n")
    stage.fakes[1].connection = connection
    stage.fakes[1].answer()
    assert stage.changes == ["a:1"]
    assert stage.topology.is_known
    assert stage.topology.node_for(b"x") is stage.node
    assert stage.node.address == RedisAddress("a", 1, "", True, "u", "p", 2, master_only=True)
    assert stage.topology.named_in("MOVED 1 a:1") is None
    stage.end()


def test_that_none_can_be_reached_is_known() -> None:
    stage = Stage()
    for each in stage.fakes:
        assert not stage.topology.is_known
        each.endpoint.refuse(ConnectionRefusedError())
    assert stage.topology.is_known
    assert list(stage.topology.nodes) == []
    stage.end()


def test_a_switch_is_followed_at_once() -> None:
    """The others, who say what was before, do not lead back, nor does one that comes later."""
    stage = Stage()
    for each in stage.fakes[:2]:
        each.up()
    before = stage.node
    stage.fakes[0].switch(1, "b:1")
    assert stage.changes == ["a:1", "b:1"]
    assert stage.node is not before
    assert stage.topology.epoch == 2
    stage.tick(3)
    stage.fakes[2].up()
    stage.tick(3)
    assert stage.changes == ["a:1", "b:1"]
    for each in stage.fakes[1:]:
        each.switch(1, "b:1")
    assert stage.changes == ["a:1", "b:1"]
    stage.end()


def test_a_higher_epoch_is_another_node() -> None:
    """Even at the same address: meanwhile another one was the master."""
    stage = Stage()
    stage.fakes[0].up()
    before = stage.node
    stage.fakes[0].switch(2, "a:1")
    assert stage.changes == ["a:1", "a:1"]
    assert stage.node is not before
    stage.end()


def test_sentinels_that_were_set_up_anew() -> None:
    """Begin with the first epoch. Most of them are believed, once nobody says what was before."""
    stage = Stage()
    for each in stage.fakes:
        each.epoch = 5
        each.up()
    node = stage.node
    for each in stage.fakes:
        each.switch(0, "a:1")
    stage.tick()
    assert stage.node is node
    for each in stage.fakes[:2]:
        each.switch(0, "b:1")
    assert stage.master == "a:1"
    stage.fakes[2].switch(0, "b:1")
    assert stage.master == "b:1"
    stage.end()


def test_nothing_happens_while_no_sentinel_answers() -> None:
    """The node stays, and its certainty with it."""
    stage = Stage()
    for each in stage.fakes:
        each.up()
    node, certain_at = stage.node, stage.certain_at
    for each in stage.fakes:
        assert each.connection is not None
        each.connection.cut()
    stage.clock.advance(100)
    assert stage.node is node
    assert stage.topology.certain_at(node) == certain_at == NOW - SPREAD_SECONDS
    stage.end()


def test_since_when_a_master_is_not_certain() -> None:
    """Most of the sentinels must have said so, and what one has said later is not known to the others at once."""
    stage = Stage()
    stage.fakes[0].up()
    stage.tick(5)
    assert stage.certain_at == NOW - SPREAD_SECONDS
    stage.fakes[1].up()
    assert stage.certain_at == NOW + 5 - SPREAD_SECONDS
    stage.tick(5)
    assert stage.certain_at == NOW + 10 - SPREAD_SECONDS
    assert stage.fakes[1].connection is not None
    stage.fakes[1].connection.cut()
    before = stage.node
    stage.tick(5)
    assert stage.topology.certain_at(before) == NOW + 10 - SPREAD_SECONDS
    stage.fakes[0].switch(1, "b:1")
    stage.tick(5)
    assert stage.topology.certain_at(before) == NOW + 10 - SPREAD_SECONDS
    assert stage.certain_at == NOW + 15 - SPREAD_SECONDS
    stage.end()


def test_the_sentinels_that_are_told_of_are_asked_as_well() -> None:
    """So that those that were named may all be gone."""
    stage = Stage(count=3, named=1)
    stage.fakes[0].up()
    for each in stage.fakes[1:]:
        each.up()
    assert stage.fakes[0].connection is not None
    stage.fakes[0].connection.cut()
    stage.fakes[0].endpoint.refuse(ConnectionRefusedError()) if stage.fakes[0].endpoint.is_waiting else None
    stage.fakes[2].switch(1, "b:1")
    assert stage.master == "b:1"
    stage.end()


def test_a_sentinel_of_whom_nobody_tells_any_more() -> None:
    """Is not asked any more, unless it answers, or was named."""
    stage = Stage(count=4, named=2)
    first, _, third, fourth = stage.fakes
    first.up()
    third.up()
    fourth.up()
    assert fourth.connection is not None
    fourth.connection.cut()
    for each in (first, third):
        each.others = {}
    stage.tick()
    attempts = [len(each.endpoint.attempts) for each in stage.fakes]
    stage.clock.advance(4)
    stage.tick(20)
    after = [len(each.endpoint.attempts) for each in stage.fakes]
    assert after[3] == attempts[3]
    assert third.connection is not None
    assert third.connection.is_open
    assert stage.fakes[1].endpoint.is_waiting
    stage.end()


def test_a_sentinel_under_two_addresses_is_one() -> None:
    """The one that was named by a name, and is told of by its address, has one voice."""
    stage = Stage(count=3, named=2)
    first, second, third = stage.fakes
    first.others = {second.id: "10.0.0.2:1", third.id: "s3:1"}
    alias = FakeSentinel(2, stage.at("10.0.0.2"))
    alias.others = second.others
    first.up()
    alias.up()
    stage.tick()
    assert alias.connection is not None
    second.up()
    stage.tick()
    stage.clock.advance(0)
    assert not alias.connection.is_open
    stage.end()


def test_a_sentinel_that_tells_of_ever_more() -> None:
    stage = Stage(count=1, named=1)
    stage.fakes[0].others = {f"id{number}": f"h{number}:1" for number in range(100)}
    stage.fakes[0].up()
    assert len(stage.endpoints) == 1 + 1 + MOST_SENTINELS
    stage.end()


def test_a_switch_drops_the_links_to_the_old_master_at_once() -> None:
    """However well they are. What came since the old one was certainly the master is a gap, which ends on the new."""
    stage = Stage()
    heard = Heard()
    prefix = ""

    def make(node: Node) -> RedisPubSub:
        commands = RedisCommands(stage.clock, Endpoint(stage.clock), RedisAddress())
        certain_at = partial(stage.topology.certain_at, node)
        return RedisPubSub(
            stage.clock, node.endpoint, node.address, heard, commands, prefix, stage.now, certain_at=certain_at
        )

    source = RoutedSource(stage.topology, make, heard, prefix, stage.now)
    source.startService()
    assert source.want("trade@A") is None
    for each in stage.fakes:
        each.up()
    assert heard.take() == []
    (link,) = list(source.each())
    connection = stage.at("a").accept()
    connection.answer(PONG, resp([b"master", 0, []]), resp("NOPERM"))
    assert connection.asked() == [(b"SUBSCRIBE", b"trade@A")]
    connection.say(resp([b"subscribe", b"trade@A", 1]))
    for _ in range(5):
        stage.tick()
        for asked in connection.asked():
            assert asked == (b"PING",)
            connection.say(PONG)
    assert heard.take() == [("reached", "redis")]
    stage.fakes[2].switch(1, "b:1")
    assert link.link is None
    stage.clock.advance(0)
    assert not connection.is_open
    since = int((NOW + 5 - SPREAD_SECONDS) * 1000)
    assert heard.take() == [("lost", since, ["trade@A"], "")]
    successor = stage.at("b").accept()
    successor.answer(PONG, resp([b"slave", b"a", 1, b"connected", 5]))
    stage.clock.advance(0)
    (link,) = list(source.each())
    assert link.cause == "the server is no master, though the sentinels say so"
    while not stage.at("b").is_waiting:
        stage.tick()
    successor = stage.at("b").accept()
    successor.answer(PONG, resp([b"master", 0, []]), resp("NOPERM"))
    assert successor.asked() == [(b"SUBSCRIBE", b"trade@A")]
    source.stopService()
    stage.end()


def test_a_doubt_asks_all_of_them() -> None:
    stage = Stage(count=2, named=2)
    for each in stage.fakes:
        each.up()
    stage.topology.doubt("READONLY")
    assert [each.answer() for each in stage.fakes] == [3, 3]
    stage.end()
