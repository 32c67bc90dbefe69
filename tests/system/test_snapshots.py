"""States and streams that a real server keeps: they are read and found, whatever else stands among its keys."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence

import pytest
import pytest_twisted
from twisted.application.service import IService, Service
from twisted.internet.defer import gatherResults
from twisted.internet.endpoints import UNIXClientEndpoint

from marketfeed.model.kinds import BUILT_IN
from marketfeed.model.stream_globs import parse_glob
from marketfeed.redis.address import RedisAddress
from marketfeed.redis.channel_sampler import ChannelSampler
from marketfeed.redis.preload import Preload
from marketfeed.redis.routed_commands import RoutedCommands
from marketfeed.redis.snapshots import RedisSnapshots, SnapshotPlaces
from marketfeed.redis.topology import Node, OneServer
from tests.conftest import LogCapture
from tests.system.harness import Harness, Redis, RedisServer

PREFIX = "m[d]*:"


class Reader:
    """What reads from a server, as the daemon has it."""

    def __init__(self, harness: Harness, server: RedisServer, *, by_streams: bool = False, user: str = "") -> None:
        address = RedisAddress(path=server.path, username=user or None, password=user or None)
        node = Node("redis", address, UNIXClientEndpoint(harness.reactor, server.path))
        self.commands = RoutedCommands(harness.reactor, OneServer(node))
        self.snapshots = RedisSnapshots(harness.reactor, self.commands, SnapshotPlaces(PREFIX, 100))
        self.found: list[str] = []
        globs = [parse_glob("depth@*", BUILT_IN), parse_glob("trade@T", BUILT_IN)]

        def listen(patterns: Sequence[bytes], heard: Callable[[bytes], None]) -> IService:
            return ChannelSampler(harness.reactor, node.endpoint, node.address, patterns, heard)

        servers, listens = self.commands.each, None if by_streams else listen
        self.preload = Preload(harness.reactor, servers, self.found.append, globs, PREFIX, listens)
        self._services: list[Service] = [self.commands, self.snapshots]
        for service in self._services:
            service.startService()
        harness.on_close(self._stop)

    def look(self) -> None:
        """Begin to look for streams, and to listen."""
        self.preload.startService()
        self._services.append(self.preload)

    async def _stop(self) -> None:
        for service in reversed(self._services):
            ended = service.stopService()
            if ended is not None:
                await ended


def has(engine: Redis, *channels: str) -> Callable[[], Awaitable[bool]]:
    async def is_subscribed() -> bool:
        return await engine.channels() >= set(channels)

    return is_subscribed


def is_found(reader: Reader, *streams: str) -> Callable[[], bool]:
    return lambda: sorted(reader.found) == sorted(streams)


async def publish_until(harness: Harness, engine: Redis, channel: str, is_done: Callable[[], bool]) -> None:
    async def try_it() -> bool:
        await engine.publish(channel, b"{}")
        return is_done()

    await harness.eventually(try_it)


@pytest_twisted.ensureDeferred
async def test_states_are_read(harness: Harness, logged: LogCapture) -> None:
    """Byte for byte, also when they are asked for before there is a link; the rest is as good as none."""
    server = await harness.redis()
    engine = await server.connect()
    for stream, value in (("depth@A", b'{"u":\xc3\xa9}\r\n'), ("depth@B", b"x" * 100), ("depth@C", b"x" * 101)):
        await engine.command("SET", f"{PREFIX}snapshot:{stream}", value)
    await engine.command("HSET", f"{PREFIX}snapshot:depth@D", "a", "b")
    reader = Reader(harness, server)
    assert not next(reader.commands.each()).ready
    states = await gatherResults([reader.snapshots.read(f"depth@{market}") for market in "ABCDE"])
    assert states == [b'{"u":\xc3\xa9}\r\n', b"x" * 100, None, None, None]


@pytest_twisted.ensureDeferred
async def test_a_user_who_may_not_read_them(harness: Harness, logged: LogCapture) -> None:
    """Has no states; the log says what the server says, once."""
    server = await harness.redis()
    engine = await server.connect()
    await engine.command("ACL", "SETUSER", "feed", "on", ">feed", "-@all", "+ping", "+auth")
    reader = Reader(harness, server, user="feed")
    assert await gatherResults([reader.snapshots.read("depth@A"), reader.snapshots.read("depth@B")]) == [None, None]
    (why,) = [event["why"] for event in logged.events if "why" in event]
    assert why.startswith("NOPERM ")


@pytest.mark.parametrize("kind", ["streams", "snapshots"])
@pytest_twisted.ensureDeferred
async def test_streams_are_found_among_keys(kind: str, harness: Harness) -> None:
    """Behind a prefix with characters that mean something in a pattern, among thousands of others."""
    server = await harness.redis()
    engine = await server.connect()
    by_streams = kind == "streams"
    before = PREFIX if by_streams else f"{PREFIX}snapshot:"
    await gatherResults([engine.command("SET", f"other:{number}", "x") for number in range(3000)])
    for key in (f"{before}depth@A", f"{before}ticker@A", f"{before}depth@", "md:depth@X", "mx:snapshot:depth@X"):
        await engine.command(*(("XADD", key, "*", "d", "{}") if by_streams else ("SET", key, "{}")))
    await engine.command("SET", f"{PREFIX}depth@S", "no stream")
    reader = Reader(harness, server, by_streams=by_streams)
    reader.look()
    await harness.eventually(is_found(reader, "trade@T", "depth@A"))


@pytest_twisted.ensureDeferred
async def test_streams_are_found_when_something_is_published(harness: Harness) -> None:
    """Without any key."""
    server = await harness.redis()
    engine = await server.connect()
    reader = Reader(harness, server)
    reader.look()
    await engine.publish("mx:depth@X", b"{}")
    await publish_until(harness, engine, f"{PREFIX}depth@A", is_found(reader, "trade@T", "depth@A"))


@pytest_twisted.ensureDeferred
async def test_a_daemon_keeps_streams_ready_without_clients(harness: Harness) -> None:
    """By name, by the key of a seed, and when something is published; then a client's first request is answered."""
    server = await harness.redis()
    engine = await server.connect()
    await engine.command("SET", "snapshot:depth@B", '{"e":"depth","u":7,"b":[["1.0","2"]],"a":[]}')
    daemon = await harness.daemon("--warm", "ticker@A", "--warm", "depth@?", redis=server)
    await harness.eventually(has(engine, "ticker@A", "depth@B"))

    async def is_found() -> bool:
        await engine.publish("depth@C", b'{"e":"depth","a":[],"b":[]}')
        return await has(engine, "depth@C")()

    await harness.eventually(is_found)
    status, _, body = await harness.http(daemon, "GET /api/v3/depth?symbol=B HTTP/1.1\nHost: x")
    assert (status, body) == (200, b'{"lastUpdateId":7,"bids":[["1.0","2"]],"asks":[]}')
    assert await daemon.stop() == 0


@pytest_twisted.ensureDeferred
async def test_a_book_for_pages_and_programs(harness: Harness) -> None:
    """What comes over a real socket is what the headers say, for whoever may have it."""
    server = await harness.redis()
    engine = await server.connect()
    levels = ",".join(f'["{number}","1"]' for number in range(1, 5001))
    await engine.command("SET", "snapshot:depth@B", f'{{"e":"depth","u":7,"b":[{levels}],"a":[{levels}]}}')
    daemon = await harness.daemon("--allowed-origin", "https://app.example", redis=server)

    async def ask(*lines: str) -> tuple[int, dict[str, str], bytes]:
        return await harness.http(daemon, "\n".join((*lines, "Host: x")))

    status, headers, body = await ask("GET /api/v3/depth?symbol=B&limit=5000 HTTP/1.1", "Origin: https://app.example")
    assert (status, int(headers["content-length"])) == (200, len(body))
    assert headers["access-control-allow-origin"] == "https://app.example"
    assert headers["content-type"] == "application/json"
    assert [len(json.loads(body)[side]) for side in ("bids", "asks")] == [5000, 5000]
    status, more, nothing = await ask("HEAD /api/v3/depth?symbol=B&limit=5000 HTTP/1.1")
    assert (status, more["content-length"], nothing) == (200, headers["content-length"], b"")
    assert (await ask("GET /api/v3/depth?symbol=B HTTP/1.1", "Origin: https://evil.example"))[0] == 403
    status, _, body = await ask("GET /api/v3/depth?symbol=B&limit=0 HTTP/1.1")
    assert (status, json.loads(body)["code"]) == (400, -1100)
