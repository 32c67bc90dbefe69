"""A partition is one: each side goes on by itself, and what comes after is what Redis says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.redis_servers.client import eventually
from tests.redis_servers.cluster import RedisCluster
from tests.redis_servers.network import Network
from tests.redis_servers.process import FLAVOURS
from tests.redis_servers.sentinel import SentinelTrio

pytestmark = pytest.mark.parametrize("flavour", FLAVOURS)


def test_a_master_is_cut_off_from_its_cluster(tmp_path: Path, flavour: str, network: Network) -> None:
    """It lives, and can be asked, while its replica has its slots; it comes back as the replica."""
    with RedisCluster(tmp_path, flavour, network=network, far={"node0"}) as cluster:
        old, replica = cluster.nodes[0], cluster.replica_of(cluster.nodes[0])
        near = cluster.nodes[1:]
        key = cluster.key_of(old)
        network.cut()
        eventually(lambda: cluster.is_served(*near) and cluster.owner(key) is replica, "the near side goes on")
        assert old.answers
        assert old.fields("INFO", "replication")["role"] == "master"
        with cluster.client() as client:
            client.xadd(key, {"n": 1})
        network.heal()
        cluster.wait_whole()
        assert cluster.owner(key) is replica
        assert cluster.replica_of(replica) is old


def test_a_master_is_cut_off_from_its_sentinels(tmp_path: Path, flavour: str, network: Network) -> None:
    """It lives, with a sentinel that still believes in it; two others have another one."""
    with SentinelTrio(tmp_path, flavour, network=network, far={"server0", "sentinel0"}) as trio:
        old = trio.servers[0]
        network.cut()
        eventually(lambda: trio.master() is not old, "the near side goes on")
        assert old.fields("INFO", "replication")["role"] == "master"
        assert trio.state(trio.sentinels[0])["port"] == str(old.port)
        network.heal()
        trio.wait_whole()
        assert old in trio.replicas
