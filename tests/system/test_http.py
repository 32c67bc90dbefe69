"""Health and readiness over a daemon's life, as load balancers see them."""

from __future__ import annotations

import json

import pytest_twisted

from tests.by_hand import CLOSE, close_code, frames_of, handshake
from tests.system.harness import DEADLINE, DaemonProcess, Harness, RedisServer, with_constants


async def ready(harness: Harness, daemon: DaemonProcess) -> int:
    status, headers, body = await harness.http(daemon, "GET /readyz HTTP/1.1\nHost: x")
    assert body == {200: b"ready\n", 503: b"not ready\n"}[status]
    assert ("retry-after" in headers) == (status == 503)
    return status


@pytest_twisted.ensureDeferred
async def test_readiness_follows_the_source_once(harness: Harness) -> None:
    """Not ready until Redis was reached; losing it again does not empty the load balancer. It is healthy throughout."""

    async def is_ready() -> bool:
        assert (await harness.http(daemon, "GET /healthz HTTP/1.1\nHost: x"))[0] == 200
        return await ready(harness, daemon) == 200

    redis = RedisServer(harness, harness.directory)
    daemon = await harness.daemon("--redis-url", redis.url)
    assert not await is_ready()
    await harness.client(daemon)  # clients may come already
    await redis.start()
    await harness.eventually(is_ready)
    await redis.kill()
    await daemon.expect(r"no connection to \S+: connection")
    assert await is_ready()
    assert await daemon.stop() == 0


@pytest_twisted.ensureDeferred
async def test_a_daemon_that_drains(harness: Harness) -> None:
    """Healthy, not ready, and closed to new clients, who hear when to come back."""
    redis = await harness.redis()
    program = with_constants(websocket__connections___GRACE=DEADLINE)
    daemon = await harness.daemon("--drain-seconds", "1", redis=redis, program=program)
    raw = await harness.raw(daemon)
    raw.send(handshake())
    await raw.until(lambda data: b"\r\n\r\n" in data)
    assert await ready(harness, daemon) == 200
    daemon.process.signal("TERM")
    await raw.until(lambda data: b"shutting down" in data)  # it does not answer the close, which holds the drain up
    assert await ready(harness, daemon) == 503
    assert (await harness.http(daemon, "GET /healthz HTTP/1.1\nHost: x"))[0] == 200
    late = await harness.raw(daemon)
    late.send(handshake())
    answer = await late.until_closed()
    assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"\r\nRetry-After: 5\r\n" in answer
    daemon.process.signal("TERM")
    assert await daemon.process.wait() == 0
    _, _, rest = (await raw.until_closed()).partition(b"\r\n\r\n")
    (_, event), (opcode, payload) = frames_of(rest)
    assert json.loads(event)["e"] == "serverShutdown"
    assert (opcode, close_code(payload)) == (CLOSE, 1012)
