"""Where keys are, and a service for each server."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, cast

import pytest
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from marketfeed.redis.address import RedisAddress
from marketfeed.redis.per_node import PerNode
from marketfeed.redis.topology import Node, OneServer, Topology, key_slot
from tests.redis.memory import Endpoint

__all__ = ["FakeTopology", "node"]


def node(name: str, clock: Clock | None = None) -> Node:
    return Node(f"redis {name}", RedisAddress(host=name), Endpoint(clock or Clock()))


class FakeTopology:
    """Servers, each of which has some keys, as the test says."""

    def __init__(self, owners: dict[bytes, Node] | None = None) -> None:
        self.epoch = 0
        self.is_known = True
        self.owners = owners or {}
        self.others: list[Node] = []  # that have nothing
        self.doubts: list[str] = []
        self.doubted: Callable[[str], None] = lambda fault: None
        self._followers: list[Callable[[], None]] = []

    @property
    def nodes(self) -> Collection[Node]:
        return list(dict.fromkeys([*self.owners.values(), *self.others]))

    def node_for(self, key: bytes) -> Node | None:
        return self.owners.get(key)

    def follow(self, changed: Callable[[], None]) -> None:
        self._followers.append(changed)

    def doubt(self, fault: str = "") -> None:
        self.doubts.append(fault)
        self.doubted(fault)

    def named_in(self, fault: str) -> Node | None:
        return next((each for each in self.nodes if each.address.host in fault), None)

    def certain_at(self, node: Node) -> float:
        return math.inf

    def change(self, owners: dict[bytes, Node] | None = None) -> None:
        self.epoch += 1
        self.owners = self.owners if owners is None else owners
        for changed in self._followers:
            changed()


if TYPE_CHECKING:
    _topology: Topology = FakeTopology()
    _one: Topology = OneServer(cast("Node", None))


@pytest.mark.parametrize(
    ("key", "slot"),
    [(b"123456789", 12739), (b"foo{123456789}bar", 12739), (b"{}123456789", None), (b"{123456789", None), (b"", 0)],
)
def test_the_slot_of_a_key(key: bytes, slot: int | None) -> None:
    """By the check value of the polynomial that the specification names; an empty tag is none."""
    if slot is None:
        assert key_slot(key) != 12739
    else:
        assert key_slot(key) == slot
    assert key_slot(b"a{b}{c}") == key_slot(b"b")
    assert key_slot(b"a{{b}}") == key_slot(b"{b")


def test_one_server_has_everything() -> None:
    only = node("a")
    topology = OneServer(only)
    assert list(topology.nodes) == [only]
    assert topology.node_for(b"x") is only
    topology.follow(lambda: pytest.fail("it never changes"))
    topology.doubt("MOVED 1 b:1")
    assert topology.named_in("ASK 1 b:1") is None


class Part(Service):
    """What runs for a node; its end takes until the test says so."""

    def __init__(self, of: Node) -> None:
        self.of = of
        self.ends: list[Deferred[None]] = []

    def stopService(self) -> Deferred[None]:
        super().stopService()
        self.ends.append(Deferred())
        return self.ends[-1]


def test_a_service_for_each_node() -> None:
    """It begins and ends with its node; the end of all waits for those that were ended before."""
    a, b, c = node("a"), node("b"), node("c")
    topology = FakeTopology({b"x": a, b"y": b})
    parts: Any = PerNode(topology, Part)
    assert [part.of for part in parts.each()] == [a, b]
    assert not any(part.running for part in parts.each())
    parts.startService()
    first, second = parts.at(a), parts.at(b)
    assert first.running
    assert second.running
    topology.change({b"x": b, b"y": c})
    assert not first.running
    assert second is parts.at(b)
    assert parts.at(c).running
    ended: list[object] = []
    parts.stopService().addCallback(ended.append)
    for part in (second, parts.at(c)):
        part.ends[0].callback(None)
    assert not ended
    first.ends[0].callback(None)
    assert ended
