"""The daemon as systemd starts it: with a port that is open already, a socket to be told on, and a watchdog."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted

from tests.system.harness import DaemonProcess, Harness


@pytest.fixture
def told(tmp_path: Path) -> Iterator[socket.socket]:
    """systemd's end of the socket on which it is told."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as end:
        end.bind(str(tmp_path / "notify"))
        yield end


def heard(told: socket.socket) -> list[str]:
    found = []
    try:
        while True:
            found.append(told.recv(4096).decode().partition("\n")[0])
    except BlockingIOError:
        return found


_AS_SYSTEMD = """
import os, socket, sys
port = socket.create_server(("127.0.0.1", 0), backlog=64)
os.dup2(port.fileno(), 3)
os.set_inheritable(3, True)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "clients"}
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Runs a program with a socket as systemd gives one: as file 3, by the id of the process that is to have it."""


@pytest_twisted.ensureDeferred
async def test_systemd_opens_the_port_and_is_told_how_it_goes(harness: Harness, told: socket.socket) -> None:
    """Ready once clients can come, alive while the loop turns, reloading, stopping as the clients are sent away."""
    twistd = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "-n", "--pidfile=", "marketfeed"]
    options = ["--port", "systemd:domain=INET:name=clients", "--drain-seconds", "0.1"]
    environment = {"NOTIFY_SOCKET": told.getsockname(), "WATCHDOG_USEC": "200000"}
    daemon = DaemonProcess(harness.spawn([sys.executable, "-c", _AS_SYSTEMD, *twistd, *options], environment))
    daemon.port = int((await daemon.expect(r"listening on port (\d+)"))[1])
    messages: list[str] = []

    def read() -> list[str]:
        messages.extend(heard(told))
        return messages

    await harness.eventually(lambda: read().count("WATCHDOG=1") >= 2)
    assert messages[0] == "READY=1"
    assert set(messages) == {"READY=1", "WATCHDOG=1"}
    client = await harness.client(daemon)
    assert (await client.ask({"method": "PING", "id": 1}))["data"]["result"] == "PONG"
    os.kill(daemon.process.pid, signal.SIGHUP)
    await daemon.expect("reloaded: no option has changed")
    await harness.eventually(lambda: read().count("READY=1") == 2)
    assert messages.index("RELOADING=1") < len(messages) - messages[::-1].index("READY=1")
    assert await daemon.stop("TERM") == 0
    assert "STOPPING=1" in read()
