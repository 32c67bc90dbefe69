"""What is published by the candle service, while a link of its publisher may be away."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from marketfeed.candles.held import HOLD_SECONDS, MOST_BYTES, HeldPublications, Publisher
from tests.strategies import property_test


class FakePublisher:
    """Keeps what it is given while it is ready, and what it had to drop."""

    def __init__(self) -> None:
        self.ready = False
        self.arrived: list[tuple[str, bytes]] = []
        self.dropped: list[tuple[str, bytes]] = []

    def publish(self, batch: list[tuple[str, bytes]]) -> None:
        (self.arrived if self.ready else self.dropped).extend(batch)


def one(number: int) -> list[tuple[str, bytes]]:
    return [("kline_1m@A", b"%d" % number)]


@property_test
@given(st.lists(st.tuples(st.floats(0, 4), st.booleans()), max_size=40))
def test_nothing_is_dropped_but_what_waits_too_long(steps: list[tuple[float, bool]]) -> None:
    """What arrives is in order. Nothing is dropped before the publisher has not been ready for so long."""
    clock, publisher = Clock(), FakePublisher()
    boundary: Publisher = publisher
    holder = HeldPublications(clock, boundary)
    away = 0.0
    for number, (pause, is_ready) in enumerate(steps):
        publisher.ready = is_ready
        before = len(publisher.dropped)
        holder.publish(one(number))
        assert len(publisher.dropped) == before or away >= HOLD_SECONDS
        clock.advance(pause)
        away = 0.0 if is_ready else away + pause
    publisher.ready = True
    holder.look()
    numbers = [int(payload) for _, payload in publisher.arrived]
    assert numbers == sorted(numbers)
    assert sorted([*publisher.arrived, *publisher.dropped], key=lambda each: int(each[1])) == [
        each for number in range(len(steps)) for each in one(number)
    ]


def test_no_more_than_so_much_waits() -> None:
    publisher = FakePublisher()
    holder = HeldPublications(Clock(), publisher)
    holder.publish([("kline_1m@A", bytes(MOST_BYTES))])
    assert publisher.dropped == []
    holder.publish([("kline_1m@A", b"1")])
    assert len(publisher.dropped) == 2
    holder.publish([("kline_1m@A", b"2")])
    publisher.ready = True
    holder.forget()
    holder.look()
    assert publisher.arrived == []
