"""What Prometheus gets: read by its own library, equal to the documentation, and to what has happened."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from typing import Any, cast

import pytest
from prometheus_client.parser import text_string_to_metric_families

from marketfeed.access.refusals import Refusals
from marketfeed.api.health import Health
from marketfeed.api.metrics import Metrics, Parts
from marketfeed.http.response import Response
from marketfeed.redis.link_keeper import LinkKeeper
from marketfeed.runtime.garbage import GarbageCollector
from marketfeed.runtime.loop_delay import LoopDelay
from marketfeed.runtime.memory import MemoryGuard, MemoryLimit
from marketfeed.websocket.closing import Ending, Parting
from marketfeed.websocket.connections import UserManager
from marketfeed.wire.messages import ErrorCode, RequestError
from tests.docs_runner import tables
from tests.rooms import EPOCH, Room, depth, member, trade

PROMTOOL = shutil.which("promtool")


class FakeLink:
    """A link's keeper, as the metrics see it."""

    reconnects = LinkKeeper.reconnects

    def __init__(self, called: str) -> None:
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
        self.links = [FakeLink("redis"), FakeLink("redis commands")]
        self.memory = MemoryGuard(clock, MemoryLimit())
        self.expiry: float | None = None
        self.parts = Parts(
            clock,
            lambda: EPOCH + clock.seconds(),
            hub=self.room.hub,
            clients=self.users,
            refusals=self.refusals,
            requests=self.requests,
            links=cast("list[LinkKeeper[Any]]", self.links),
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

    def read(self) -> dict[str, float]:
        """All samples, by name and labels as they stand there."""
        samples = {}
        for family in text_string_to_metric_families(self.metrics.text().decode()):
            for sample in family.samples:
                labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
                samples[sample.name + (f"{{{labels}}}" if labels else "")] = sample.value
        return samples


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.refusals.stopService()


def test_the_documentation_has_each_with_its_type_and_labels(world: World) -> None:
    """And nothing else, besides what the library says of the process."""
    world.expiry = EPOCH
    world.links[0].last_heard = 0.0
    world.room.source.confirm()
    member(world.room, "trade@A")
    world.room.source.publish("trade@A", trade())
    described = {
        row[0].strip("`"): (row[1], {label.strip("` ") for label in row[2].split(",") if label.strip()})
        for table in tables("docs/operations/health.md")
        if table.header == ["metric", "type", "labels", "meaning"]
        for row in table.rows
    }
    found = {}
    for family in text_string_to_metric_families(world.metrics.text().decode()):
        if not family.name.startswith("process_"):
            name = family.name + "_total" * (family.type == "counter")
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            found[name] = (family.type, labels)
    assert found == described


def test_a_count_that_can_be_is_there_from_the_beginning(world: World) -> None:
    """So that its first increase is one."""
    samples = world.read()
    for name in (
        'marketfeed_closes_total{by="server",code="4008"}',
        'marketfeed_refusals_total{reason="rate",status="429"}',
        'marketfeed_requests_total{method="PING"}',
        'marketfeed_request_errors_total{code="7"}',
        'marketfeed_dropped_publications_total{kind="trade",reason="not-json"}',
        'marketfeed_dropped_publications_total{kind="depth",reason="internal-error"}',
        'marketfeed_gaps_total{reason="source-down"}',
        'marketfeed_resumes_total{recovered="false"}',
        'marketfeed_lag_seconds_bucket{le="0.0001",stage="engine"}',
        'marketfeed_lag_seconds_count{stage="fanout"}',
    ):
        assert samples[name] == 0, name
    assert not [name for name in samples if "_created" in name]


def test_the_names_of_the_environment_are_bounded(world: World) -> None:
    """What clients choose makes no name of its own."""
    before = set(world.read())
    for code in range(3000, 3100):
        world.users.has_left("x", "y", 1.0, Ending("", code, "client"), Parting())
    assert set(world.read()) == before
    assert world.read()['marketfeed_closes_total{by="client",code="other"}'] == 100


def test_what_has_happened(world: World) -> None:
    room = world.room
    client = member(room, "trade@A", "depth@A")
    room.source.publish("trade@A", trade())
    room.source.publish("depth@A", depth(1, is_snapshot=True))
    assert all(stream.state is None or stream.state.is_complete for stream in room.hub._registry.all)
    room.source.publish("trade@A", b"{")
    room.hub.flush()
    world.refusals.of_request("x", Response(503, "full", reason="full"))
    world.refusals.of_request("x", Response(200, "ok"))
    world.refusals.of_client("x", RequestError(ErrorCode.NOT_PERMITTED, "no"))
    world.links[0].link, world.links[0].links, world.links[0].last_heard = object(), 3, 0.0
    room.clock.advance(4)
    samples = world.read()
    assert samples['marketfeed_publications_total{kind="trade"}'] == 1
    assert samples['marketfeed_deliveries_total{kind="depth"}'] == 1
    assert samples['marketfeed_dropped_publications_total{kind="trade",reason="not-json"}'] == 1
    assert samples["marketfeed_sent_bytes_total"] == sum(map(len, client.outbox.writes))
    assert (samples["marketfeed_subscriptions"], samples["marketfeed_streams"]) == (2, 2)
    assert (samples["marketfeed_books"], samples["marketfeed_book_levels"]) == (1, 1)
    assert samples['marketfeed_refusals_total{reason="full",status="503"}'] == 1
    assert not any('status="200"' in name for name in samples)
    assert samples['marketfeed_request_errors_total{code="5"}'] == 1
    assert (samples['marketfeed_source_up{link="redis"}'], samples['marketfeed_source_up{link="redis commands"}']) == (
        1,
        0,
    )
    assert samples['marketfeed_source_reconnects_total{link="redis"}'] == 2
    assert samples["marketfeed_source_last_message_timestamp_seconds"] == EPOCH
    assert samples['marketfeed_last_publication_timestamp_seconds{kind="trade"}'] == EPOCH
    assert 'marketfeed_last_publication_timestamp_seconds{kind="ticker"}' not in samples
    assert (samples["marketfeed_ready"], samples["marketfeed_draining"]) == (1, 0)
    assert samples["marketfeed_history_bytes"] > 0
    assert samples['marketfeed_lag_seconds_bucket{le="+Inf",stage="fanout"}'] == 1


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
def test_promtool_has_nothing_to_say(world: World) -> None:
    assert PROMTOOL is not None
    world.expiry = EPOCH
    done = subprocess.run([PROMTOOL, "check", "metrics"], input=world.metrics.text(), capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
