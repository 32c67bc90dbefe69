"""A candle service that is away: who is told, and when it is over."""

from __future__ import annotations

import pytest

from marketfeed.model.kinds import BUILT_IN
from marketfeed.model.kinds.kline import KLINES
from marketfeed.model.streams import StreamKinds
from tests.fakes import FakeArchive
from tests.rooms import Client, Room, member

MINUTES, HOURS = "kline_1m@A", "kline_1h@B"


def kline(number: int) -> bytes:
    candle = '"t":60000,"T":119999,"i":"1m","o":"1","c":"1","h":"1","l":"1","v":"1","x":false'
    return b'{"e":"kline","t":%d,"s":"A","k":{%b}}' % (number, candle.encode())


@pytest.fixture
def room() -> Room:
    """A hub that knows candles."""
    return Room(kinds=StreamKinds((*{kind.name: kind for kind in (*BUILT_IN, *KLINES)}.values(),)))


def test_all_candles_have_a_gap_until_it_is_back(room: Room) -> None:
    """In one event for each client; trades have none."""
    client, other = member(room, MINUTES, HOURS, "trade@A"), member(room, "trade@A")
    room.hub.candles_lost(room.now_ms - 500)
    room.hub.candles_lost(room.now_ms)
    gap = [MINUTES, HOURS], "no-candles", room.now_ms - 500
    assert client.take() == [("gap", *gap, None)]
    room.clock.advance(3)
    room.hub.candles_found()
    room.hub.candles_found()
    assert client.take() == [("gap", *gap, room.now_ms)]
    assert other.take() == []


def test_a_publication_ends_it(room: Room) -> None:
    """For all of them, before it goes on its way."""
    client = member(room, MINUTES, HOURS)
    room.hub.candles_lost(room.now_ms)
    since = room.now_ms
    client.take()
    room.clock.advance(1)
    room.source.publish(HOURS, kline(7))
    assert client.take() == [("gap", [MINUTES, HOURS], "no-candles", since, room.now_ms), (HOURS, 7)]


def test_who_comes_meanwhile_is_told(room: Room) -> None:
    """As the stream begins to flow; and one that was out of reach has this gap when it is not any more."""
    first = member(room, MINUTES)
    room.hub.candles_lost(room.now_ms)
    since = room.now_ms
    first.take()
    late = Client(room).join(MINUTES, HOURS)
    room.source.confirm(HOURS)
    assert late.take() == [["joined", MINUTES, HOURS], ("gap", [MINUTES, HOURS], "no-candles", since, None)]
    room.clock.advance(1)
    room.source.lose()
    assert first.take() == [("gap", [MINUTES], "source-down", since, None)]
    room.clock.advance(1)
    room.source.confirm()
    assert first.take() == [
        ("gap", [MINUTES], "source-down", since, room.now_ms),
        ("gap", [MINUTES], "no-candles", since, None),
    ]


def test_what_it_is_to_publish(room: Room) -> None:
    """What has holders, and no streams of an engine."""
    client = member(room, MINUTES, HOURS, "trade@A")
    assert sorted(room.hub.candle_streams) == sorted([MINUTES, HOURS])
    client.unsubscribe(HOURS)
    assert room.hub.candle_streams == [MINUTES]


def test_candles_are_numbered_here_whatever_the_archive() -> None:
    """Redis Streams have what the engine adds. An offset of candles is of this process."""
    room = Room(kinds=StreamKinds((*BUILT_IN, *KLINES)), archive=FakeArchive())
    client = member(room, MINUTES)
    for number in range(3):
        room.source.publish(MINUTES, kline(number))
    client.take()
    stream = room.hub._registry.find(MINUTES)
    assert stream is not None
    offset = stream.history.at(1)  # type: ignore[attr-defined]
    again = Client(room).join(MINUTES, since={MINUTES: offset})
    assert again.take() == [["joined", MINUTES], (MINUTES, 1), (MINUTES, 2)]
    assert again.recovered == {MINUTES: True}
    gone = Client(room).join(MINUTES, since={MINUTES: "1-1"})
    assert gone.recovered == {MINUTES: False}
