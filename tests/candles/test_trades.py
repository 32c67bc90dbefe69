"""Trades of channels: when all that was published has come."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from marketfeed.candles.trades import HeardTrades
from marketfeed.model.selection import StreamSelection
from marketfeed.redis.address import RedisAddress
from marketfeed.redis.topology import Node
from marketfeed.redis.where import Where
from tests.redis.memory import Connection, resp, stop
from tests.redis.test_routed_listener import Several, roled, subscribed
from tests.redis.test_topology import FakeTopology

A, B = b"p:trade@A", b"p:trade@B"


class Taker:
    """Keeps what it takes."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, bytes]] = []

    def found(self, market: str) -> None: ...
    def refused(self, what: str, why: str) -> None: ...

    def take(self, market: str, payload: bytes, came: int, position: bytes) -> None:
        self.taken.append((market, payload))


class NothingKnown:
    """No market was known before."""

    def ask_for(self, key: bytes, *words: Any) -> Deferred[Any]:
        return succeed([])

    def place_of(self, key: bytes) -> object:
        raise AssertionError


class Stage:
    """What listens on the servers that have the channels, and how far it is by its own account."""

    def __init__(self, *patterns: str, is_sharded: bool) -> None:
        self.clock, self.is_sharded = Clock(), is_sharded
        self.nodes = [Node(name, RedisAddress(host=name), Several(self.clock)) for name in ("one", "two")]
        owners = {A: self.nodes[0], B: self.nodes[1]} if is_sharded else {b"any": self.nodes[0]}
        where = Where(FakeTopology(), FakeTopology(owners), is_sharded=is_sharded)
        self.taker = Taker()
        selection = StreamSelection(patterns)
        self.trades = HeardTrades(self.clock, where, "p:", selection, self.taker, NothingKnown(), self.clock.seconds)
        self.trades.startService()
        self.ends: list[tuple[str, bool, list[bytes]]] = []

    def link(self, index: int) -> Connection:
        """The one to a server on which publications come; another one asks for its role."""
        several = self.nodes[index].endpoint
        assert isinstance(several, Several)
        first, second = several.take()
        if self.is_sharded:
            first.link()
            return roled(second)
        return roled(first)

    def reach(self, market: str) -> None:
        """Keep what is known of its end, with what was taken until then."""
        reached = self.trades.reached_end(market)
        reached.addCallback(lambda has: self.ends.append((market, has, [payload for _, payload in self.taker.taken])))


def test_the_end_is_where_an_answer_on_the_same_link_says_so() -> None:
    """Whatever else is known of Redis: what was published before the question may be under way."""
    stage = Stage("trade@*", is_sharded=False)
    stage.reach("A")
    assert stage.ends.pop() == ("A", False, []), "nothing is heard yet"
    link = stage.link(0)
    assert link.asked() == [(b"PSUBSCRIBE", b"p:trade@*")]
    link.say(resp([b"psubscribe", b"p:trade@*", 1]))
    assert stage.trades.is_reached
    stage.reach("A")
    assert stage.ends == []
    assert link.asked() == [(b"PING",)]
    link.say(resp([b"pmessage", b"p:trade@*", A, b"1"]) + resp([b"pong", b""]))
    assert stage.ends.pop() == ("A", True, [b"1"])
    stage.reach("B")
    link.cut()
    assert stage.ends.pop() == ("B", False, [b"1"])
    stage.reach("B")
    assert stage.ends.pop() == ("B", False, [b"1"])
    stop(stage.trades, stage.clock)


def test_the_server_that_has_the_channel_is_asked() -> None:
    """Of sharded channels each has its own."""
    stage = Stage("trade@A", "trade@B", is_sharded=True)
    links = [stage.link(0), stage.link(1)]
    for link, channel in zip(links, (A, B), strict=True):
        subscribed(link, channel)
    stage.reach("B")
    assert (links[0].asked(), links[1].asked()) == ([], [(b"PING",)])
    links[0].say(resp([b"smessage", A, b"1"]))
    links[1].say(resp([b"smessage", B, b"2"]) + resp([b"pong", b""]))
    assert stage.ends.pop() == ("B", True, [b"1", b"2"])
    stage.reach("A")
    stop(stage.trades, stage.clock)
    assert stage.ends.pop() == ("A", False, [b"1", b"2"])
