"""A sample a second, of what has happened in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from marketfeed.api.samples import KEPT, Sample
from marketfeed.http.response import Response
from tests.api.world import World
from tests.conftest import LogCapture
from tests.rooms import EPOCH, member, trade


class Watched(World):
    """The world, with a sampler that runs."""

    def __init__(self) -> None:
        super().__init__()
        self.resident = 1000
        self.samples.startService()

    def second(self) -> Sample:
        self.room.clock.advance(1)
        last = self.samples.last
        assert last is not None
        return last


@pytest.fixture
def world() -> Iterator[Watched]:
    yield (world := Watched())
    world.stop()
    assert not world.room.clock.getDelayedCalls()


def test_what_has_happened_in_its_second(world: Watched) -> None:
    member(world.room, "trade@A")
    member(world.room, "trade@A")
    for _ in range(3):
        world.room.source.publish("trade@A", trade())
    world.room.source.publish("trade@A", b"{")
    world.room.hub.flush()
    world.refusals.of_request("x", Response(503, "full", reason="full"))
    world.cpu = 0.25
    first = world.second()
    assert (first.seq, first.at) == (1, (EPOCH + 1) * 1000)
    assert (first.publications, first.deliveries, first.dropped, first.refusals) == (3, 6, 1, 1)
    assert (first.streams, first.memory, first.cpu) == (1, 1000, 0.25)
    assert first.fanout_p50 == first.fanout_p99 == 0.0001
    assert (first.engine_p50, first.loop_delay) == (None, None)
    second = world.second()
    assert (second.publications, second.deliveries, second.dropped, second.refusals) == (0, 0, 0, 0)
    assert second.fanout_p50 is None


def test_who_has_some_asks_for_those_behind(world: Watched) -> None:
    for _ in range(3):
        world.second()
    assert [sample.seq for sample in world.samples.since(0)] == [1, 2, 3]
    assert [sample.seq for sample in world.samples.since(2)] == [3]
    assert world.samples.since(3) == []
    assert [sample.seq for sample in world.samples.since(99)] == [1, 2, 3], "of another run"


def test_a_quarter_of_an_hour_is_kept(world: Watched) -> None:
    for _ in range(KEPT + 5):
        world.second()
    kept = world.samples.since(0)
    assert (len(kept), kept[0].seq, kept[-1].seq) == (KEPT, 6, KEPT + 5)


def test_peaks_stay(world: Watched) -> None:
    world.resident = 5000
    world.second()
    world.resident = 10
    assert world.second().memory == 10
    assert world.samples.peaks["memory"] == 5000


def test_peaks_that_nobody_looked_at(world: Watched) -> None:
    assert "files" not in world.samples.limits(), "the system does not say it"
    world.open = 50
    world.second()
    world.open = 10
    files = world.samples.limits()["files"]
    assert (files.value, files.peak, files.limit) == (10, 50, 1000)
    world.open = 70
    assert world.samples.limits()["files"].peak == 70


def test_a_fault_is_not_the_end_of_it(world: Watched, logged: LogCapture) -> None:
    world.resident = None  # type: ignore[assignment]
    world.room.clock.advance(1)
    assert len(logged.flush_failures(TypeError)) == 1
    world.resident = 7
    assert world.second().memory == 7
