"""The cluster that tests are given does what they count on."""

from __future__ import annotations

from pathlib import Path
from threading import Event, Thread

import pytest

from marketfeed.redis.topology import key_slot
from tests.redis_servers.cluster import RedisCluster
from tests.redis_servers.process import FLAVOURS

pytestmark = pytest.mark.parametrize("flavour", FLAVOURS)


def test_a_replica_takes_over(tmp_path: Path, flavour: str) -> None:
    """Its master is killed; the master comes back as its replica, with the same port."""
    with RedisCluster(tmp_path, flavour) as cluster, cluster.client() as client:
        assert cluster.masters == cluster.nodes[:3]
        master = cluster.owner("trade@A_INR")
        replica = cluster.replica_of(master)
        assert client.xadd("trade@A_INR", {"p": "1"}) == client.command("XRANGE", "trade@A_INR", "-", "+")[0][0]
        cluster.kill(master)
        cluster.wait_served()
        assert cluster.owner("trade@A_INR") is replica
        cluster.restart(master)
        assert cluster.replica_of(replica) is master


def test_a_slot_is_moved_under_writes(tmp_path: Path, flavour: str) -> None:
    """Nothing is lost, nothing is twice, and the order stays."""
    with RedisCluster(tmp_path, flavour) as cluster:
        keys = [f"{{a}}{number}" for number in range(300)]
        slot, written, moved = key_slot(b"a"), 0, Event()

        def write() -> None:
            nonlocal written
            with cluster.client() as client:
                while not moved.is_set():
                    client.xadd(keys[written % len(keys)], {"n": written})
                    written += 1

        writer = Thread(target=write)
        writer.start()
        before = cluster.owner_of_slot(slot)
        others = [master for master in cluster.masters if master is not before]
        try:
            for to in (*others, before):
                cluster.move_slot(slot, to)
                assert cluster.owner_of_slot(slot) is to
        finally:
            moved.set()
            writer.join()
        assert written > len(keys)
        with cluster.client() as client:
            for first, key in enumerate(keys):
                found = [int(fields[1]) for _, fields in client.command("XRANGE", key, "-", "+")]
                assert found == list(range(first, written, len(keys)))


def test_a_replica_is_asked_to_take_over(tmp_path: Path, flavour: str) -> None:
    with RedisCluster(tmp_path, flavour) as cluster:
        master = cluster.masters[0]
        replica = cluster.replica_of(master)
        cluster.failover(replica)
        assert replica in cluster.masters
        cluster.wait_whole()
        assert cluster.replica_of(replica) is master


def test_what_is_published_reaches_who_listens(tmp_path: Path, flavour: str) -> None:
    """Sharded where the slot is, also after it has moved; classic at any node."""
    with RedisCluster(tmp_path, flavour) as cluster, cluster.client() as client:
        before, channel = cluster.owner("trade@A_INR"), "trade@A_INR"
        to = next(master for master in cluster.masters if master is not before)
        assert client.spublish(channel, b"nobody") == 0
        cluster.move_slot(key_slot(channel.encode()), to)
        with to.connect() as sharded, cluster.nodes[5].connect() as classic:
            sharded.command("SSUBSCRIBE", channel)
            classic.command("SUBSCRIBE", channel)
            assert client.spublish(channel, b"one") == 1
            assert sharded.reply() == [b"smessage", channel.encode(), b"one"]
            client.publish(channel, b"two")
            assert classic.reply() == [b"message", channel.encode(), b"two"]
