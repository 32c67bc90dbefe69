"""The real `marketfeed candles` where there are several servers: a cluster whose slots move, and Sentinel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.threads import deferToThread

from marketfeed.redis.topology import key_slot
from tests.redis_servers.client import ClusterClient, Connection
from tests.redis_servers.cluster import RedisCluster
from tests.redis_servers.process import FLAVOURS, ServerProcess
from tests.redis_servers.sentinel import SentinelTrio
from tests.system.harness import Harness
from tests.system.test_candles import KEYS, SHORT, Sold, have_all, service, sold, written

MARKETS = [f"M{number}" for number in range(6)]


class Asked:
    """A client that blocks, asked in a thread: one question at a time."""

    def __init__(self, client: ClusterClient | Connection) -> None:
        self.client = client
        self._lock = DeferredLock()

    def command(self, *words: str | bytes | int) -> Deferred[Any]:
        return self._lock.run(deferToThread, self.client.command, *words)

    async def add(self, trades: list[Sold], market: str) -> None:
        """As an engine adds them to a stream."""

        def add() -> None:
            for one in trades:
                self.client.command("XADD", f"trade@{market}", "*", "d", written(one, market))

        await self._lock.run(deferToThread, add)


@pytest.fixture(params=FLAVOURS)
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisCluster]:
    with RedisCluster(tmp_path / "cluster", request.param) as cluster:
        yield cluster


def move_slots(cluster: RedisCluster, *keys: str) -> None:
    """To the next master, and back."""
    for key in keys:
        masters = cluster.masters
        owner = cluster.owner(key)
        other = masters[(masters.index(owner) + 1) % len(masters)]
        for to in (other, owner):
            cluster.move_slot(key_slot(key.encode()), to)


@pytest_twisted.ensureDeferred
async def test_slots_move_while_candles_are_made(harness: Harness, cluster: RedisCluster) -> None:
    """Those of trades and those of candles; each trade counts once."""
    trades = sold(1200)
    with cluster.client() as client:
        asked = Asked(client)
        for market in MARKETS:
            await asked.add(trades[:600], market)
        candles = service(harness, cluster, program=("-c", SHORT))
        await candles.expect("this one leads")
        for market in MARKETS[:3]:
            moving = deferToThread(move_slots, cluster, f"trade@{market}", KEYS.state(market))
            await asked.add(trades[600:], market)
            await moving
        for market in MARKETS[3:]:
            await asked.add(trades[600:], market)
        for market in MARKETS:
            await harness.eventually(lambda market=market: have_all(asked, trades, market, closes=False))
        candles.signal("TERM")
        assert await candles.wait() == 0


@pytest.fixture(params=FLAVOURS)
def trio(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SentinelTrio]:
    with SentinelTrio(tmp_path / "trio", request.param) as trio:
        yield trio


def is_copied(trio: SentinelTrio, master: ServerProcess) -> bool:
    """Whether the replicas have what the master has."""
    with master.connect() as connection:
        return bool(connection.command("WAIT", 2, 1000) == 2)


@pytest_twisted.ensureDeferred
async def test_the_master_is_another_one(harness: Harness, trio: SentinelTrio) -> None:
    """The service goes on there, where it had been."""
    trades = sold(1200)
    before = trio.master()
    with before.connect(30.0) as connection:
        asked = Asked(connection)
        candles = service(harness, trio, program=("-c", SHORT))
        await asked.add(trades[:600], "M0")
        await harness.eventually(lambda: have_all(asked, trades[:600], "M0", closes=False))
        await harness.eventually(lambda: deferToThread(is_copied, trio, before))
    after = await deferToThread(trio.failover)
    with after.connect(30.0) as connection:
        asked = Asked(connection)
        await asked.add(trades[600:], "M0")
        await harness.eventually(lambda: have_all(asked, trades, "M0", closes=False))
        candles.signal("TERM")
        assert await candles.wait() == 0
