"""Paths, and the plain HTTP on the port of the clients: what browsers, curl and load balancers see."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
import pytest_twisted
from twisted.internet import reactor

from tests.by_hand import CLOSE, PING, TEXT, close_code, frames_of, handshake, say
from tests.system.harness import DaemonProcess, Harness, Redis, RedisServer, trade


class Stage:
    """A daemon with its server and an engine."""

    def __init__(self, harness: Harness, daemon: DaemonProcess, engine: Redis) -> None:
        self.harness = harness
        self.daemon = daemon
        self.engine = engine
        self.markets = 0

    def market(self) -> str:
        """One that nobody has used yet."""
        self.markets += 1
        return f"M{self.markets}"

    async def get(self, target: str, method: str = "GET", *headers: str) -> tuple[int, dict[str, str], bytes]:
        return await self.harness.http(self.daemon, "\n".join((f"{method} {target} HTTP/1.1", "Host: x", *headers)))

    async def is_subscribed(self, *streams: str) -> None:
        """Wait until the daemon's clients watch these streams; a path's streams are subscribed without a reply."""

        async def subscribed() -> bool:
            return await self.engine.channels() >= set(streams)

        await self.harness.eventually(subscribed)


@pytest_twisted.async_yield_fixture(scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """What most tests of this module share."""
    harness = Harness(reactor, tmp_path_factory.mktemp("stage"))
    try:
        redis = await harness.redis()
        daemon = await harness.daemon(redis=redis)
        yield Stage(harness, daemon, await redis.connect())
        assert await daemon.stop() == 0
    finally:
        await harness.close()


# Paths of WebSockets.


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/", "house"),
        ("/?token=x", "house"),
        ("/stream", "combined"),
        ("/stream/", "combined"),
        ("/stream?streams=", "combined"),
        ("/ws", "raw"),
        ("/ws/", "raw"),
        ("/ws/0", "raw"),
        ("/ws/anything/without/a/stream", "raw"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_path_decides_how_the_server_speaks(stage: Stage, path: str, shape: str) -> None:
    """Replies, errors and publications."""
    client = await stage.harness.client(stage.daemon, path)
    stream = f"trade@{stage.market()}"
    reply = await client.subscribe(stream)
    error = await client.ask({"method": "NONSENSE", "id": 2})
    await stage.engine.publish(stream, trade())
    publication = await client.next_bytes()
    if shape == "house":
        assert reply == {"stream": "!reply", "data": {"e": "reply", "id": 1, "result": None}}
        assert error["stream"] == "!error"
        assert error["data"].keys() == {"e", "code", "msg", "id"}
    else:
        assert reply == {"result": None, "id": 1}
        assert error.keys() == {"error", "id"}
        assert error["error"].keys() == {"code", "msg"}
    assert publication == (trade() if shape == "raw" else b'{"stream":"%b","data":%b}' % (stream.encode(), trade()))


@pytest.mark.parametrize(
    "path",
    [
        "/ws/trade@{0}",
        "/ws/trade@{0}/ticker@{0}",
        "/ws/0/trade%40{0}/ticker@{0}/",
        "/stream?streams=trade@{0}",
        "/stream?streams=trade@{0}/ticker@{0}",
        "/stream?streams=trade%40{0}%2Fticker%40{0}&streams=depth@{0}",
        "/stream/?timeUnit=x&streams=trade@{0}",
    ],
)
@pytest_twisted.ensureDeferred
async def test_the_streams_of_a_path_are_subscribed(stage: Stage, path: str) -> None:
    """Without a reply; they are on the list, and can be left like others."""
    market = stage.market()
    client = await stage.harness.client(stage.daemon, path.format(market))
    streams = [f"{kind}@{market}" for kind in ("trade", "ticker", "depth") if kind in path]
    await stage.is_subscribed(*streams)
    assert await client.ask({"method": "LIST_SUBSCRIPTIONS", "id": 1}) == {"result": streams, "id": 1}
    await stage.engine.publish(streams[0], trade(market))
    received = await client.next()
    assert (received["data"] if path.startswith("/stream") else received) == json.loads(trade(market))
    assert await client.ask({"method": "UNSUBSCRIBE", "params": streams, "id": 2}) == {"result": None, "id": 2}


@pytest_twisted.ensureDeferred
async def test_spellings_in_a_path_are_echoed(stage: Stage) -> None:
    """As in a SUBSCRIBE."""
    market = stage.market()
    spelling = f"{market.lower()}@depth@100ms"
    client = await stage.harness.client(stage.daemon, f"/stream?streams={spelling}")
    await stage.is_subscribed(f"depth@{market}")
    depth = b'{"e":"depthUpdate","a":[["1","2"]],"b":[]}'
    await stage.engine.publish(f"depth@{market}", depth)
    assert await client.next_bytes() == b'{"stream":"%b","data":%b}' % (spelling.encode(), depth)


@pytest.mark.parametrize(
    "target", ["/ws/candle@A", "/ws/0/candle@A", "/ws/trade@A/candle@A", "/stream?streams=candle@A"]
)
@pytest.mark.parametrize("upgrade", [True, False])
@pytest_twisted.ensureDeferred
async def test_a_bad_name_in_a_path_is_refused(stage: Stage, target: str, upgrade: bool) -> None:
    """With the name, so that whoever wrote it finds it; nothing of the rest is subscribed."""
    raw = await stage.harness.raw(stage.daemon)
    raw.send(handshake(target, **({} if upgrade else {"Upgrade": None})))
    head, _, body = (await raw.until_closed()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"'candle@A'" in body


# Front ends that exist: what they send, and when.


@pytest.mark.parametrize("waits", [True, False])
@pytest_twisted.ensureDeferred
async def test_a_subscribe_that_does_not_wait_for_the_answer(stage: Stage, waits: bool) -> None:
    """In the segment of the handshake, or behind it before the 101 was read; without an id, and without a reply."""
    stream = f"trade@{stage.market()}"
    raw = await stage.harness.raw(stage.daemon)
    request = say({"method": "SUBSCRIBE", "params": [stream]})
    if waits:
        raw.send(handshake("/"))
        await stage.harness.pause(0)
        raw.send(request)
    else:
        raw.send(handshake("/") + request)
    await stage.is_subscribed(stream)
    await stage.engine.publish(stream, trade())
    await raw.until_ends(trade() + b"}")
    _, _, rest = raw.data.partition(b"\r\n\r\n")
    frames = [each for each in frames_of(rest) if each[0] != PING]  # which may come at any time
    assert frames == [(TEXT, b'{"stream":"%b","data":%b}' % (stream.encode(), trade()))]


# Plain requests.


@pytest.mark.parametrize("target", ["/", "/?x=1", "/stream", "/stream?streams=trade@A", "/ws", "/ws/0", "/ws/trade@A"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest_twisted.ensureDeferred
async def test_a_plain_request_of_a_websocket(stage: Stage, target: str, method: str) -> None:
    """426 with the protocol to upgrade to."""
    status, headers, body = await stage.get(target, method)
    assert status == 426
    assert headers["upgrade"] == "websocket"
    assert headers["content-length"] == str(len(body) if method == "GET" else len(b"this is a WebSocket endpoint\n"))
    assert bool(body) == (method == "GET")


@pytest.mark.parametrize(
    "target", ["/nothing", "/index.html", "/favicon.ico", "/ws2", "/healthz/x", "/metrics", "/../etc"]
)
@pytest.mark.parametrize("headers", [(), ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")])
@pytest_twisted.ensureDeferred
async def test_anything_else_is_not_found(stage: Stage, target: str, headers: tuple[str, ...]) -> None:
    """For WebSocket clients too."""
    assert (await stage.get(target, "GET", *headers))[0] == 404


@pytest.mark.parametrize("target", ["/", "/ws/trade@A", "/healthz", "/readyz"])
@pytest_twisted.ensureDeferred
async def test_options(stage: Stage, target: str) -> None:
    """204 with what there is."""
    status, headers, body = await stage.get(target, "OPTIONS")
    assert (status, headers["allow"], body) == (204, "GET, HEAD, OPTIONS", b"")
    assert "content-length" not in headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
@pytest_twisted.ensureDeferred
async def test_other_methods(stage: Stage, method: str) -> None:
    """405 with what there is."""
    status, headers, _ = await stage.get("/", method, "Content-Length: 0")
    assert (status, headers["allow"]) == (405, "GET, HEAD, OPTIONS")


@pytest.mark.parametrize(("target", "text"), [("/healthz", b"ok\n"), ("/readyz", b"ready\n")])
@pytest_twisted.ensureDeferred
async def test_health_of_a_daemon_that_works(stage: Stage, target: str, text: bytes) -> None:
    """200 without details, not to be cached; HEAD is the same without the text."""
    status, headers, body = await stage.get(target)
    assert (status, body) == (200, text)
    assert headers == {
        "content-type": "text/plain; charset=utf-8",
        "content-length": str(len(text)),
        "cache-control": "no-store",
        "connection": "close",
    }
    assert await stage.get(target, "HEAD") == (200, headers, b"")
    assert (await stage.get(target + "?x=1"))[0] == 200


# Readiness over a daemon's life.


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
    daemon = await harness.daemon("--drain-seconds", "1", redis=redis)
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


@pytest_twisted.ensureDeferred
async def test_a_daemon_that_is_full(harness: Harness) -> None:
    """503 with when to come back, until somebody leaves; health is told all the same."""
    daemon = await harness.daemon("--max-connections", "2")
    first = await harness.client(daemon)
    await harness.client(daemon)
    raw = await harness.raw(daemon)
    raw.send(handshake())
    answer = await raw.until_closed()
    assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"\r\nRetry-After: 30\r\n" in answer
    assert (await harness.http(daemon, "GET /healthz HTTP/1.1\nHost: x"))[0] == 200
    await harness.hang_up(first)
    await daemon.expect(r"client \S+-1 disconnected")
    await harness.client(daemon)
    assert await daemon.stop() == 0
