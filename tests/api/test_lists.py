"""Clients and streams as the admin port lists them."""

from __future__ import annotations

from typing import Any

from marketfeed.api.clients import ClientFacts
from marketfeed.api.lists import Lists
from marketfeed.boundaries import Subscriber
from marketfeed.model.kinds import BUILT_IN
from marketfeed.model.kinds.kind import LossPolicy, StreamKind
from marketfeed.model.streams import StreamKinds
from marketfeed.websocket.connections import Connection, UserManager
from marketfeed.wire.messages import ServerShutdown
from tests.rooms import Room, member, trade

KINDS = StreamKinds([*BUILT_IN, StreamKind("orders", LossPolicy.KEEP, private=True)])


class Shown:
    """A connection, as the register has it."""

    def __init__(self, facts: ClientFacts, names: list[str], outbox: Subscriber) -> None:
        self._facts = facts
        self._names = names
        self.outbox = outbox

    def backlog(self) -> tuple[int, int]:
        return self._facts.waiting, self._facts.conflated

    def facts(self) -> ClientFacts:
        return self._facts

    def streams(self) -> list[str]:
        return self._names

    def send_away(self, farewell: ServerShutdown, *, at_once: bool) -> None: ...
    def abort(self) -> None: ...
    def beat(self, now: float, patience: float) -> None: ...


class Market:
    """A hub with clients, and the lists of them."""

    def __init__(self) -> None:
        self.room = Room(kinds=KINDS)
        self.clock = self.room.clock
        self.users = UserManager(self.clock, 100, 0.0, self.clock.seconds)
        self.lists = Lists(self.clock, self.room.hub, self.users, KINDS)

    def add(self, *streams: str, waiting: int = 0, user: str = "", peer: str = "10.0.0.1:5", **facts: Any) -> str:
        client = member(self.room, *streams)
        name = self.users.name(len(self.users) + 1)
        fields = {"age": 1.0, "limit": 1000, "conflated": 0, "rtt": None, **facts}
        shown = ClientFacts(client=name, peer=peer, user=user, waiting=waiting, streams=len(streams), **fields)
        connection: Connection = Shown(shown, list(streams), client.outbox)
        self.users.add(connection)
        return name


def names(rows: list[ClientFacts]) -> list[str]:
    return [row.client for row in rows]


def test_the_slowest_come_first() -> None:
    market = Market()
    a, b, c = market.add("trade@A", waiting=5), market.add("trade@A", waiting=9), market.add("trade@A", conflated=3)
    assert names(market.lists.clients("", "queue", 50)) == [b, a, c]
    assert names(market.lists.slowest) == [b, a, c]
    assert names(market.lists.clients("", "queue", 1)) == [b]
    assert names(market.lists.clients("", "conflated", 50)) == [c, b, a]
    for order in ("rtt", "streams", "age"):
        assert len(market.lists.clients("", order, 50)) == 3


def test_clients_are_found_by_name_address_and_user() -> None:
    market = Market()
    alice = market.add("trade@A", user="Alice", peer="10.7.0.1:99")
    bob = market.add("trade@A", user="bob")
    assert names(market.lists.clients("alice", "queue", 50)) == [alice]
    assert names(market.lists.clients("10.7", "queue", 50)) == [alice]
    assert names(market.lists.clients(bob, "queue", 50)) == [bob]
    assert market.lists.clients("nobody", "queue", 50) == []


def test_a_list_is_made_once_a_second() -> None:
    """However many look."""
    market = Market()
    first = market.add("trade@A")
    assert names(market.lists.clients("", "queue", 50)) == [first]
    second = market.add("trade@B")
    assert names(market.lists.clients("", "queue", 50)) == [first]
    assert len(market.lists.streams("", "rate", 50)) == 2
    market.clock.advance(1)
    assert set(names(market.lists.clients("", "queue", 50))) == {first, second}


def test_the_busiest_streams_come_first() -> None:
    market = Market()
    market.add("trade@A", "trade@B")
    market.add("trade@A")
    market.room.source.publish("trade@B", trade())
    assert [row.stream for row in market.lists.streams("", "rate", 50)] == ["trade@B", "trade@A"]
    assert [row.stream for row in market.lists.streams("", "clients", 50)] == ["trade@A", "trade@B"]
    assert [row.stream for row in market.lists.streams("@a", "kept", 50)] == ["trade@A"]
    assert [row.stream for row in market.lists.streams("", "quiet", 50)] == ["trade@A", "trade@B"]


def test_one_client_and_its_streams() -> None:
    """Those of private kinds are masked."""
    market = Market()
    name = market.add("trade@A", "orders@alice")
    found = market.lists.client(name)
    assert found is not None
    assert (found["client"], found["names"]) == (name, ["trade@A", "orders@…"])
    for other in ("", "x", "x-1", market.users.name(99), name + "0", "½"):
        assert market.lists.client(other) is None


def test_one_stream_with_what_came_last() -> None:
    market = Market()
    slow = market.add("trade@A", waiting=7)
    quick = market.add("trade@A")
    market.add("trade@B", waiting=99)
    market.room.source.publish("trade@A", *[trade(number) for number in range(20)])
    found: list[Any] = []
    market.lists.stream("trade@A").addCallback(found.append)
    (stream,) = found
    assert stream["watch"] == "marketfeed watch trade@A"
    assert [each["data"].encode() for each in stream["last"]] == [trade(number) for number in range(19, 9, -1)]
    assert names(stream["subscribers"]) == [slow, quick]


def test_private_streams_are_numbers() -> None:
    """No market, no publication, no place in the stream."""
    market = Market()
    market.add("orders@alice")
    market.room.source.publish("orders@alice", b'{"e":"order"}')
    (row,) = market.lists.streams("", "rate", 50)
    assert (row.stream, row.offset, row.clients, row.kept) == ("orders@…", None, 1, 1)
    assert market.lists.streams("alice", "rate", 50) == []
    found: list[Any] = []
    for name in ("orders@alice", "orders@…", "trade@NONE", "", "no stream"):
        market.lists.stream(name).addCallback(found.append)
    assert found == [None] * 5
