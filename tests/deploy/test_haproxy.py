"""HAProxy with its file of deploy/, in front of two daemons."""

from __future__ import annotations

import socket

import pytest
import pytest_twisted

from tests.deploy.files import DEPLOY
from tests.programs import find
from tests.system.harness import DaemonProcess, Harness

HAPROXY = find("haproxy")


def start(harness: Harness, one: DaemonProcess, two: DaemonProcess) -> int:
    """Start HAProxy; returns its port."""
    assert HAPROXY is not None
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        variables = {"CLIENTS": f"fd@{listening.fileno()}"}
        variables |= {"DAEMON_ONE": f"127.0.0.1:{one.port}", "DAEMON_TWO": f"127.0.0.1:{two.port}"}
        command = [HAPROXY, "-db", "-q", "-f", str(DEPLOY / "haproxy" / "haproxy.cfg")]
        harness.spawn(command, variables, files=(listening.fileno(),))
        return int(listening.getsockname()[1])


@pytest.mark.skipif(HAPROXY is None, reason="HAProxy is not installed")
@pytest_twisted.ensureDeferred
async def test_clients_are_spread_and_find_the_daemon_that_is_left(harness: Harness) -> None:
    """Each daemon has one of two clients. When one daemon has ended, its client comes back to the other."""
    server = await harness.redis()
    options = ("--port", "haproxy:tcp:0:interface=127.0.0.1", "--drain-seconds", "0.1")
    one, two = [await harness.daemon(*options, redis=server) for _ in range(2)]
    proxy = DaemonProcess(one.process)
    proxy.port = start(harness, one, two)
    clients = [await harness.client(proxy) for _ in range(2)]
    for daemon in (one, two):
        await daemon.expect(r"client \S+-1 connected from 127\.0\.0\.1:")
    assert await one.stop("TERM") == 0
    await harness.eventually(lambda: [client.closed.called for client in clients].count(True) == 1)
    again = await harness.client(proxy)
    assert (await again.ask({"method": "PING", "id": 1}))["data"]["result"] == "PONG"
    await two.expect(r"client \S+-2 connected from 127\.0\.0\.1:")
