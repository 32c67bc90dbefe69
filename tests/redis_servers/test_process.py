"""Servers end with the test, however that ends, and keep their ports as long as it lasts."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs_runner import ROOT
from tests.redis_servers.client import eventually
from tests.redis_servers.cluster import RedisCluster
from tests.redis_servers.process import FLAVOURS, LOOPBACK

_HOLDS = """
import sys, pathlib
from tests.redis_servers.cluster import RedisCluster
with RedisCluster(pathlib.Path(sys.argv[1]), sys.argv[2]) as cluster:
    cluster.nodes[0].stop()
    print(*(node.pid for node in cluster.nodes), flush=True)
    sys.stdin.read()
"""


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_all_end_with_a_test_that_is_killed(tmp_path: Path, flavour: str) -> None:
    """Even the one that stands still."""
    command = [sys.executable, "-c", _HOLDS, str(tmp_path / "cluster"), flavour]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as test:
        assert test.stdout is not None
        pids = [int(pid) for pid in test.stdout.readline().split()]
        assert len(pids) == 6
        assert all(map(_runs, pids))
        os.kill(test.pid, signal.SIGKILL)
    eventually(lambda: not any(map(_runs, pids)), "all have ended")


def test_a_port_is_kept_while_its_server_is_down(tmp_path: Path) -> None:
    """Nobody else is given it, or may take it without saying that he shares."""
    with RedisCluster(tmp_path, "valkey") as cluster:
        node = cluster.nodes[0]
        port = node.port
        cluster.kill(node)
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind((LOOPBACK, port))
        cluster.restart(node)
        assert node.port == port
