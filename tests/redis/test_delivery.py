"""What a read brought, in slices: everything once and in order, with turns between, and no wait without end."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from marketfeed.redis.delivery import HOLD_SECONDS, NO_PROGRESS, SLICE, Delivery, slices
from marketfeed.redis.stream_reads import Reading, Reads
from tests.conftest import LogCapture
from tests.redis.streams import Heard
from tests.strategies import property_test

MORE = 64


def entries(*sizes: int) -> list[Any]:
    return [[b"%d-0" % number, [b"d", b"x" * size]] for number, size in enumerate(sizes)]


founds = st.lists(
    st.lists(st.integers(0, 300), min_size=1, max_size=10).map(lambda sizes: entries(*sizes)), max_size=6
).map(lambda each: [(b"%d" % number, found) for number, found in enumerate(each)])


@property_test
@given(founds, st.integers(1, 1000))
def test_slices_are_all_that_was_found_in_order(found: list[tuple[bytes, list[Any]]], most: int) -> None:
    """None is empty, none larger than it may be but one of a single entry, and none might have had the next entry."""
    flat = [(key, entry) for key, each in found for entry in each]
    cut = list(slices(found, most))
    parts = [[(key, entry) for key, each in portion for entry in each] for _, portion in cut]
    assert [entry for part in parts for entry in part] == flat
    sizes = [sum(len(entry[1][1]) + MORE for _, entry in part) for part in parts]
    assert [size for size, _ in cut] == sizes
    for number, part in enumerate(parts):
        assert part
        assert sizes[number] <= most or len(part) == 1
        if number:
            assert sizes[number - 1] + len(part[0][1][1][1]) + MORE > most


class Slow:
    """A client, as far as it is looked at."""

    room = 0
    is_behind = True


class World:
    """A delivery to a sink of which the test says who is behind."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.heard = Heard()
        self.taken: list[str] = []
        self.flushes: list[int] = []
        self.slow: list[Slow] = []
        self.ended: list[int] = []
        self.faults: list[str] = []
        self.sink = self
        self.is_broken = False
        reads = Reads()
        for key in (b"a", b"b"):
            reads.add(Reading(key.decode(), key))
        self.delivery = Delivery(self.clock, reads, self)  # type: ignore[arg-type]

    def publish(self, stream: str, payload: bytes, offset: str) -> None:
        if self.is_broken:
            raise ValueError("a fault")
        self.taken.append(offset)

    def has_published(self, reading: Reading, entries: list[Any]) -> None:
        assert reading.told == entries[-1][0].decode()

    def delivered(self, count: int, size: int) -> None:
        self.ended.append(size)

    def fail(self, fault: str) -> None:
        self.faults.append(fault)

    def flush(self) -> None:
        self.flushes.append(len(self.taken))

    def behind(self) -> list[Slow]:
        return [each for each in self.slow if each.is_behind]

    def begin(self, count: int) -> None:
        """So many slices of one entry each."""
        self.delivery.begin([(b"a", entries(*[SLICE] * count))])

    def late(self) -> Slow:
        slow = Slow()
        self.slow.append(slow)
        return slow

    def turn(self) -> None:
        """The next call alone: unlike the reactor, a `Clock` runs what a call has put off to the next turn as well."""
        (call,) = self.clock.getDelayedCalls()
        self.clock.rightNow = max(self.clock.rightNow, call.time)
        function, arguments = call.func, call.args
        call.cancel()
        function(*arguments)

    def seconds_until(self, count: int) -> float:
        """How long it takes until so many slices have been published, or with 0, until the end."""
        start = self.clock.seconds()
        while not self.ended if count == 0 else len(self.flushes) < count:
            self.turn()
            assert self.clock.seconds() < start + 1000
        return self.clock.seconds() - start


def test_a_small_read_is_published_at_once() -> None:
    """Nobody is looked at, and no turn of the reactor passes."""
    world = World()
    world.late()
    world.delivery.begin([(b"a", entries(10, 20)), (b"b", entries(30))])
    assert world.flushes == [3]
    assert world.ended == [60 + 3 * MORE]
    assert world.clock.getDelayedCalls() == []
    world.delivery.begin([])
    assert world.ended[1:] == [0]
    assert world.flushes == [3]


def test_the_reactor_has_a_turn_after_each_slice() -> None:
    """And the next read waits for the last of them."""
    world = World()
    world.begin(3)
    for count in (1, 2, 3):
        assert world.flushes == list(range(1, count + 1))
        assert world.ended == []
        world.turn()
    assert world.ended == [3 * (SLICE + MORE)]
    assert world.clock.getDelayedCalls() == []


@pytest.mark.parametrize("count", [1, 2, 3])
def test_clients_who_are_behind_are_let_catch_up(count: int) -> None:
    """As long as they take something, between two slices and before the next read."""
    world = World()
    slow = world.late()
    slow.is_behind = False
    world.begin(3)
    while len(world.flushes) < count:
        slow.is_behind = len(world.flushes) == count - 1
        world.turn()
    if count == 1:
        world.delivery.stop()
        slow.is_behind = True
        world.begin(3)
    before = list(world.flushes)
    for _ in range(100):
        slow.room += 1
        world.turn()
        assert world.flushes == before
        assert world.ended == []
    slow.is_behind = False
    world.turn()
    assert world.flushes != before or world.ended
    world.delivery.stop()
    assert world.clock.getDelayedCalls() == []


def test_one_who_takes_nothing_is_waited_for_once() -> None:
    """And not at every slice, unless it takes something again."""
    world = World()
    dead = world.late()
    world.begin(10)
    assert NO_PROGRESS <= world.seconds_until(2) <= NO_PROGRESS + 0.1
    dead.room -= 100
    assert world.seconds_until(9) < 0.1
    dead.room += 1
    world.seconds_until(10)
    assert world.seconds_until(0) >= NO_PROGRESS - 0.1


def test_nobody_is_waited_for_for_good() -> None:
    """Not one who always takes something, at any number of reads: a tenth of the time in the long run."""
    world = World()
    slow = world.late()
    held = 0.0
    begun = world.clock.seconds()
    while world.clock.seconds() - begun < 100:
        world.ended.clear()
        start = world.clock.seconds()
        world.begin(2)
        while not world.ended:
            slow.room += 1
            world.turn()
        held += world.clock.seconds() - start
        world.clock.advance(0.5)
    assert HOLD_SECONDS <= held <= HOLD_SECONDS + 0.15 * 100


def test_what_is_stopped_is_never_published() -> None:
    """And nobody is told that it was."""
    world = World()
    world.begin(3)
    world.turn()
    world.delivery.stop()
    world.clock.advance(10)
    assert world.flushes == [1, 2]
    assert world.ended == []
    world.delivery.stop()
    world.begin(1)
    assert world.ended


def test_a_fault_is_said(logged: LogCapture) -> None:
    """Or the next read would be waited for in vain."""
    world = World()
    world.begin(3)
    world.is_broken = True
    world.turn()
    assert world.faults == ["internal error"]
    assert world.clock.getDelayedCalls() == []
    assert world.ended == []
    assert len(logged.flush_failures(ValueError)) == 1
