"""Garbage collection in small portions: what is frozen and when, and that nothing is kept for good."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest
from twisted.internet.task import Clock

from marketfeed.runtime import garbage
from marketfeed.runtime.garbage import GarbageCollector
from tests.conftest import LogCapture

LOOK_SECONDS = 0.1


class Thing:
    """Something that is in a cycle."""

    def __init__(self) -> None:
        self.itself = self


class World:
    """A collector that runs, for so many clients."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.clients = 0
        self.collector = GarbageCollector(self.clock, lambda: self.clients)
        self.collector.startService()

    def look(self) -> int:
        """Let it look; how many objects are frozen then."""
        self.clock.advance(LOOK_SECONDS)
        return gc.get_freeze_count()


@pytest.fixture
def world() -> Iterator[World]:
    """It is stopped in the end, and Python's own collector goes on."""
    world = World()
    yield world
    world.collector.stopService()
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
    assert world.clock.getDelayedCalls() == []


def test_what_has_come_is_frozen(world: World) -> None:
    """Once there is enough of it; Python's own collector has nothing to do meanwhile."""
    assert not gc.isenabled()
    before = world.look()
    few: list[object] = [[] for _ in range(100)]
    assert world.look() - before < 2000
    many: list[object] = [[] for _ in range(5000)]
    assert world.look() - before >= len(few) + len(many)
    assert world.collector.longest > 0


def test_what_is_garbage_before_it_is_frozen_goes(world: World) -> None:
    """A look collects first."""
    gone = [weakref.ref(Thing()) for _ in range(5000)]
    world.look()
    assert not any(each() for each in gone)


@pytest.mark.parametrize("clients", [0, 10**6])
def test_more_than_clients_account_for_is_looked_through(
    world: World, clients: int, monkeypatch: pytest.MonkeyPatch, logged: LogCapture
) -> None:
    """What had become garbage after it was frozen goes then, and the log says so."""
    monkeypatch.setattr(garbage, "_AUDIT_LOOKS", 3)
    monkeypatch.setattr(garbage, "_REST", 1000)
    world.clients = clients
    things = [Thing() for _ in range(5000)]
    world.look()
    gone = [weakref.ref(each) for each in things]
    del things
    world.look()
    assert all(each() for each in gone)
    world.look()
    assert any(each() for each in gone) == bool(clients)
    assert len([text for text in logged.formats() if "are alive" in text]) == (not clients)
