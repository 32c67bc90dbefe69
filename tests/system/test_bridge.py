"""The admin port of a real `marketfeed bridge`: what it says while a real server comes, is slow, and goes."""

from __future__ import annotations

import json
import sys

import pytest_twisted
from twisted.internet.defer import gatherResults

from tests.system.admin_port import ADMIN, AdminPort
from tests.system.harness import DaemonProcess, Harness, RedisServer

_READY: tuple[int, list[str]] = (200, [])


class Bridge(AdminPort):
    """The admin port of one."""

    @classmethod
    async def start(cls, harness: Harness, url: str, *options: str) -> Bridge:
        command = [sys.executable, "-m", "marketfeed", "bridge", "--redis-url", url, *ADMIN, *options, "*"]
        return await cls.of(DaemonProcess(harness.spawn(command)))

    async def readiness(self, harness: Harness) -> tuple[int, list[str]]:
        status, _, body = await self.ask(harness, "/readyz")
        answer = json.loads(body)
        assert answer["ready"] is (status == 200)
        return status, answer["reasons"]

    async def becomes(self, harness: Harness, status: int, reasons: list[str]) -> None:
        async def it_is() -> bool:
            return await self.readiness(harness) == (status, reasons)

        await harness.eventually(it_is)

    async def comes_to(self, harness: Harness, expected: dict[str, float]) -> None:
        """Metrics, as `samples` names them."""

        async def it_has() -> bool:
            samples = await self.samples(harness)
            return {name: samples[name] for name in expected} == expected

        await harness.eventually(it_has)


async def one_is_heard_and_nothing_taken(server: RedisServer, channel: str) -> None:
    """The server publishes it, and from the same moment on answers no command that writes."""
    redis = await server.connect()
    words = (("MULTI",), ("PUBLISH", channel, "late"), ("CLIENT", "PAUSE", "3600000", "WRITE"), ("EXEC",))
    await gatherResults([redis.command(*command) for command in words])


@pytest_twisted.ensureDeferred
async def test_a_server_that_was_never_there(harness: Harness) -> None:
    bridge = await Bridge.start(harness, "redis://127.0.0.1:1", "--admin-host", "bridge.internal")
    assert await bridge.readiness(harness) == (503, ["source-never-reached", "target-down"])
    status, _, body = await bridge.ask(harness, "/healthz")
    assert (status, body) == (200, b"ok\n")
    assert (await bridge.ask(harness, "/healthz", "bridge.internal"))[0] == 200
    assert (await bridge.ask(harness, "/metrics", "rebound.example"))[0] == 421
    for path in ("/", "/status.json", "/login"):
        assert (await bridge.ask(harness, path))[0] == 404
    samples = await bridge.samples(harness)
    assert [samples[f"source_up {link}"] for link in ("redis", "redis appender", "redis commands")] == [0, 0, 0]
    assert await bridge.stop("TERM") == 0


@pytest_twisted.ensureDeferred
async def test_what_it_says_of_a_server(harness: Harness) -> None:
    """Which takes what it is given, then nothing, then is killed, then is there again."""
    server = await harness.redis()
    bridge = await Bridge.start(harness, server.url)
    await bridge.becomes(harness, *_READY)
    redis = await server.connect()
    await redis.publish("trade@A", b"1", b"2", b"3")
    await redis.publish("news", b"no stream has this name")
    await redis.command("SET", "trade@B", "no stream")
    await redis.publish("trade@B", b"4")
    counts = {"bridge_dropped_total no-stream": 1.0, "bridge_dropped_total refused": 1.0, "bridge_lag_seconds": 0.0}
    await bridge.comes_to(harness, {"bridge_publications_total": 5, **counts})
    assert await redis.command("XLEN", "trade@A") == 3

    await one_is_heard_and_nothing_taken(server, "trade@A")

    async def it_lags() -> bool:
        return (await bridge.samples(harness))["bridge_lag_seconds"] > 0

    await harness.eventually(it_lags)
    await server.kill()
    await bridge.becomes(harness, 503, ["source-down", "target-down"])
    samples = await bridge.samples(harness)
    assert samples["bridge_dropped_total link-lost"] == 1
    assert samples["bridge_lag_seconds"] == 0
    assert [samples[f"source_up {link}"] for link in ("redis", "redis appender")] == [0, 0]

    await server.start()
    await bridge.becomes(harness, *_READY)
    samples = await bridge.samples(harness)
    assert [samples[f"source_up {link}"] for link in ("redis", "redis appender")] == [1, 1]
    assert min(samples[f"source_reconnects_total {link}"] for link in ("redis", "redis appender")) >= 1
    redis = await server.connect()
    await redis.publish("trade@A", b"5")
    await bridge.comes_to(harness, {"bridge_publications_total": 7, **counts})
    assert await redis.command("XLEN", "trade@A") >= 1
    assert await bridge.stop("TERM") == 0
    assert bridge.lines[-1].endswith("6 publications heard, 4 of them added to streams, 2 lost")


@pytest_twisted.ensureDeferred
async def test_a_port_that_is_taken(harness: Harness) -> None:
    """Nothing is copied without it."""
    first = await Bridge.start(harness, "redis://127.0.0.1:1")
    where = f"tcp:{first.port}:interface=127.0.0.1"
    command = [sys.executable, "-m", "marketfeed", "bridge", "--redis-url", "redis://127.0.0.1:1", "--admin", where]
    second = harness.spawn([*command, "*"])
    assert await second.wait() == 2
    assert second.lines.all[-1] == f"marketfeed bridge: --admin: port {where} is taken; --admin may name another"
