"""What is counted between a publication and its clients: to the last one, and under a bounded number of names."""

from __future__ import annotations

from collections import Counter

import pytest

from marketfeed.hub.counts import HubCounts, event_seconds
from tests.rooms import EPOCH, Client, Room, depth, member, ticker, trade


def test_each_kind_by_itself(room: Room) -> None:
    member(room, "trade@A", "depth@A")
    member(room, "trade@A", "trade@B")
    for stream, data in (("trade@A", trade()), ("trade@B", trade()), ("depth@A", depth(1)), ("trade@A", b"{")):
        room.source.publish(stream, data)
    room.hub.flush()
    kinds = room.hub.counts.kinds
    counts = {name: (each.published, each.delivered) for name, each in kinds.items()}
    assert (counts.pop("trade"), counts.pop("depth")) == ((2, 3), (1, 1))
    assert set(counts.values()) == {(0, 0)}
    assert (kinds["trade"].last, kinds["ticker"].last) == (EPOCH, 0)
    assert (kinds["trade"].dropped, kinds["depth"].dropped) == (Counter({"not-json": 1}), Counter())


def test_what_is_sent_is_counted_as_the_sockets_take_it(room: Room) -> None:
    clients = [member(room, "trade@A"), member(room, "trade@A", "ticker@A")]
    for number in range(3):
        room.hub.publish("trade@A", trade(number))
        room.hub.publish("ticker@A", ticker(number))
        room.hub.flush()
    traffic = room.hub.counts.traffic
    assert traffic.sent == sum(len(each) for client in clients for each in client.outbox.writes)


def test_memberships(room: Room) -> None:
    one, other = member(room, "trade@A", "depth@A"), member(room, "trade@A")
    assert room.hub.overview.memberships == 3
    one.unsubscribe("depth@A")
    assert room.hub.overview.memberships == 2
    other.end()
    one.end()
    assert (room.hub.overview.memberships, room.hub.overview.streams_held) == (0, 0)


def test_gaps_of_streams_by_reason(room: Room) -> None:
    member(room, "trade@A", "depth@A")
    room.source.publish("depth@A", depth(1))
    room.source.publish("depth@A", depth(3))
    room.source.lose()
    room.source.lose()
    assert room.hub.counts.gaps == Counter({"source-down": 2, "sequence": 1})


def test_resumes_by_whether_all_was_there(room: Room) -> None:
    first = member(room, "trade@A")
    room.source.publish("trade@A", trade())
    live = room.hub._registry.find("trade@A")
    assert live is not None
    offset = live.history.latest
    assert offset is not None
    Client(room).join("trade@A", "trade@B", since={"trade@A": offset, "trade@B": "0-0"})
    room.source.confirm()
    assert room.hub.counts.resumes == Counter({True: 1, False: 1})
    first.end()


def timed(seconds: float) -> bytes:
    return b'{"e":"ticker","E":%d,"c":"1","s":"A"}' % round(seconds * 1000)


def test_one_flush_of_a_millisecond_is_measured(room: Room) -> None:
    member(room, "ticker@A")
    member(room, "ticker@A")
    for _ in range(3):
        room.source.publish("ticker@A", timed(EPOCH - 0.02))
        room.hub.flush()
    counts = room.hub.counts
    assert (counts.engine_lag.counts[-1], counts.fanout_lag.counts[-1]) == (1, 1)
    assert counts.engine_lag.sum == pytest.approx(0.02)
    assert (counts.flush_clients.counts[-1], counts.flush_clients.sum) == (1, 2)
    room.clock.advance(0.002)
    room.source.publish("ticker@A", timed(EPOCH + 5))
    room.hub.flush()
    assert (counts.engine_lag.counts[-1], counts.fanout_lag.counts[-1], counts.clock_skew) == (2, 2, 1)
    assert counts.engine_lag.sum == pytest.approx(0.02), "a clock that is ahead is no lag"


def test_a_kind_that_nobody_has_declared_is_an_other_one() -> None:
    counts = HubCounts(("trade",))
    assert counts.of("x") is counts.of("y") is counts.kinds["other"]
    assert counts.of("trade") is not counts.of("x")


@pytest.mark.parametrize(
    ("data", "seconds"),
    [
        (b'{"e":"trade","E":1790000000123,"t":1}', 1790000000.123),
        (b'{"e":"trade","E":"1790000000123"}', None),
        (b'{"e":"trade","E":1790000000}', None),
        (b'{"e":"trade","E":1790000000123456}', None),
        (b'{"e":"trade","t":1}', None),
        (b'{"e":"depth","b":[%b],"E":1790000000123}' % (b"0," * 200), None),
        (b'{"E":', None),
        (b"", None),
    ],
)
def test_the_time_that_a_publication_says(data: bytes, seconds: float | None) -> None:
    assert event_seconds(data) == seconds
