"""Whether clients should come here, and why not."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from marketfeed.api.health import Health
from marketfeed.websocket.connections import UserManager
from tests.fakes import FakeMemory


class World:
    """All that health is about, in its best state."""

    def __init__(self, *, with_memory: bool = True) -> None:
        self.is_reached = True
        self.users = UserManager(Clock(), 0, 0.0, lambda: 0.0)
        self.memory = FakeMemory()
        self.health = Health(lambda: self.is_reached, self.users, self.memory, with_memory=with_memory)


def test_a_full_house_is_ready() -> None:
    world = World()
    assert world.users.refusal() is not None
    assert (world.health.is_ready, world.health.reasons) == (True, [])


def test_every_reason_is_said() -> None:
    world = World()
    world.is_reached, world.users.draining, world.memory.is_full = False, True, True
    assert not world.health.is_ready
    assert world.health.reasons == ["source-never-reached", "draining", "memory"]


@pytest.mark.parametrize("counts", [True, False])
def test_memory_counts_where_the_operator_says_so(counts: bool) -> None:
    world = World(with_memory=counts)
    world.memory.is_full = True
    assert world.health.reasons == ["memory"] * counts
