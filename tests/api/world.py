"""All that the admin port shows of a daemon, around a hub whose source and clock the test drives."""

from __future__ import annotations

from collections import Counter
from typing import Any, cast

from prometheus_client.parser import text_string_to_metric_families

from marketfeed.access.refusals import Refusals
from marketfeed.api.health import Health
from marketfeed.api.lists import Lists
from marketfeed.api.metrics import Metrics, Parts
from marketfeed.api.samples import Samples
from marketfeed.model.streams import StreamKinds
from marketfeed.redis.link_keeper import LinkKeeper
from marketfeed.runtime.garbage import GarbageCollector
from marketfeed.runtime.loop_delay import LoopDelay
from marketfeed.runtime.memory import MemoryGuard, MemoryLimit
from marketfeed.websocket.connections import UserManager
from tests.rooms import EPOCH, Room

__all__ = ["FakeLink", "World"]


class FakeLink:
    """A link's keeper, as the metrics see it."""

    reconnects = LinkKeeper.reconnects

    def __init__(self, called: str, *, is_of_source: bool = False) -> None:
        self.is_of_source = is_of_source
        self.called = called
        self.address = "unix:///run/redis.sock"
        self.cause = ""
        self.ping_age: float | None = None
        self.link: object = None
        self.links = 0
        self.last_heard: float | None = None


class World:
    """Everything that is counted, around a hub of its own. `succeeded`, `last`: the reload of the settings."""

    succeeded = True
    last = float(EPOCH)

    def __init__(self) -> None:
        self.room = Room()
        clock = self.room.clock
        self.users = UserManager(clock, 20, 0.0, lambda: EPOCH + clock.seconds())
        self.refusals = Refusals(clock, lambda: EPOCH + clock.seconds())
        self.requests: Counter[str] = Counter({"PING": 0})
        self.answered: Counter[tuple[str, int]] = Counter({("depth", 200): 0})
        self.links = [FakeLink("redis", is_of_source=True), FakeLink("redis commands")]
        self.memory = MemoryGuard(clock, MemoryLimit())
        self.expiry: float | None = None
        self.parts = Parts(
            clock,
            lambda: EPOCH + clock.seconds(),
            hub=self.room.hub,
            clients=self.users,
            refusals=self.refusals,
            requests=self.requests,
            answered=self.answered,
            links=lambda: cast("list[LinkKeeper[Any]]", self.links),
            health=Health(lambda: self.room.hub.overview.source_reached, self.users, self.memory, with_memory=True),
            memory=self.memory,
            collector=GarbageCollector(clock, lambda: 0),
            loop=LoopDelay(clock),
            certificate_expiry=lambda: self.expiry,
            files=1000,
            started_at=EPOCH - 60,
            reload=self,
        )
        self.metrics = Metrics(self.parts)
        self.resident = 1 << 20
        self.cpu = 0.0
        self.open: int | None = None
        self.samples = Samples(self.parts, lambda: self.resident, lambda: self.cpu, lambda: self.open)
        self.lists = Lists(clock, self.room.hub, self.users, StreamKinds())

    def stop(self) -> None:
        self.samples.stopService()
        self.refusals.stopService()
        self.room.hub.stopService()

    def read(self) -> dict[str, float]:
        """All samples, by name and labels as they stand there."""
        samples = {}
        for family in text_string_to_metric_families(self.metrics.text().decode()):
            for sample in family.samples:
                labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
                samples[sample.name + (f"{{{labels}}}" if labels else "")] = sample.value
        return samples
