"""A network that goes silent: packets vanish, and nobody says so. It takes a network namespace of the test's own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import pytest_twisted
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol

from marketfeed.demo.embedded import find_server
from tests.system.harness import DEADLINE, TWISTD, DaemonProcess, Harness, Process, RedisServer, trade
from tests.system.lean import HANDSHAKE, LeanClient, within

_UNSHARE = ("unshare", "--map-root-user", "--net")
_STREAM = "trade@TATA_INR"


def _has_namespaces() -> bool:
    if not all(map(shutil.which, ("unshare", "nsenter", "ip"))):
        return False
    trial = subprocess.run([*_UNSHARE, "ip", "link", "set", "lo", "up"], capture_output=True, check=False)
    return trial.returncode == 0


pytestmark = pytest.mark.skipif(not _has_namespaces(), reason="no network namespace may be made here")


class Namespace:
    """A network with nothing but a loopback interface, which can be taken down under those who use it."""

    def __init__(self, harness: Harness) -> None:
        self._harness = harness
        self._holder: Process

    async def start(self) -> None:
        self._holder = self._harness.spawn([*_UNSHARE, "sh", "-c", "echo there; exec sleep 600"])
        await self._holder.expect("there")
        await self.set("up")

    def spawn(self, *command: str) -> Process:
        """A process on that network."""
        enter = ["nsenter", "--target", str(self._holder.pid), "--user", "--net", "--preserve-credentials", "--"]
        return self._harness.spawn([*enter, *command])

    async def set(self, state: str) -> None:
        """Take the interface `up` or `down`."""
        assert await self.spawn("ip", "link", "set", "lo", state).wait() == 0


async def _start(harness: Harness, network: Namespace, source: str) -> tuple[RedisServer, DaemonProcess, Path]:
    redis = RedisServer(harness, harness.directory)
    options = ("--port", "6379", "--bind", "127.0.0.1", "--unixsocket", redis.path, "--save", "")
    redis.process = network.spawn(find_server(), *options)
    await redis.process.expect(r"[Rr]eady to accept connections")
    path = harness.directory / "clients.sock"
    command = (sys.executable, *TWISTD, "-n", "--pidfile=", "marketfeed", "--port", f"unix:{path}")
    process = network.spawn(*command, "--redis-url", "redis://127.0.0.1:6379", "--source", source)
    await process.expect("listening on")
    await process.expect("redis: connected")
    return redis, DaemonProcess(process), path


class Client(LeanClient):
    """What it gets is decoded: numbers of trades, and events."""

    @property
    def got(self) -> list[object]:
        messages = [msgspec.json.decode(text) for text in self.texts]
        datas = [message["data"] for message in messages if "data" in message]
        return [data["t"] if data["e"] == "trade" else (data["reason"], data["to"] is None) for data in datas]


@pytest_twisted.ensureDeferred
@within(2 * DEADLINE)
async def test_a_network_that_goes_silent_under_streams(harness: Harness) -> None:
    """It is a gap as soon as nothing has answered for ten seconds; what was published meanwhile comes behind it."""
    await _fall_silent(harness, "streams", [2, 3])


@pytest_twisted.ensureDeferred
@within(2 * DEADLINE)
async def test_a_network_that_goes_silent_under_channels(harness: Harness) -> None:
    """What was published meanwhile is missing, and inside the gap."""
    await _fall_silent(harness, "pubsub", [])


async def _fall_silent(harness: Harness, source: str, missed: list[int]) -> None:
    network = Namespace(harness)
    await network.start()
    redis, daemon, path = await _start(harness, network, source)
    engine = await redis.connect()

    async def publish(number: int) -> None:
        words = ("XADD", _STREAM, "*", "d") if source == "streams" else ("PUBLISH", _STREAM)
        await engine.command(*words, trade(number=number))

    client = Client()
    await connectProtocol(UNIXClientEndpoint(harness.reactor, str(path)), client)
    harness.on_close(client.abort)
    client.transport.write(HANDSHAKE % b"/stream")
    assert await client.handshake == 101
    client.send({"method": "SET_PROPERTY", "params": ["events", True], "id": 0})
    client.send({"method": "SUBSCRIBE", "params": [_STREAM], "id": 1})
    await harness.eventually(lambda: len(client.texts) == 2)
    await publish(1)
    await harness.eventually(lambda: client.got == [1])
    await network.set("down")
    await publish(2)
    await publish(3)
    await harness.eventually(lambda: client.got == [1, ("source-down", True)])
    await network.set("up")
    await harness.eventually(lambda: ("source-down", False) in client.got)
    await publish(4)
    await harness.eventually(lambda: client.got == [1, ("source-down", True), ("source-down", False), *missed, 4])
    assert await daemon.stop() == 0
