"""What Prometheus gets: read by its own library, equal to the documentation, and to what has happened."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from marketfeed.http.response import Response
from marketfeed.websocket.closing import Ending, Parting
from marketfeed.wire.messages import ErrorCode, RequestError
from tests.api.exposition import exposed, promtool_has_nothing_to_say
from tests.api.world import World
from tests.docs_runner import metrics
from tests.rooms import EPOCH, depth, member, trade


@pytest.fixture
def world() -> Iterator[World]:
    yield (world := World())
    world.stop()


def test_the_documentation_has_each_with_its_type_and_labels(world: World) -> None:
    """And nothing else, besides what the library says of the process."""
    world.expiry = EPOCH
    world.links[0].last_heard = 0.0
    world.room.source.confirm()
    member(world.room, "trade@A")
    world.room.source.publish("trade@A", trade())
    assert exposed(world.metrics.text()) == metrics("docs/operations/health.md")


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
    assert not any("refusals" in name and 'status="200"' in name for name in samples)
    assert samples['marketfeed_rest_requests_total{path="depth",status="200"}'] == 0
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


def test_promtool_has_nothing_to_say(world: World) -> None:
    world.expiry = EPOCH
    promtool_has_nothing_to_say(world.metrics.text())
