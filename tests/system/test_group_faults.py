"""Faults of servers that stand together, while publications go on: nothing is lost without a word; soon all is well.

`FAULTS=publications,faults,clients` makes it longer, of which each test has its part; `make faults` does. Then it is
also seen that everybody has what is published within `_RECOVERY_SECONDS` after Redis serves again.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from tests.redis_servers.cluster import RedisCluster
from tests.redis_servers.network import Network, no_network
from tests.redis_servers.process import FLAVOURS
from tests.redis_servers.sentinel import SentinelTrio
from tests.system.group_faults import ClusterFaults, GroupFaults, SentinelFaults
from tests.system.harness import DEADLINE, Harness

_IS_LONG = "FAULTS" in os.environ
_PUBLICATIONS, _FAULTS, _ = map(int, os.environ.get("FAULTS", "6000,8,0").split(","))
_RECOVERY_SECONDS = 2.0


@contextlib.contextmanager
def _network() -> Iterator[Network | None]:
    """Where there can be one."""
    if no_network():
        yield None
    else:
        with Network() as network:
            yield network


@pytest.mark.parametrize("kind", ["sharded", "streams"])
@pytest_twisted.ensureDeferred
async def test_a_cluster(harness: Harness, tmp_path: Path, kind: str) -> None:
    """Of either flavour, drawn as well."""
    rng, seed = _draw()
    with _network() as network:
        far = {"node0"} if network else set[str]()
        with RedisCluster(tmp_path / "cluster", rng.choice(FLAVOURS), network=network, far=far) as cluster:
            await _go_through(ClusterFaults(harness, kind, cluster, rng, network), 3 / 8, seed)


@pytest.mark.parametrize("kind", ["classic", "streams"])
@pytest_twisted.ensureDeferred
async def test_a_master_and_its_sentinels(harness: Harness, tmp_path: Path, kind: str) -> None:
    """Through channels, which have no slots there, and Redis Streams."""
    rng, seed = _draw()
    with SentinelTrio(tmp_path / "trio", rng.choice(FLAVOURS)) as trio:
        await _go_through(SentinelFaults(harness, kind, trio, rng), 1 / 8, seed)


def _draw() -> tuple[random.Random, int]:
    print(f"seed {(seed := random.randrange(1 << 30))}")
    return random.Random(seed), seed


async def _go_through(faults: GroupFaults, part: float, seed: int) -> None:
    """One fault after the other, and after each the verdict."""
    count = max(1, round(part * _FAULTS))
    await faults.start()
    for _ in range(count):
        try:
            one = Deferred.fromCoroutine(faults.one(_PUBLICATIONS // _FAULTS))
            name = await one.addTimeout(2 * DEADLINE, faults.harness.reactor)
        except BaseException as error:
            error.add_note(f"seed {seed}, {dict(faults.counts)}")
            raise
        if _IS_LONG:
            print(name, f"{faults.recoveries[-1]:.2f}" if faults.recoveries else "", flush=True)
    worst = max(faults.recoveries, default=0.0)
    print(dict(faults.counts), f"{faults.published} published, {worst:.2f} s at most until all was well")
    assert faults.published >= count * (_PUBLICATIONS // _FAULTS)
    assert not _IS_LONG or worst <= _RECOVERY_SECONDS, faults.recoveries
