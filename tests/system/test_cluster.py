"""The daemon on a real cluster: masters go in every way and slots move; clients hear all, or of a gap of just that.

Where publications are kept nowhere, each that was acknowledged and did not come lies inside a gap of its stream; where
Redis keeps them, each that it holds comes once. What comes through one node loses nothing through another one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_twisted

from marketfeed.redis.topology import key_slot
from tests.redis_servers.cluster import RedisCluster
from tests.redis_servers.process import FLAVOURS
from tests.system.cluster_stage import ClusterStage, in_thread
from tests.system.harness import Harness

BOTH = pytest.mark.parametrize("flavour", FLAVOURS)
ALL_KINDS = pytest.mark.parametrize("kind", ["sharded", "classic"])
BY_SLOT = pytest.mark.parametrize("kind", ["sharded"])


@pytest.fixture
def cluster(tmp_path: Path, flavour: str) -> Iterator[RedisCluster]:
    with RedisCluster(tmp_path / "cluster", flavour) as cluster:
        yield cluster


@pytest_twisted.async_yield_fixture
async def stage(harness: Harness, cluster: RedisCluster, kind: str) -> AsyncIterator[ClusterStage]:
    made = ClusterStage(harness, cluster, kind)
    await made.start()
    yield made


@BOTH
@ALL_KINDS
@pytest_twisted.ensureDeferred
async def test_a_master_is_killed(stage: ClusterStage) -> None:
    """Its replica has its slots. Clients of other masters notice nothing, unless all comes through any one node."""
    master = stage.cluster.nodes[0]
    stage.cluster.kill(master)
    await stage.served()
    await stage.goes_on()
    if stage.kind == "sharded":
        assert stage.follower.touched() == set(stage.of[master])
        assert await stage.outages() == {f"redis 127.0.0.1:{master.port}"}
    await in_thread(stage.cluster.restart, master)
    await stage.goes_on()
    await stage.ends_well()


@BOTH
@ALL_KINDS
@pytest_twisted.ensureDeferred
async def test_a_master_stands_still(stage: ClusterStage) -> None:
    """Until it is replaced. Then it goes on, as a master for a moment, and nobody listens to it any more."""
    master = stage.cluster.nodes[1]
    master.stop()
    await stage.served()
    await stage.goes_on()
    master.cont()
    await in_thread(stage.cluster.wait_whole)
    await stage.goes_on()
    if stage.kind != "classic":
        assert stage.follower.touched() <= set(stage.of[master])
    await stage.ends_well()


@BOTH
@ALL_KINDS
@pytest_twisted.ensureDeferred
async def test_a_replica_is_asked_to_take_over(stage: ClusterStage) -> None:
    """In order, and at once; back again."""
    master = stage.cluster.nodes[2]
    for how in ("", "FORCE", "TAKEOVER"):
        replica = await in_thread(stage.cluster.replica_of, await in_thread(stage.cluster.owner, stage.of[master][0]))
        await in_thread(stage.cluster.failover, replica, how)
        await in_thread(stage.cluster.wait_whole)
        await stage.goes_on()
    if stage.kind != "classic":
        assert stage.follower.touched() <= set(stage.of[master])
    await stage.ends_well()


@BOTH
@BY_SLOT
@pytest_twisted.ensureDeferred
async def test_slots_move(stage: ClusterStage) -> None:
    """Of streams that are watched, and of others: only what moves is missed, if it is kept nowhere."""
    cluster, first, second = stage.cluster, *stage.cluster.nodes[:2]
    watched = stage.of[first][0]
    slots = {key_slot(stream.encode()) for stream in stage.streams}
    others = [slot for slot in range(300) if slot not in slots][:20]
    for to in (second, first, second):
        await in_thread(cluster.move_slot, key_slot(watched.encode()), to)
        await stage.goes_on()
    for slot in others:
        await in_thread(cluster.move_slot, slot, second)
    await stage.goes_on()
    assert stage.follower.touched() == (set() if stage.kind == "streams" else {watched})
    assert await stage.outages() == set()
    await stage.ends_well()


@BOTH
@BY_SLOT
@pytest_twisted.ensureDeferred
async def test_a_master_without_slots_gets_some(stage: ClusterStage) -> None:
    """It came into the cluster while the daemon was connected."""
    cluster, first = stage.cluster, stage.cluster.nodes[0]
    new = await in_thread(cluster.replica_of, first)
    new.ask("CLUSTER", "RESET", "SOFT")
    new.ask("CLUSTER", "MEET", first.host, first.port, cluster.bus_port_of(first))
    await in_thread(cluster.wait_whole)
    await stage.daemon.expect(rf"redis 127.0.0.1:{new.port}: connected")
    await stage.goes_on()
    for stream in stage.of[first]:
        await in_thread(cluster.move_slot, key_slot(stream.encode()), new)
    await stage.goes_on()
    assert stage.follower.touched() == (set() if stage.kind == "streams" else set(stage.of[first]))
    await stage.ends_well()


@BOTH
@ALL_KINDS
@pytest_twisted.ensureDeferred
async def test_all_nodes_go(stage: ClusterStage) -> None:
    """One after the other, and then all of them at once for a while; a daemon that starts meanwhile waits for them."""
    cluster = stage.cluster
    for node in cluster.nodes:
        await in_thread(cluster.restart, node)
        await stage.served()
        await stage.goes_on()
    for node in cluster.nodes:
        node.kill()
    await stage.harness.eventually(lambda: set(stage.follower.open) == set(stage.streams))
    late = await stage.begin()
    await stage.harness.eventually(lambda: set(late.open) == set(stage.streams))
    await in_thread(cluster.start_again)
    await stage.goes_on()
    await stage.ends_well()
