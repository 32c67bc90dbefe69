"""With passwords, users and TLS the groups of servers work as without."""

from __future__ import annotations

from pathlib import Path

import pytest

from marketfeed.redis.topology import key_slot
from tests.certificates import Authority
from tests.redis_servers.cluster import RedisCluster
from tests.redis_servers.process import FLAVOURS, Security
from tests.redis_servers.sentinel import SentinelTrio

PASSWORD = Security(password="secret")
USER = Security(user="feed", password="secret")
SECURITY = pytest.mark.parametrize(
    "security",
    [PASSWORD, USER, Security(user="feed", password="secret", authority=Authority(), wants_certificates=True)],
    ids=["password", "user", "certificates"],
)
pytestmark = [pytest.mark.parametrize("flavour", FLAVOURS), SECURITY]


def test_a_cluster(tmp_path: Path, flavour: str, security: Security) -> None:
    """A replica takes over, and a slot is moved with what it has."""
    with RedisCluster(tmp_path, flavour, security=security) as cluster, cluster.client() as client:
        client.xadd("a", {"n": 1})
        cluster.failover(cluster.replica_of(cluster.owner("a")))
        to = next(master for master in cluster.masters if master is not cluster.owner("a"))
        cluster.move_slot(key_slot(b"a"), to)
        assert cluster.owner("a") is to
        assert client.command("XLEN", "a") == 1


def test_sentinels(tmp_path: Path, flavour: str, security: Security) -> None:
    """Sentinels have a password of their own."""
    with SentinelTrio(tmp_path, flavour, security=security, sentinel_password="other") as trio:
        assert trio.failover() is not trio.servers[0]
