"""Streams that do not exist yet, on a real server: few are read with the others, many are looked at in turn."""

from __future__ import annotations

import pytest
import pytest_twisted

from marketfeed.redis import absent_streams
from marketfeed.redis.absent_streams import AbsentStreams
from marketfeed.redis.stream_reads import Reading
from tests.redis.streams import commands_on
from tests.system.harness import Harness


def readings(count: int) -> list[Reading]:
    return [Reading(f"trade@{number}", b"trade@%d" % number) for number in range(count)]


class World:
    """Absent streams, of which two are read with the others, and three looked at together."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(absent_streams, "FEW", 2)
        monkeypatch.setattr(absent_streams, "SLICE", 3)
        monkeypatch.setattr(absent_streams, "LOOK_SECONDS", 0.001)
        self.found: list[Reading] = []

    async def start(self, harness: Harness) -> AbsentStreams:
        server = await harness.redis()
        self.redis = await server.connect()
        (self.commands,) = (await commands_on(harness, server)).each()
        absent = AbsentStreams(harness.reactor, self.commands, self.found.extend)
        harness.on_close(absent.clear)
        return absent


@pytest_twisted.ensureDeferred
async def test_each_is_noticed_when_it_exists(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its place, once; the few are for others to notice."""
    world = World(monkeypatch)
    absent = await world.start(harness)
    all_of_them = readings(12)
    assert [absent.add(reading) for reading in all_of_them] == [True] * 2 + [False] * 10
    assert absent.add(all_of_them[0])
    absent.discard(all_of_them[5])
    for number in (0, 5, 11, 3):
        await world.redis.command("XADD", f"trade@{number}", "*", "d", "x")
    await harness.eventually(lambda: len(world.found) == 2)
    assert set(world.found) == {all_of_them[11], all_of_them[3]}
    absent.discard(all_of_them[0])
    assert absent.add(all_of_them[4]), "there is a place for it now"
    await world.redis.command("XADD", "trade@4", "*", "d", "x")
    await world.redis.command("XADD", "trade@6", "*", "d", "x")
    await harness.eventually(lambda: len(world.found) == 3)
    assert world.found[2] is all_of_them[6]


@pytest_twisted.ensureDeferred
async def test_what_cannot_be_looked_at_is_checked(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is no stream, or all of them while the link is away."""
    world = World(monkeypatch)
    absent = await world.start(harness)
    await world.redis.command("SET", "trade@4", "x")
    for reading in readings(5):
        absent.add(reading)
    await harness.eventually(lambda: len(world.found) == 3)
    await world.commands.stopService()
    for reading in readings(5)[2:]:
        absent.add(reading)
    await harness.eventually(lambda: len(world.found) == 6)
