"""The commands that speak to Redis, with a real cluster: while slots move, and a master is killed."""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import hiredis
import pytest
import pytest_twisted
from twisted.internet.threads import deferToThread

from marketfeed.commands.recording.files import recorded
from marketfeed.commands.recording.format import Begin, End, Gap, Publication, write_record
from marketfeed.redis.topology import key_slot
from tests.redis_servers.client import ClusterClient
from tests.redis_servers.cluster import RedisCluster
from tests.redis_servers.process import FLAVOURS
from tests.system.harness import DEADLINE, Harness, Process

STREAMS = [f"trade@M{number}" for number in range(24)]
_MOVED = 6
"""Streams whose slots are moved."""


@pytest.fixture(params=FLAVOURS)
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisCluster]:
    with RedisCluster(tmp_path / "cluster", request.param) as cluster:
        yield cluster


@pytest.fixture(params=FLAVOURS)
def calm_cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisCluster]:
    """One in which nobody is taken for gone who is only slow."""
    with RedisCluster(tmp_path / "cluster", request.param, node_timeout=int(DEADLINE * 1000)) as cluster:
        yield cluster


class Engine:
    """Publishes numbers, to all streams in turn, wherever their channels are. `published`: how many, of each."""

    def __init__(self, cluster: RedisCluster, *, is_classic: bool = False) -> None:
        self._client = cluster.client()
        self._is_classic = is_classic
        self._ends = False
        self.published = 0

    def run(self) -> None:
        """Until `end`."""
        with self._client:
            while not self._ends:
                self.publish(self._client)

    def publish(self, client: ClusterClient) -> None:
        publish = client.publish if self._is_classic else client.spublish
        for stream in STREAMS:
            try:
                publish(stream, b"%d" % self.published)
            except (OSError, hiredis.ReplyError):
                pass  # nobody knows whether it was published
        self.published += 1

    def end(self) -> None:
        self._ends = True


async def while_publishing(engine: Engine, work: Callable[[], object]) -> None:
    """Do something while the engine publishes."""
    publishing = deferToThread(engine.run)
    try:
        await deferToThread(work)
    finally:
        engine.end()
        await publishing


def move_slots(cluster: RedisCluster) -> None:
    """Those of some streams, to the next master and back."""
    for stream in STREAMS[:_MOVED]:
        masters = cluster.masters
        owner = cluster.owner(stream)
        other = masters[(masters.index(owner) + 1) % len(masters)]
        for to in (other, owner):
            cluster.move_slot(key_slot(stream.encode()), to)


def kill_a_master(cluster: RedisCluster) -> None:
    cluster.kill(cluster.owner(STREAMS[0]))
    cluster.wait_served()


def command(harness: Harness, cluster: RedisCluster, name: str, *arguments: str) -> Process:
    return harness.spawn([sys.executable, "-m", "marketfeed", name, "--redis-url", cluster.url, *arguments])


def in_streams(cluster: RedisCluster) -> dict[str, list[int]]:
    """The numbers that each stream has."""
    with cluster.client() as client:
        found = {stream: client.command("XRANGE", stream, "-", "+") for stream in STREAMS}
    return {stream: [int(fields[1]) for _, fields in entries] for stream, entries in found.items()}


def in_order_once(numbers: list[int]) -> bool:
    return numbers == sorted(set(numbers))


async def all_are_heard(harness: Harness, cluster: RedisCluster, engine: Engine) -> None:
    """See that everything that is published from now on comes into its stream."""
    since = engine.published

    async def they_are() -> bool:
        await deferToThread(engine.publish, cluster.client())
        return all(numbers and numbers[-1] >= since for numbers in (await deferToThread(in_streams, cluster)).values())

    await harness.eventually(they_are)

    async def the_last_are() -> bool:
        streams = await deferToThread(in_streams, cluster)
        return all(numbers[-1] == engine.published - 1 for numbers in streams.values())

    await harness.eventually(the_last_are)


async def counts(process: Process) -> tuple[int, int, int]:
    """End a bridge; what it says that it has heard, added and lost."""
    process.signal("TERM")
    assert await process.wait() == 0
    last = process.lines.all[-1]
    found = re.search(r"(\d+) publications heard, (\d+) of them added to streams, (\d+) lost$", last)
    assert found is not None, last
    heard, added, lost = map(int, found.groups())
    return heard, added, lost


@pytest.mark.parametrize("is_classic", [False, True])
@pytest_twisted.ensureDeferred
async def test_a_bridge_while_slots_move(harness: Harness, calm_cluster: RedisCluster, *, is_classic: bool) -> None:
    """What it has heard is in the streams, once and in order, and none of it is lost."""
    cluster = calm_cluster
    bridge = command(harness, cluster, "bridge", *(("--pubsub=classic", "trade@*") if is_classic else STREAMS))
    await bridge.expect("every channel is listened to")
    engine = Engine(cluster, is_classic=is_classic)
    await while_publishing(engine, lambda: move_slots(cluster))
    await all_are_heard(harness, cluster, engine)
    heard, added, lost = await counts(bridge)
    streams = in_streams(cluster)
    assert all(map(in_order_once, streams.values()))
    assert (lost, sum(map(len, streams.values()))) == (0, heard)
    assert added == heard
    assert 0 < heard <= engine.published * len(STREAMS)
    for stream in STREAMS[_MOVED:] if not is_classic else STREAMS:
        assert streams[stream] == list(range(engine.published)), "its slot has not moved"


@pytest_twisted.ensureDeferred
async def test_a_bridge_while_a_master_is_killed(harness: Harness, cluster: RedisCluster) -> None:
    """Everything that it has heard is in the streams once, in order, or is said to be lost.

    But for what the master had confirmed, and not passed on to its replica: Redis itself loses that.
    """
    bridge = command(harness, cluster, "bridge", *STREAMS)
    await bridge.expect("every channel is listened to")
    engine = Engine(cluster)
    await while_publishing(engine, lambda: kill_a_master(cluster))
    before = in_streams(cluster)
    await all_are_heard(harness, cluster, engine)
    heard, added, lost = await counts(bridge)
    streams = in_streams(cluster)
    assert all(map(in_order_once, streams.values()))
    assert heard == added + lost
    assert sum(map(len, streams.values())) <= heard
    assert all(streams[stream][: len(numbers)] == numbers for stream, numbers in before.items())


@pytest_twisted.ensureDeferred
async def test_a_recording(harness: Harness, cluster: RedisCluster, tmp_path: Path) -> None:
    """It admits what it may have missed while slots moved, and misses nothing else."""
    path = tmp_path / "market.jsonl"
    recorder = command(harness, cluster, "record", *STREAMS, "--output", str(path))
    await recorder.expect("recording")
    with cluster.client() as client:

        async def all_are_heard() -> bool:
            return all(client.spublish(stream, b"-1") for stream in STREAMS)

        await harness.eventually(all_are_heard)
    engine = Engine(cluster)
    await while_publishing(engine, lambda: move_slots(cluster))
    recorder.signal("INT")
    assert await recorder.wait() == 0
    records = [record for _, record in recorded([str(path)], pytest.fail)]
    gaps = [record for record in records if isinstance(record, Gap)]
    assert gaps
    for stream in STREAMS:
        found = [each for each in records if isinstance(each, Publication) and each.stream == stream.encode()]
        numbers = [(each.time, int(each.data)) for each in found if each.data != b"-1"]
        assert in_order_once([number for _, number in numbers])
        for (earlier, first), (later, second) in itertools.pairwise(numbers):
            is_in_gap = any(gap.since <= later and earlier <= gap.until for gap in gaps)
            assert second == first + 1 or is_in_gap, (stream, first, second)


@pytest.mark.parametrize("is_classic", [False, True])
@pytest_twisted.ensureDeferred
async def test_a_simulated_market(harness: Harness, cluster: RedisCluster, *, is_classic: bool) -> None:
    """It feeds a daemon, whose clients get a book and what follows it."""
    options = ("--pubsub=classic",) if is_classic else ()
    market = command(harness, cluster, "simulate", *options)
    await market.expect("simulating TATA_INR")
    daemon = await harness.daemon("--redis-url", cluster.url, *options)
    client = await harness.client(daemon)
    await client.subscribe("depth@TATA_INR", "trade@INFY_INR")
    flowing = set[str]()
    while not {"depth@TATA_INR", "trade@INFY_INR"} <= flowing:  # there may be a gap besides
        event = await client.next()
        if "data" in event:
            flowing.add(event["stream"])
    market.signal("INT")
    assert await market.wait() == 0


@pytest_twisted.ensureDeferred
async def test_a_simulated_market_in_streams(harness: Harness, cluster: RedisCluster) -> None:
    """Each stream where its slot is."""
    market = command(harness, cluster, "simulate", "--streams=1000", "--rate=500")

    async def all_have_entries() -> bool:
        with cluster.client() as client:
            names = [f"{kind}@{market}_INR" for kind in ("trade", "depth") for market in ("TATA", "INFY", "BTC")]
            return all(client.command("XLEN", name) for name in names)

    await harness.eventually(all_have_entries)
    market.signal("INT")
    assert await market.wait() == 0


@pytest.mark.parametrize("is_classic", [False, True])
@pytest_twisted.ensureDeferred
async def test_a_replay(harness: Harness, cluster: RedisCluster, tmp_path: Path, *, is_classic: bool) -> None:
    """Into channels whose slots move meanwhile: a bridge has all that it could hear, in order."""
    path = tmp_path / "market.jsonl"
    count = 200
    publications = [
        Publication(10_000 * number, stream.encode(), b"%d" % number) for number in range(count) for stream in STREAMS
    ]
    records = [Begin(0, 1, ("*",)), *publications, End(10_000 * count, len(publications))]
    path.write_bytes(b"".join(map(write_record, records)))
    options = ("--pubsub=classic",) if is_classic else ()
    bridge = command(harness, cluster, "bridge", *options, *(["trade@*"] if is_classic else STREAMS))
    await bridge.expect("every channel is listened to")
    replay = command(harness, cluster, "replay", *options, str(path))
    await deferToThread(move_slots, cluster)
    assert await replay.wait() == 0
    assert replay.lines.all[-1].startswith(f"marketfeed replay: {len(publications)} publications of ")
    assert "not answered" not in replay.lines.all[-1]

    async def the_last_are_there() -> bool:
        streams = await deferToThread(in_streams, cluster)
        return all(streams[stream][-1:] == [count - 1] for stream in STREAMS[_MOVED:])

    await harness.eventually(the_last_are_there)
    await counts(bridge)
    streams = in_streams(cluster)
    assert all(map(in_order_once, streams.values()))
    for stream in STREAMS if is_classic else STREAMS[_MOVED:]:
        assert streams[stream] == list(range(count))
