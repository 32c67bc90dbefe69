"""The daemon as systemd starts it: with a port that is open already, a socket to be told on, and a watchdog."""

from __future__ import annotations

import sys

import pytest_twisted
from twisted.internet.protocol import DatagramProtocol

from tests.system.harness import TWISTD, DaemonProcess, Harness


class Told(DatagramProtocol):
    """systemd's end of the socket on which it is told. It reads as that comes: little of it may wait there."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def datagramReceived(self, datagram: bytes, addr: object) -> None:
        self.messages.append(datagram.decode().partition("\n")[0])


AS_SYSTEMD = """
import os, socket, sys
port = socket.create_server(("127.0.0.1", 0), backlog=64)
os.dup2(port.fileno(), 3)
os.set_inheritable(3, True)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "clients"}
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Runs a program with a socket as systemd gives one: as file 3, by the id of the process that is to have it."""


@pytest_twisted.ensureDeferred
async def test_systemd_opens_the_port_and_is_told_how_it_goes(harness: Harness) -> None:
    """Ready once clients can come, alive while the loop turns, reloading, stopping as the clients are sent away."""
    told, path = Told(), str(harness.directory / "notify")
    harness.on_close(harness.reactor.listenUNIXDatagram(path, told).stopListening)
    twistd = [sys.executable, *TWISTD, "-n", "--pidfile=", "marketfeed"]
    options = ["--port", "systemd:domain=INET:name=clients", "--drain-seconds", "0.1"]
    environment = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "1000000"}
    daemon = DaemonProcess(harness.spawn([sys.executable, "-c", AS_SYSTEMD, *twistd, *options], environment))
    daemon.port = int((await daemon.expect(r"listening on port (\d+)"))[1])
    await harness.eventually(lambda: told.messages.count("WATCHDOG=1") >= 2)
    assert told.messages[0] == "READY=1"
    assert set(told.messages) == {"READY=1", "WATCHDOG=1"}
    client = await harness.client(daemon)
    assert (await client.ask({"method": "PING", "id": 1}))["data"]["result"] == "PONG"
    daemon.process.signal("HUP")
    await daemon.expect("reloaded: no option has changed")
    await harness.eventually(lambda: told.messages.count("READY=1") == 2)
    assert [each for each in told.messages if each != "WATCHDOG=1"] == ["READY=1", "RELOADING=1", "READY=1"]
    assert await daemon.stop("TERM") == 0
    await harness.eventually(lambda: "STOPPING=1" in told.messages)
