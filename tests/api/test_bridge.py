"""What the bridge's admin port tells: equal to the documentation, and to what has happened."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.task import Clock

from marketfeed.api.bridge import BridgeHealth, BridgeMetrics, Copied
from marketfeed.redis.address import RedisAddress
from marketfeed.redis.entries import Loss
from marketfeed.redis.link_keeper import LinkKeeper
from marketfeed.redis.routed_appender import RoutedAppender
from marketfeed.redis.topology import Node, OneServer
from tests.api.exposition import exposed, promtool_has_nothing_to_say
from tests.api.world import FakeLink
from tests.docs_runner import metrics, tables
from tests.redis.memory import Endpoint, stop

DOCUMENT = "docs/streams.md"
NAMES = ("redis", "redis commands", "redis appender")


class Heard:
    """What was heard, as the metrics see it."""

    def __init__(self) -> None:
        self.heard = self.skipped = 0
        self.is_listening = self.was_listening = False


class World:
    """A bridge, and its server."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.endpoint = Endpoint(self.clock)
        self.appender = RoutedAppender(self.clock, OneServer(Node("redis", RedisAddress(), self.endpoint)), 0)
        self.appender.startService()
        self.copied = Heard()
        self.links = [FakeLink(name) for name in NAMES]
        copied: Copied = self.copied
        self.health = BridgeHealth(copied, self.appender)
        self.metrics = BridgeMetrics(copied, self.appender, lambda: cast("list[LinkKeeper[Any]]", self.links))

    def read(self) -> dict[str, float]:
        return {
            " ".join([sample.name.removeprefix("marketfeed_"), *sample.labels.values()]): sample.value
            for family in text_string_to_metric_families(self.metrics.text().decode())
            for sample in family.samples
        }


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    stop(world.appender, world.clock)


def first_column(header: str) -> list[str]:
    (rows,) = [table.rows for table in tables(DOCUMENT) if table.header[0] == header]
    return [row[0].strip("`") for row in rows]


def test_the_documentation_has_each_with_its_type_and_labels(world: World) -> None:
    """And nothing else, besides what is said of every process."""
    assert exposed(world.metrics.text()) == metrics(DOCUMENT)
    assert {"process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"} <= world.read().keys()


def test_the_documentation_has_each_reason(world: World) -> None:
    """Of what was dropped, each of which is counted from the beginning."""
    dropped = {name: value for name, value in world.read().items() if name.startswith("bridge_dropped_total ")}
    reasons = first_column("`reason` of what was dropped")
    assert dropped == {f"bridge_dropped_total {reason}": 0 for reason in reasons}


def test_why_it_does_not_copy(world: World) -> None:
    """Every reason that the documentation has, and no other."""
    seen = set(world.health.reasons)
    assert world.health.reasons == ["source-never-reached", "target-down"]
    world.copied.is_listening = world.copied.was_listening = True
    connection = world.endpoint.link()
    assert world.health.reasons == []
    world.copied.is_listening = False
    assert world.health.reasons == ["source-down"]
    seen |= set(world.health.reasons)
    world.copied.is_listening = True
    world.appender.publish([("a", b"1")])
    connection.say(b"-BUSY no\r\n")
    assert world.health.reasons == ["target-down"]
    assert seen == set(first_column("reason"))


def test_what_has_happened(world: World) -> None:
    world.copied.heard, world.copied.skipped = 3, 2
    world.links[0].link, world.links[0].links = object(), 4
    world.appender.publish([("a", b"1"), ("a", b"2")])
    world.clock.advance(0.125)
    samples = world.read()
    assert samples["bridge_lag_seconds"] == 0.125
    assert (samples["source_up redis"], samples["source_up redis appender"]) == (1, 0)
    assert (samples["source_reconnects_total redis"], samples["source_reconnects_total redis appender"]) == (3, 0)
    connection = world.endpoint.link()
    connection.say(b"-OOM no\r\n")
    connection.cut()
    samples = world.read()
    assert samples["bridge_publications_total"] == 5
    assert samples["bridge_dropped_total no-stream"] == 2
    assert samples[f"bridge_dropped_total {Loss.REFUSED}"] == 1
    assert samples[f"bridge_dropped_total {Loss.LINK_LOST}"] == 1
    assert samples["bridge_lag_seconds"] == 0
    assert not [name for name in samples if "_created" in name]


def test_promtool_has_nothing_to_say(world: World) -> None:
    promtool_has_nothing_to_say(world.metrics.text())
