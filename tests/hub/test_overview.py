"""What an operator is shown of a stream."""

from __future__ import annotations

import pytest

from marketfeed.hub.overview import StreamFacts
from marketfeed.model.kinds import BUILT_IN
from marketfeed.model.kinds.kind import LossPolicy, StreamKind
from marketfeed.model.streams import StreamKinds
from tests.fakes import FakeSnapshots
from tests.rooms import EPOCH, Room, depth, member, ticker, trade


def facts(room: Room, stream: str) -> StreamFacts:
    found = room.hub.overview.stream(stream)
    assert found is not None
    return found[0]


def test_a_stream_that_flows() -> None:
    room = Room()
    clients = [member(room, "depth@A"), member(room, "depth@A", "depth@A@100ms")]
    room.source.publish("depth@A", depth(1, is_snapshot=True), depth(2))
    shown = facts(room, "depth@A")
    assert (shown.kind, shown.is_private, shown.clients, shown.flows, shown.gap) == ("depth", False, 3, True, None)
    assert (shown.state, shown.kept, shown.rate, shown.heard) == ("complete", 2, 0.2, EPOCH * 1000)
    assert shown.offset is not None
    assert [each.stream for each in room.hub.overview.streams()] == ["depth@A"]
    room.end(*clients)


def test_what_is_not_known() -> None:
    """Nothing has come, or what came last is not known any more; trades have no state."""
    room = Room()
    clients = [member(room, "ticker@A"), member(room, "trade@A")]
    assert (facts(room, "ticker@A").state, facts(room, "ticker@A").rate) == ("incomplete", 0.0)
    room.source.publish("ticker@A", ticker(1))
    assert facts(room, "ticker@A").state == "complete"
    assert facts(room, "trade@A").state is None
    room.source.lose((EPOCH + 1) * 1000)
    lost = facts(room, "ticker@A")
    assert (lost.flows, lost.gap, lost.state) == (False, ("source-down", (EPOCH + 1) * 1000), "incomplete")
    assert room.hub.overview.stream("trade@B") is None
    room.end(*clients)


def test_who_is_in_it() -> None:
    room = Room()
    one, other, third = member(room, "trade@A"), member(room, "trade@A", "trade@B"), member(room, "trade@B")
    found = room.hub.overview.stream("trade@A")
    assert found is not None
    assert found[1] == {one.outbox, other.outbox}
    room.end(one, other, third)


def test_the_rate_is_of_the_last_ten_seconds() -> None:
    """Of what is kept, where that is less; where nothing is ever kept, nobody knows."""
    room = Room(history=20)
    client = member(room, "trade@A")
    for _ in range(15):
        room.source.publish("trade@A", trade())
        room.clock.advance(1)
    assert facts(room, "trade@A").rate == 1.0
    room.source.publish("trade@A", *[trade()] * 40)
    room.clock.advance(0.5)
    assert facts(room, "trade@A").rate == pytest.approx(40.0, rel=1e-3)
    room.clock.advance(60)
    assert facts(room, "trade@A").rate == 0.0
    room.end(client)
    nothing = Room(history=0)
    client = member(nothing, "trade@A")
    nothing.source.publish("trade@A", trade())
    assert facts(nothing, "trade@A").rate is None
    nothing.end(client)


def test_markets_are_those_of_which_something_came() -> None:
    """On a public stream of a built-in kind: not by being subscribed, and not on streams that name users."""
    private = StreamKind("orders", LossPolicy.KEEP, private=True)
    other = StreamKind("funding", LossPolicy.LATEST)
    room = Room(kinds=StreamKinds((*BUILT_IN, private, other)))
    names = ("trade@A", "ticker@B", "depth@C", "trade@NOBODY", "orders@alice", "funding@D")
    client = member(room, *names)
    assert room.hub.overview.markets == set()
    room.source.publish("trade@A", trade(1))
    room.source.publish("ticker@B", ticker(1))
    room.source.publish("depth@C", depth(1))
    room.source.publish("orders@alice", b'{"e":"orders"}')
    room.source.publish("funding@D", b'{"e":"funding"}')
    room.source.publish("trade@NOBODY", b"nonsense")
    assert room.hub.overview.markets == {"A", "B", "C"}
    room.end(client)


def test_a_market_whose_state_is_known_is_one_too() -> None:
    """Nothing need have been published since."""
    snapshots = FakeSnapshots()
    room = Room(snapshots=snapshots)
    snapshots.states["ticker@A"] = ticker(1)
    client = member(room, "ticker@A")
    assert room.hub.overview.markets == {"A"}
    room.end(client)
