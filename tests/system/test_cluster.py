"""The daemon on a real cluster: masters go in every way, slots move; clients hear all, or of a gap of just what moved.

Where publications are kept nowhere, each that was acknowledged and did not come lies inside a gap of its stream; where
Redis keeps them, each that it holds comes once. Of sharded channels those of one master lose nothing through another
one; keys are not served by any master while some slots are not.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from marketfeed.redis.topology import key_slot
from tests.certificates import Authority
from tests.redis_servers.cluster import RedisCluster
from tests.redis_servers.network import Network
from tests.redis_servers.process import FLAVOURS, Security
from tests.system.cluster_stage import ClusterStage, in_thread, streams_of, words
from tests.system.harness import Harness, with_constants
from tests.system.numbered import OTHERS, AtServers, Engine, now_ms

BOTH = pytest.mark.parametrize("flavour", FLAVOURS)
ALL_KINDS = pytest.mark.parametrize("kind", ["sharded", "classic", "streams"])
ONE_OF_EACH = pytest.mark.parametrize(
    ("flavour", "kind"), [("valkey", "sharded"), ("redis", "classic"), ("redis", "streams")]
)
BY_SLOT = pytest.mark.parametrize("kind", ["sharded", "streams"])


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


@ONE_OF_EACH
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
    if stage.kind == "sharded":
        assert stage.follower.touched() <= set(stage.of[master])
    await stage.ends_well()


@ONE_OF_EACH
@pytest_twisted.ensureDeferred
async def test_a_replica_is_asked_to_take_over(stage: ClusterStage) -> None:
    """In order, and at once; back again."""
    stage.is_passed_on = True
    master = stage.cluster.nodes[2]
    for how in ("", "FORCE", "TAKEOVER"):
        replica = await in_thread(stage.cluster.replica_of, await in_thread(stage.cluster.owner, stage.of[master][0]))
        await in_thread(stage.cluster.failover, replica, how)
        await in_thread(stage.cluster.wait_whole)
        await stage.goes_on()
    if stage.kind == "sharded":
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


@pytest.mark.parametrize(("flavour", "kind"), [("valkey", "sharded"), ("redis", "streams")])
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


@ONE_OF_EACH
@pytest_twisted.ensureDeferred
async def test_all_nodes_go(stage: ClusterStage) -> None:
    """Some one after the other, then all at once for a while; a daemon that starts meanwhile waits for them."""
    cluster = stage.cluster
    for node in cluster.nodes[:2]:
        await in_thread(cluster.restart, node)
        await stage.goes_on()
    for node in cluster.nodes:
        node.kill()
    await stage.harness.eventually(lambda: set(stage.follower.open) == set(stage.streams))
    late = await stage.begin()
    await stage.harness.eventually(lambda: set(late.open) == set(stage.streams))
    await in_thread(cluster.start_again)
    await stage.goes_on()
    await stage.ends_well()


@BOTH
@pytest.mark.parametrize("kind", ["streams"])
@pytest_twisted.ensureDeferred
async def test_a_master_comes_back_with_an_old_past(stage: ClusterStage) -> None:
    """It has what was on its disk, and of a slot that it had then and has not now. All goes on."""
    cluster = stage.cluster
    master, other, _ = cluster.masters
    first, _ = stage.of[master]
    await in_thread(master.ask, "SAVE")
    await stage.goes_on()
    await in_thread(cluster.move_slot, key_slot(first.encode()), other)
    await stage.goes_on()
    await in_thread(master.restart)
    await stage.served()
    await stage.goes_on()
    await stage.ends_well()


@ONE_OF_EACH
@pytest_twisted.ensureDeferred
async def test_a_daemon_that_starts_while_the_cluster_is_down(
    harness: Harness, cluster: RedisCluster, kind: str
) -> None:
    """A master and its replica are gone, so no key is served; then they are back."""
    stage = ClusterStage(harness, cluster, kind)
    master = cluster.nodes[0]
    gone = (master, await in_thread(cluster.replica_of, master))
    for node in gone:
        node.kill()
    left = [node for node in cluster.nodes if node not in gone]

    def is_down() -> bool:
        return all(node.fields("CLUSTER", "INFO").get("cluster_state") == "fail" for node in left)

    await harness.eventually(lambda: in_thread(is_down))
    stage.engine.start()
    follower = await stage.begin()
    if kind != "classic":
        # Sharded channels of masters that are there are served also then.
        missed = stage.streams if kind == "streams" else stage.of[master]
        await harness.eventually(lambda: set(follower.open) == set(missed))
    await in_thread(cluster.start_again)
    await stage.goes_on()
    await stage.ends_well()


@BOTH
@ALL_KINDS
@pytest_twisted.ensureDeferred
async def test_a_partition_with_the_old_master_alive(
    harness: Harness, tmp_path: Path, flavour: str, kind: str, network: Network
) -> None:
    """Somebody goes on at the old master, which takes it for a while: that is missed, and lies in the gap.

    It does not lie there from when the others have replaced the old master until that notices by itself that it is
    alone; where all comes through one node, until it is back.
    """
    with RedisCluster(tmp_path / "cluster", flavour, network=network, far={"node0"}) as cluster:
        stage = ClusterStage(harness, cluster, kind)
        old, *near = cluster.nodes
        of_old = stage.of[old]
        far = Engine(AtServers(lambda: old), of_old, words(kind), first=OTHERS)
        harness.on_close(lambda: in_thread(far.stop))
        far.start()
        await stage.start()
        await harness.eventually(lambda: all(stage.follower.got[stream][-1] for stream in of_old))
        cut_at = now_ms()
        network.cut()
        await harness.eventually(
            lambda: in_thread(lambda: cluster.is_served(*near) and cluster.owner(of_old[0]) in near)
        )
        await stage.goes_on()
        network.heal()
        await in_thread(cluster.wait_whole)
        back_at = now_ms()
        await stage.goes_on()
        last = far.number
        await in_thread(far.stop)
        if kind != "streams":
            # The word of its node, of which the daemon hears once a second, may come after all goes on.
            await harness.eventually(lambda: all(stage.follower.gaps[stream] for stream in of_old))
            ends = {stream: stage.follower.gaps[stream][0][1] for stream in of_old}
            sent = {
                stream: {number: at for number, at in each.items() if at[1] <= ends[stream] or at[0] >= back_at}
                for stream, each in far.sent.items()
            }
            await stage.explained(sent, last, back_at)
            assert any(cut_at < begun for each in sent.values() for begun, _ in each.values())
        if kind == "sharded":
            assert stage.follower.touched() == set(of_old)
        await stage.ends_well(back_at)


@pytest.mark.parametrize(("flavour", "kind"), [("redis", "sharded"), ("valkey", "streams")])
@pytest_twisted.ensureDeferred
async def test_a_channel_that_is_not_permitted(harness: Harness, cluster: RedisCluster, kind: str) -> None:
    """Only that one is refused; it comes as soon as it may."""
    stage = ClusterStage(harness, cluster, kind)
    denied, *permitted = stage.streams
    sign, reset = ("~", "resetkeys") if kind == "streams" else ("&", "resetchannels")

    def permit(streams: list[str]) -> None:
        rules = ("on", ">p@ss", "+@all", "allkeys", "allchannels", reset, *[f"{sign}{stream}" for stream in streams])
        for node in cluster.nodes:
            node.ask("ACL", "SETUSER", "reader", *rules)

    permit(permitted)
    stage.engine.start()
    options = ("--redis-url", cluster.url.replace("://", "://reader:p%40ss@"))
    follower = await stage.begin(*options, program=with_constants(redis__rotation__ROUND_SECONDS=0.5))
    await harness.eventually(lambda: set(follower.open) == {denied} and all(map(follower.got.get, permitted)))
    await stage.daemon.expect(f"the source refuses {denied}: NOPERM")
    permit(stage.streams)
    await stage.goes_on()
    assert follower.touched() == {denied}
    assert not [line for line in stage.daemon.lines if "p@ss" in line]
    await stage.ends_well()


@BOTH
@ALL_KINDS
@pytest_twisted.ensureDeferred
async def test_the_rights_of_a_user(harness: Harness, cluster: RedisCluster, kind: str) -> None:
    """Those that docs/operations/redis.md#a-cluster and docs/streams.md#permissions name are enough. A slot moves."""
    stage = ClusterStage(harness, cluster, kind)
    for node in cluster.nodes:
        node.ask("ACL", "SETUSER", "marketfeed", "on", ">pw", "resetchannels", "resetkeys", *_rights(kind))
    stage.engine.start()
    await stage.begin("--redis-url", cluster.url.replace("://", "://marketfeed:pw@"), "--linger", "0")
    await stage.goes_on()
    first, second = stage.cluster.nodes[:2]
    await in_thread(cluster.move_slot, key_slot(stage.of[first][0].encode()), second)
    await stage.goes_on()
    if kind != "streams":
        others = streams_of(cluster, 4)[second]
        await _comes_and_goes(stage, next(stream for stream in others if stream not in stage.streams))
    assert not [line for line in stage.daemon.lines if "NOPERM" in line]
    await stage.ends_well()


async def _comes_and_goes(stage: ClusterStage, stream: str) -> None:
    """Somebody wants one more stream for a moment. Then no node has a listener of it any more."""
    client = await stage.harness.client(stage.daemon)
    await client.subscribe(stream)
    await client.ask({"method": "UNSUBSCRIBE", "params": [stream], "id": 2})
    how = "SHARDNUMSUB" if stage.kind == "sharded" else "NUMSUB"
    await stage.harness.eventually(lambda: all(node.ask("PUBSUB", how, stream)[1] == 0 for node in stage.cluster.nodes))


def _rights(kind: str) -> list[str]:
    """Channels, keys and commands, as the pages name them."""
    docs = Path(__file__).parent.parent.parent / "docs"
    redis = " ".join((docs / "operations" / "redis.md").read_text().split())
    of_one = re.search(r"ACL SETUSER marketfeed on >s3cret resetchannels ([^`]+?) daemon ", redis)
    of_streams = re.search(r"ACL SETUSER marketfeed on '>s3cret' (.+)", (docs / "streams.md").read_text())
    also = re.search(r"Its user also needs `([^`]+)`, and `([^`]+)` .*? or `([^`]+)` where they are not", redis)
    assert of_one is not None
    assert of_streams is not None
    assert also is not None
    found = of_streams[1].replace("'", "") if kind == "streams" else of_one[1]
    more = {"sharded": also[2], "classic": also[3], "streams": ""}[kind]
    return [*found.split(), *also[1].split(), *more.split()]


@BOTH
@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("kind", ["sharded"])
@pytest_twisted.ensureDeferred
async def test_passwords_and_certificates(harness: Harness, tmp_path: Path, flavour: str, kind: str, tls: bool) -> None:
    """All nodes want a password, and with TLS a certificate, also those that the daemon is told of by others."""
    authority = Authority() if tls else None
    security = Security("feed", "p@ss", authority, wants_certificates=tls)
    directory = tmp_path / "cluster"
    with RedisCluster(directory, flavour, security=security) as cluster:
        stage = ClusterStage(harness, cluster, kind)
        host, _, port = cluster.url.partition(",")[0].rpartition("//")[2].partition(":")
        options = ["--redis-url", f"redis{'s' if tls else ''}-cluster://feed:p%40ss@{host}:{port}"]
        if tls:
            options += ["--redis-ca", str(directory / "ca.pem")]
            options += [
                "--redis-certificate",
                str(directory / "server.pem"),
                "--redis-key",
                str(directory / "server.key"),
            ]
        await stage.start(*options)
        master = cluster.nodes[0]
        stage.is_passed_on = True
        await in_thread(cluster.failover, await in_thread(cluster.replica_of, master))
        await stage.goes_on()
        assert stage.follower.touched() <= set(stage.of[master])
        assert not [line for line in stage.daemon.lines if "p@ss" in line or "p%40ss" in line]
        await stage.ends_well()


@ONE_OF_EACH
@pytest_twisted.ensureDeferred
async def test_states_and_warm_streams(harness: Harness, cluster: RedisCluster, kind: str) -> None:
    """A stream is kept ready without clients, and a state is read from whoever has its key, before and after a move."""
    stage = ClusterStage(harness, cluster, kind)
    first, second, _ = cluster.masters
    warm = streams_of(cluster, 3)[first][2]
    assert warm not in stage.streams
    market = warm.partition("@")[2]
    key = f"snapshot:depth@{market}"
    state = {"e": "depth", "s": market, "u": 1, "b": [["1.00", "5"]], "a": [["2.00", "1"]]}
    with cluster.client() as client:
        client.command("SET", key, json.dumps(state))
    await stage.begin("--warm", warm, "--linger", "0")
    daemon = stage.daemon

    async def is_warm(server: Any) -> bool:
        how = "SHARDCHANNELS" if kind == "sharded" else "CHANNELS"
        return warm.encode() in server.ask("PUBSUB", how)

    async def book() -> Any:
        client = await harness.client(daemon)
        await client.ask({"method": "SET_PROPERTY", "params": ["snapshot", True], "id": 1})
        await client.subscribe(f"depth@{market}")
        return (await client.next())["data"]

    async def is_warm_anywhere() -> bool:
        return any([await is_warm(server) for server in ([first] if kind == "sharded" else cluster.nodes)])

    if kind != "streams":
        await harness.eventually(is_warm_anywhere)
    assert (await book())["b"] == state["b"]
    to = second if cluster.owner(key) is first else first
    await in_thread(cluster.move_slot, key_slot(key.encode()), to)
    assert (await book())["b"] == state["b"]
    if kind == "sharded":
        await in_thread(cluster.move_slot, key_slot(warm.encode()), second)
        await harness.eventually(lambda: is_warm(second))
    assert await daemon.stop() == 0


@pytest.mark.parametrize(("flavour", "kind"), [("redis", "classic"), ("valkey", "streams")])
@pytest_twisted.ensureDeferred
async def test_streams_found_by_patterns(harness: Harness, cluster: RedisCluster, kind: str) -> None:
    """What a pattern covers is found on every master: Redis Streams by their keys, channels by those of states."""
    stage = ClusterStage(harness, cluster, kind)
    found = [stream.replace("trade@", "depth@") for streams in streams_of(cluster, 3).values() for stream in streams]
    assert len({cluster.owner(stream) for stream in found}) == 3
    with cluster.client() as client:
        for stream in found:
            book = json.dumps({"e": "depth", "u": 1, "b": [["1.00", "5"]], "a": [["2.00", "1"]]})
            if kind == "streams":
                client.command("XADD", stream, "*", "d", book)
            else:
                client.command("SET", f"snapshot:{stream}", book)
    await stage.begin("--warm", "depth@M*")

    async def are_all_kept() -> bool:
        _, _, body = await stage.admin.ask(harness, "/streams.json?q=depth@M&limit=50")
        return set(found) <= {row["stream"] for row in json.loads(body)}

    await harness.eventually(are_all_kept)
    assert await stage.daemon.stop() == 0


@pytest.mark.parametrize("flavour", FLAVOURS[:1])
@BY_SLOT
@pytest_twisted.ensureDeferred
async def test_links_and_their_names(stage: ClusterStage) -> None:
    """Each node has its own, by its address; an outage says whose it was, and its clients were told."""
    names = {f"redis 127.0.0.1:{node.port}" for node in stage.cluster.nodes[:3]}
    status = await stage.status()
    up = {link["link"] for link in status["links"] if link["up"]}
    assert names <= up
    assert {f"{name} {what}" for name in names for what in ("commands", "map")} <= up
    killed = stage.cluster.nodes[0]
    stage.cluster.kill(killed)
    await stage.served()
    await stage.goes_on()
    (outage,) = (await stage.status())["outages"]
    assert (outage["link"], outage["told"]) == (f"redis 127.0.0.1:{killed.port}", 1)
    assert outage["since"] <= outage["until"]
    await in_thread(stage.cluster.restart, killed)
    await stage.ends_well()
