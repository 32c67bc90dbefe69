"""The master with sentinels that tests are given does what they count on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.redis_servers.process import FLAVOURS
from tests.redis_servers.sentinel import SentinelTrio

pytestmark = pytest.mark.parametrize("flavour", FLAVOURS)


def test_a_replica_takes_over(tmp_path: Path, flavour: str) -> None:
    """Its master is killed, and comes back as its replica."""
    with SentinelTrio(tmp_path, flavour) as trio:
        first = trio.servers[0]
        assert trio.master() is first
        first.kill()
        second = trio.wait_switched(first)
        assert second in trio.servers[1:]
        first.restart()
        trio.wait_whole()
        assert trio.master() is not first
        assert first in trio.replicas


def test_a_sentinel_is_asked_for_a_failover(tmp_path: Path, flavour: str) -> None:
    with SentinelTrio(tmp_path, flavour) as trio:
        second = trio.failover()
        assert second is not trio.servers[0]
        trio.wait_whole()
        assert trio.master() is second
