"""What the fault suite is made of: an engine and clients that go on after every fault, and faults of every kind.

1. A fault befalls real processes and real connections: a server, a daemon, the way between them, a client.
2. Faults come after so many publications each, never after some time.
3. Which fault befalls whom is drawn from a seed, which a failure shows.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any, Protocol
from zlib import crc32

import msgspec
from twisted.internet.defer import Deferred, DeferredList, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol, wrapClientTLS

from tests.system.forwarder import Forwarder
from tests.system.harness import DaemonProcess, Harness, Redis, RedisServer
from tests.system.lean import HANDSHAKE, LeanClient, client_frame
from tests.system.secure import Secure

__all__ = ["Cast", "Connection", "Engine", "Faults", "GapWatcher", "Watcher", "now_ms", "trade"]

_BATCH = 200
_PAUSE = 0.02  # between two attempts


def now_ms() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)


def trade(stream: str, number: int, moment: int) -> bytes:
    """A trade that says when it was published, in ms since 1970."""
    market = stream.partition("@")[2].encode()
    return b'{"e":"trade","t":%d,"m":true,"p":"1","q":"2","s":"%b","E":%d}' % (number, market, moment)


class Engine:
    """A trading engine: numbered trades into streams in turn, again and again, whatever happens to its connection.

    `words`: the command that publishes one, given stream and payload. `acknowledged`: stream → number → when it was
    published, between two moments in ms since 1970. What the server has not acknowledged is not sent again.
    `failures`: how often it had to leave it at that. `make`: what it publishes, given stream, number and moment.
    `fence`: a command behind those of each batch, none of which counts as acknowledged before that has its answer.
    """

    def __init__(
        self,
        harness: Harness,
        redis: RedisServer,
        streams: list[str],
        words: Callable[[str, bytes], tuple[Any, ...]],
        make: Callable[[str, int, int], bytes] = trade,
        fence: tuple[Any, ...] = (),
    ) -> None:
        self._harness = harness
        self._redis = redis
        self._streams = streams
        self._words = words
        self._make = make
        self._waiting: list[tuple[int, Deferred[None]]] = []
        self._ended = False
        self.sent = 0
        self.failures = 0
        self.fence = fence
        self.acknowledged: dict[str, dict[int, tuple[int, int]]] = defaultdict(dict)

    async def run(self, total: int) -> None:
        """Publish until there are so many acknowledged."""
        while self.sent < total and not self._ended:
            try:
                connection = await self._redis.connect()
                while self.sent < total and not self._ended:
                    await self._publish(connection, min(_BATCH, total - self.sent))
            except Exception:
                self.failures += 1
                await self._harness.pause(_PAUSE)
        self._call()

    def stop(self) -> None:
        self._ended = True

    def after(self, count: int) -> Deferred[None]:
        """So many have been acknowledged."""
        done = Deferred[None]()
        self._waiting.append((count, done))
        self._call()
        return done

    async def _publish(self, redis: Redis, count: int) -> None:
        begun = now_ms()
        batch = []
        for number in range(self.sent, self.sent + count):
            stream = self._streams[number % len(self._streams)]
            batch.append((stream, number, redis.command(*self._words(stream, self._make(stream, number, begun)))))
        self.sent += count  # none is sent twice
        done = [command.addCallbacks(lambda _: True, lambda _: False) for _, _, command in batch]
        if self.fence:
            await redis.command(*self.fence).addErrback(lambda _: None)
        results = await gatherResults(done)
        ended = now_ms()
        for (stream, number, _), is_acknowledged in zip(batch, results, strict=True):
            if is_acknowledged:
                self.acknowledged[stream][number] = (begun, ended)
        self._call()
        if not all(results):
            raise ConnectionError

    def _call(self) -> None:
        due = [entry for entry in self._waiting if entry[0] <= self.sent]
        self._waiting = [entry for entry in self._waiting if entry[0] > self.sent]
        for _, done in due:
            done.callback(None)


class Cast:
    """Who takes part: a server, the ways to it, and the daemons at the other ends of these; to the last one clients
    come by TLS.
    """

    def __init__(self, harness: Harness, redis: RedisServer, *options: str) -> None:
        self.harness = harness
        self.redis = redis
        self.ways = [Forwarder(harness, redis.path), Forwarder(harness, redis.path)]
        self.daemons: list[DaemonProcess] = []
        self._options = options
        self._secure = Secure(harness.directory)

    async def start(self) -> None:
        for index in range(len(self.ways)):
            self.daemons.append(await self._daemon(index))

    async def connect(self, connection: Connection, daemon: DaemonProcess) -> None:
        """Bring a connection to a daemon, up to where it can be written to."""
        endpoint: Any = TCP4ClientEndpoint(self.harness.reactor, "127.0.0.1", daemon.port)
        if daemon is not self.daemons[-1]:
            await connectProtocol(endpoint, connection)
            return
        await connectProtocol(wrapClientTLS(self._secure.client, endpoint), connection)
        await DeferredList([connection.secured, connection.over], fireOnOneCallback=True)

    async def restart(self, index: int) -> None:
        """Kill a daemon, and start another in its place."""
        self.daemons[index].process.signal("KILL")
        await self.daemons[index].process.wait()
        self.daemons[index] = await self._daemon(index)

    async def _daemon(self, index: int) -> DaemonProcess:
        way = f"redis://127.0.0.1:{self.ways[index].port}"
        tls = self._secure.options if index == len(self.ways) - 1 else ()
        return await self.harness.daemon("--redis-url", way, *tls, *self._options)


class Connection(LeanClient):
    """Of a watcher."""

    def __init__(self, watcher: Watcher) -> None:
        super().__init__()
        self._watcher = watcher
        self.over: Deferred[None] = Deferred()
        """It is gone, however far it came."""

    def gone(self) -> None:
        self.over.callback(None)

    def text_received(self, text: bytes) -> None:
        self._watcher.heard(self, text)


class Watcher:
    """Somebody who watches streams through all faults: reconnects at once, to any daemon, and asks for what it missed.

    `last`: stream → offset, behind which it goes on; `seen`: stream → offset and checksum of the data, as they came.
    Some of its visits it cuts short itself, at a point that is drawn. `faults`: what was wrong with what it was sent.
    """

    def __init__(self, cast: Cast, rng: random.Random, last: dict[str, bytes]) -> None:
        self._cast = cast
        self._rng = rng
        self._ended = False
        self._connection: Connection | None = None
        self.last = dict(last)
        self.seen: dict[str, list[tuple[bytes, int]]] = {stream: [] for stream in last}
        self.visits = 0
        self.not_recovered = 0
        self.faults: list[str] = []

    async def run(self) -> None:
        while not self._ended:
            connection = self._connection = Connection(self)
            try:
                await self._visit(connection)
            except Exception:
                await self._cast.harness.pause(_PAUSE)
            self._connection = None

    def cut(self) -> None:
        """Lose the connection."""
        if self._connection is not None and self._connection.connected:
            self._connection.abort()

    def end(self) -> None:
        """Come back no more."""
        self._ended = True
        self.cut()

    async def _visit(self, connection: Connection) -> None:
        rng = self._rng
        point = rng.randrange(24)
        await self._cast.connect(connection, rng.choice(self._cast.daemons))
        self.visits += 1
        if self._ended or point == 0:
            connection.abort()
        handshake = HANDSHAKE % b"/stream"
        if point == 1:
            connection.send_and_abort(handshake[: rng.randrange(1, len(handshake))])
        connection.transport.write(handshake)
        if await connection.handshake == 101:
            requests = self._requests()
            if point == 2:
                connection.send_and_abort(requests[: rng.randrange(1, len(requests))])
            elif point == 3:
                connection.send_and_abort(requests)
            connection.transport.write(requests)
        try:
            await connection.lost
        except Exception as fault:
            self.faults.append(repr(fault))

    def _requests(self) -> bytes:
        since = {stream: offset.decode() for stream, offset in self.last.items()}
        requests = [
            {"method": "SET_PROPERTY", "params": ["offsets", True], "id": 1},
            {"method": "SUBSCRIBE", "params": list(self.last), "since": since, "id": 2},
        ]
        return b"".join([client_frame(msgspec.json.encode(request)) for request in requests])

    def heard(self, connection: Connection, text: bytes) -> None:
        """One message; nothing counts that a connection brings which has been given up."""
        if connection is not self._connection:
            return
        if text.startswith(b'{"stream":"trade@'):
            stream = text[11 : text.index(b'"', 11)].decode()
            data, _, tail = text[: -len(b'"}')].rpartition(b',"offset":"')
            self.seen[stream].append((tail, crc32(data[data.index(b',"data":') + 8 :])))
            self.last[stream] = tail
        elif b'"recovered"' in text and not all(msgspec.json.decode(text)["recovered"].values()):
            self.not_recovered += 1  # the server is out of its daemon's reach: try again
            self._connection = None
            connection.abort()


class GapWatcher(Watcher):
    """One whom an ordinary channel may leave without publications: it keeps what it was told of that.

    `numbers`: stream → those that it has seen; `missing`: stream → the spans, in ms since 1970, in which publications
    may have been missed: gaps that were announced, and those that it made itself by its absence.
    """

    def __init__(self, cast: Cast, rng: random.Random, streams: list[str]) -> None:
        super().__init__(cast, rng, dict.fromkeys(streams, b""))
        self.numbers: dict[str, list[int]] = {stream: [] for stream in streams}
        self.missing: dict[str, list[tuple[int, float]]] = {stream: [] for stream in streams}
        self._open: dict[tuple[str, str], int] = {}
        self._good_until = dict.fromkeys(streams, now_ms())
        self.is_there = False

    @property
    def is_whole(self) -> bool:
        """It is connected, and nothing is missing at this moment."""
        return self.is_there and not self._open and self._connection is not None and bool(self._connection.connected)

    def _requests(self) -> bytes:
        self._away()
        requests = [
            {"method": "SET_PROPERTY", "params": ["events", True], "id": 1},
            {"method": "SUBSCRIBE", "params": list(self.last), "id": 2},
        ]
        return b"".join([client_frame(msgspec.json.encode(request)) for request in requests])

    def _away(self) -> None:
        """The last connection is gone, and what it announced with it."""
        if self.is_there:
            self.is_there = False
            for (stream, _), since in self._open.items():
                self.missing[stream].append((since, float("inf")))
            self._open.clear()

    def heard(self, connection: Connection, text: bytes) -> None:
        if connection is not self._connection:
            return
        message = msgspec.json.decode(text)
        if message.get("id") == 2:
            self.is_there = True
            for stream, spans in self.missing.items():
                spans.append((self._good_until[stream], now_ms()))
            return
        if "id" in message:
            return  # of the property
        data = message["data"]
        if data["e"] != "gap":
            self.numbers[message["stream"]].append(data["t"])
            self._good_until[message["stream"]] = data["E"]
            return
        for stream in data["streams"]:
            if data["to"] is None:
                self._open[stream, data["reason"]] = data["from"]
            else:
                assert self._open.pop((stream, data["reason"])) == data["from"]
                self.missing[stream].append((data["from"], data["to"]))

    def check(self, stream: str, acknowledged: dict[int, tuple[int, int]]) -> int:
        """See that each publication was seen once and in order, or is inside a gap; returns how many were missed."""
        self._away()
        assert not self.faults
        seen = set(self.numbers[stream])
        assert self.numbers[stream] == sorted(seen)
        spans = self.missing[stream]
        missed = [moments for number, moments in acknowledged.items() if number not in seen]
        for begun, ended in missed:
            assert any(since <= ended and begun <= until for since, until in spans), (begun, ended, spans)
        return len(missed)


class Victims(Protocol):
    """Clients who can be cut off."""

    def cut(self) -> None: ...


class Faults:
    """Draws faults, and lets them happen. `counts`: how many of each kind there were."""

    def __init__(self, cast: Cast, rng: random.Random, clients: list[Any], buffer_class: str) -> None:
        self._cast = cast
        self._rng = rng
        self._clients = clients
        self._buffer_class = buffer_class
        self._kinds: list[Callable[[], Awaitable[None]]] = [
            self._server_killed,
            self._way_cut,
            self._way_stalled,
            self._way_stalled_and_cut,
            self._connections_killed,
            self._buffer_overflown,
            self._daemon_killed,
            self._clients_cut,
        ]
        self.counts: dict[str, int] = defaultdict(int)

    async def one(self) -> str:
        """Each kind comes once before any comes again; which it was."""
        if not sum(self.counts.values()) % len(self._kinds):
            self._rng.shuffle(self._kinds)
        kind = self._kinds[sum(self.counts.values()) % len(self._kinds)]
        name = kind.__name__.strip("_")
        self.counts[name] += 1
        await kind()
        return name

    async def _server_killed(self) -> None:
        await self._cast.redis.kill()
        await self._cast.redis.start()

    async def _way_cut(self) -> None:
        self._rng.choice(self._cast.ways).cut()

    async def _way_stalled(self) -> None:
        way = self._rng.choice(self._cast.ways)
        way.stall()
        await self._cast.harness.pause(self._rng.choice((0.05, 0.5)))
        way.go_on()

    async def _way_stalled_and_cut(self) -> None:
        way = self._rng.choice(self._cast.ways)
        way.stall()
        await self._cast.harness.pause(0.2)
        way.cut()

    async def _connections_killed(self) -> None:
        redis = await self._cast.redis.connect()
        await redis.command("CLIENT", "KILL", "TYPE", self._buffer_class, "SKIPME", "yes")

    async def _buffer_overflown(self) -> None:
        redis = await self._cast.redis.connect()
        way = self._rng.choice(self._cast.ways)
        await redis.command("CONFIG", "SET", "client-output-buffer-limit", f"{self._buffer_class} 20000 0 0")
        way.stall()
        await self._cast.harness.pause(0.3)
        way.go_on()
        await redis.command("CONFIG", "SET", "client-output-buffer-limit", f"{self._buffer_class} 0 0 0")

    async def _daemon_killed(self) -> None:
        await self._cast.restart(self._rng.randrange(len(self._cast.daemons)))

    async def _clients_cut(self) -> None:
        for client in self._rng.sample(self._clients, len(self._clients) // 4):
            client.cut()
