"""Clients that do not read, read too slowly, or are gone without a word, beside others who lose nothing by it."""

from __future__ import annotations

import json
import random
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest
import pytest_twisted

from marketfeed.demo.market import Instrument, SimulatedMarket
from marketfeed.demo.matching import Side
from tests.books import may_merge, replay
from tests.system.admin_port import ADMIN, AdminPort
from tests.system.harness import DEADLINE, DaemonProcess, Harness, Redis, trade
from tests.system.lean import HANDSHAKE, LeanClient, LeanClients, all_of
from tests.system.secure import Secure, also_tls, tls_in_full

QUEUE = 300_000
"""`--client-queue` of these daemons, in bytes."""
NARROW = ((socket.SOL_SOCKET, socket.SO_RCVBUF, 4096), (socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536))
"""With these the kernel holds about 100 kB for a connection, not 4 MB."""
TEXT, CLOSE, PING = 0x81, 0x88, 0x89
HEALTHY = 50


class SlowReader:
    """A WebSocket client on a blocking socket, which reads as much as it is told to, and nothing by itself."""

    def __init__(
        self, harness: Harness, daemon: DaemonProcess, stream: str, context: ssl.SSLContext | None = None
    ) -> None:
        self._socket = socket.socket()
        harness.on_close(lambda: self._socket.close())
        for option in NARROW:
            self._socket.setsockopt(*option)
        self._socket.settimeout(DEADLINE)
        self._socket.connect(("127.0.0.1", daemon.port))
        if context is not None:
            self._socket = context.wrap_socket(self._socket, server_hostname="localhost")
        self._data = b""
        self._socket.sendall(HANDSHAKE % b"/ws")
        while b"\r\n\r\n" not in self._data:
            self._receive()
        head, _, self._data = self._data.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        self._ask("SUBSCRIBE", [stream])

    def _ask(self, method: str, params: list[object]) -> None:
        request = json.dumps({"method": method, "params": params, "id": 1}).encode()
        self._socket.sendall(bytes((TEXT, 0x80 | len(request))) + b"\0\0\0\0" + request)
        assert self.next() == b'{"result":null,"id":1}'

    def hear_events(self) -> None:
        """Ask for control events."""
        self._ask("SET_PROPERTY", ["events", True])

    def next(self) -> bytes:
        """The next message."""
        first, payload = next(each for each in self.frames() if each[0] != PING)  # which may come at any time
        assert first == TEXT
        return payload

    def take_a_little(self) -> None:
        """Read a single byte, if there is one."""
        self._socket.settimeout(0)
        try:
            self._receive(1)
        except (BlockingIOError, ssl.SSLWantReadError, ConnectionResetError):
            pass
        self._socket.settimeout(DEADLINE)

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """First byte and payload of each frame, until the connection ends; where it is reset, a frame may be cut."""
        while True:
            size, header = 0, 2
            if len(self._data) >= 2:
                size = self._data[1]
                assert size < 128, "a masked frame"
                header = {126: 4, 127: 10}.get(size, 2)
            if len(self._data) >= header > 2:
                size = int.from_bytes(self._data[2:header], "big")
            if len(self._data) >= header + size and len(self._data) >= 2:
                first, payload = self._data[0], self._data[header : header + size]
                self._data = self._data[header + size :]
                yield first, payload
                continue
            try:
                if not self._receive():
                    assert not self._data, "a frame is cut"
                    return
            except ConnectionResetError:
                return

    def messages(self, last: bytes) -> list[bytes]:
        """The messages up to this one."""
        found = []
        for first, payload in self.frames():
            assert first == TEXT, f"a frame that begins with {first:#x}: {payload[:100]!r}"
            found.append(payload)
            if payload == last:
                return found
        raise AssertionError("the connection has ended")

    def _receive(self, most: int = 65536) -> bool:
        data = self._socket.recv(most)
        self._data += data
        return bool(data)


class Healthy(LeanClient):
    """A client that reads everything at once, and knows what has to come next."""

    def __init__(self, expected: list[bytes]) -> None:
        super().__init__()
        self.expected = expected
        self.count = 0
        self.is_subscribed = False

    def text_received(self, text: bytes) -> None:
        if text == b'{"result":null,"id":1}':
            self.is_subscribed = True
            return
        if text.startswith(b'{"e":"serverShutdown",'):
            return
        assert text == self.expected[self.count], f"publication {self.count} is missing, or another is in its place"
        self.count += 1


class Market:
    """A daemon, an engine, and clients who keep up."""

    def __init__(self, harness: Harness, daemon: DaemonProcess, engine: Redis, stream: str) -> None:
        self.harness = harness
        self.daemon = daemon
        self.engine = engine
        self.stream = stream
        self.published: list[bytes] = []
        self.healthy: list[Healthy] = []
        self.secure: Secure | None = None

    @classmethod
    async def open(cls, harness: Harness, stream: str, *options: str, tls: bool = False) -> Market:
        redis = await harness.redis()
        secure = Secure(harness.directory) if tls else None
        if secure is not None:
            options = (*options, *secure.options)
        options = ("--client-queue", str(QUEUE), "--ping-interval", "0", *ADMIN, *options)
        daemon = await harness.daemon(*options, redis=redis)
        market = cls(harness, daemon, await redis.connect(), stream)
        market.secure = secure
        return market

    async def welcome(self, count: int) -> None:
        """Let clients in who keep up."""
        tls = None if self.secure is None else self.secure.client
        clients = LeanClients[Healthy](self.harness, self.daemon, tls)

        async def one() -> Healthy:
            client = await clients.open(Healthy(self.published), "/ws")
            client.send({"method": "SUBSCRIBE", "params": [self.stream], "id": 1})
            return client

        self.healthy += await all_of(one() for _ in range(count))
        await self.harness.eventually(lambda: all(client.is_subscribed for client in self.healthy))

    def slow(self) -> SlowReader:
        context = None if self.secure is None else self.secure.context()
        return SlowReader(self.harness, self.daemon, self.stream, context)

    async def publish(self, *data: bytes) -> None:
        """Publish, and see that it has reached those who keep up."""
        self.published += data
        await self.engine.publish(self.stream, *data)
        await self.harness.eventually(self._is_up_to_date)

    def _is_up_to_date(self) -> bool:
        for client in self.healthy:
            assert not client.lost.called, "a client who keeps up has been closed"
        return all(client.count == len(self.published) for client in self.healthy)

    async def ended(self, code: int, count: int) -> None:
        """Wait until the daemon has ended so many clients with this code."""
        admin = await AdminPort.of(self.daemon)

        async def closes(of: str) -> float:  # the log does not name each of many
            samples = await admin.samples(self.harness)
            return sum(value for name, value in samples.items() if name.startswith(f"closes_total {of}"))

        async def has_ended() -> bool:
            return await closes(f"server {code}") >= count

        await self.harness.eventually(has_ended)
        assert await closes(f"server {code}") == count
        assert await closes("") == count, "for another reason, too"

    async def stop(self) -> None:
        assert await self.daemon.stop() == 0
        assert not any("Traceback" in line or "Unhandled" in line for line in self.daemon.lines)


def wide_trade(number: int) -> bytes:
    return trade(number=number, padding="x" * 20_000)


def ended_with(reader: SlowReader, published: list[bytes]) -> int | None:
    """Read until the end; whole messages in order, then the code of the close. None: it was reset before that came."""
    count = 0
    for first, payload in reader.frames():
        if first == CLOSE:
            return int(struct.unpack("!H", payload[:2])[0])
        assert (first, payload) == (TEXT, published[count])
        count += 1
    assert count < len(published)
    return None


@also_tls
@pytest_twisted.ensureDeferred
async def test_those_who_stop_or_dawdle_hold_nobody_up(harness: Harness, tls: bool) -> None:
    """Trades all wait, up to the limit: then 4008. Fifty others get every trade, in order, and as fast as ever."""
    market = await Market.open(harness, "trade@TATA_INR", tls=tls)
    stopped = [market.slow() for _ in range(5)]
    dawdling = [market.slow() for _ in range(5)]
    await market.welcome(HEALTHY)
    for batch in range(0, 100, 5):
        await market.publish(*map(wide_trade, range(batch, batch + 5)))
        for reader in dawdling:
            reader.take_a_little()
    codes = [ended_with(reader, market.published) for reader in stopped + dawdling]
    assert set(codes) <= {4008, None}
    await market.ended(4008, len(codes))
    await market.publish(*map(wide_trade, range(100, 105)))
    await market.stop()


@tls_in_full
@pytest_twisted.ensureDeferred
async def test_memory_stays_bounded_whatever_waits(harness: Harness, tls: bool) -> None:
    """Sixty times what may wait for them goes past clients who do not read."""
    market = await Market.open(harness, "trade@TATA_INR", tls=tls)
    await market.welcome(1)
    before = 0
    for round_number in range(60):
        for _ in range(3):
            market.slow()
        await market.publish(*map(wide_trade, range(40)))
        if round_number == 5:
            before = market.daemon.resident_kib()
    # A client that is given up has still what its transport was handed, some 128 KiB, until it is gone: however fast
    # this goes, that is less for all 180 of them than a quarter of the MiB that may wait for each.
    assert market.daemon.resident_kib() - before < 45_000
    await market.ended(4008, 180)
    await market.stop()


@also_tls
@pytest_twisted.ensureDeferred
async def test_a_trade_reader_that_stops_is_ended_at_the_limit(harness: Harness, tls: bool) -> None:
    """A pause that fits the queue costs nothing, not one trade; a longer one ends in 4008 behind whole trades."""
    market = await Market.open(harness, "trade@TATA_INR", tls=tls)
    patient, stopped = market.slow(), market.slow()
    await market.welcome(1)
    for start in range(0, 40, 10):
        data = [wide_trade(number) for number in range(start, start + 10)]
        await market.publish(*data)
        assert patient.messages(market.published[-1]) == data
    assert ended_with(stopped, market.published) in (4008, None)
    await market.ended(4008, 1)
    await market.stop()


def wide_ticker(number: int) -> bytes:
    fields = {"e": "ticker", "c": str(number), "s": "TATA_INR", "padding": "x" * 5000}
    return json.dumps(fields, separators=(",", ":")).encode()


@also_tls
@pytest_twisted.ensureDeferred
async def test_a_ticker_reader_that_stops_gets_the_newest(harness: Harness, tls: bool) -> None:
    """What was on its way already, and then the newest: it is never ended, and the last ticker it has is the last."""
    market = await Market.open(harness, "ticker@TATA_INR", tls=tls)
    reader, witness = market.slow(), market.slow()
    for start in (0, 600, 1200):
        data = [wide_ticker(number) for number in range(start, start + 600)]
        for at in range(0, 600, 10):
            await market.engine.publish(market.stream, *data[at : at + 10])
            assert witness.messages(data[at + 9])
        got = [data.index(message) for message in reader.messages(data[-1])]
        assert got == sorted(set(got))
        assert len(got) < len(data)
    assert not any("disconnected" in line for line in market.daemon.lines)
    await market.stop()


@also_tls
@pytest_twisted.ensureDeferred
async def test_a_reader_that_stops_is_told_what_it_misses(harness: Harness, tls: bool) -> None:
    """Before the first message behind the hole; and that it is live, once it has read everything."""
    market = await Market.open(harness, "ticker@TATA_INR", tls=tls)
    reader, witness = market.slow(), market.slow()
    reader.hear_events()
    data = [wide_ticker(number) for number in range(600)]
    for at in range(0, 600, 10):
        await market.engine.publish(market.stream, *data[at : at + 10])
        assert witness.messages(data[at + 9])
    got = reader.messages(data[-1])
    at = [index for index, message in enumerate(got) if message not in data]
    assert got[: at[0]] == data[: at[0]], "something is missing, and nothing was said"
    events = [json.loads(each) for each in [*[got[index] for index in at], reader.next()]]
    assert all(0 < event.pop("E") / 1000 <= time.time() for event in events)
    told = {"e": "quality", "streams": ["ticker@TATA_INR"]}
    assert events == [{**told, "level": "thinned"}, {**told, "level": "live"}]
    await market.stop()


@pytest.mark.parametrize("with_snapshots", [False, True])
@also_tls
@pytest_twisted.ensureDeferred
async def test_a_depth_reader_that_stops_has_the_exact_book_in_the_end(
    harness: Harness, tls: bool, with_snapshots: bool
) -> None:
    """Fewer messages than the engine published, nothing missing between them, and the engine's own book."""
    engine = SimulatedMarket(Instrument.named("TATA_INR"), random.Random(7))
    steps = [data for _ in range(6000) for stream, data in engine.step(0) if stream == "depth@TATA_INR"]
    steps = [data[:-1] + b',"padding":"%b"}' % (b"x" * 600) for data in steps]
    if not with_snapshots:
        steps = [data for at, data in enumerate(steps) if at == 0 or b'"snapshot":true' not in data]
    market = await Market.open(harness, "depth@TATA_INR", tls=tls)
    reader, witness = market.slow(), market.slow()
    got: list[bytes] = []
    half = len(steps) // 2
    for part in (steps[:half], steps[half:]):
        for at in range(0, len(part), 100):
            await market.engine.publish(market.stream, *part[at : at + 100])
            book_up_to(witness, part[: at + 100][-1])
        got += book_up_to(reader, part[-1])
    assert len(got) < len(steps) / 2
    for earlier, later in pairwise(got):
        assert json.loads(later).get("snapshot") or may_merge(earlier, later), "something is missing in between"
    assert replay(got) == replay(steps)
    for side, name in ((Side.BUY, "b"), (Side.SELL, "a")):
        assert len(replay(got)[name]) == len(engine.engine.levels(side))
    assert not any("disconnected" in line for line in market.daemon.lines)
    await market.stop()


def book_up_to(reader: SlowReader, last: bytes) -> list[bytes]:
    """The messages up to the one that ends as this one does."""
    found = []
    for first, payload in reader.frames():
        assert first == TEXT
        found.append(payload)
        if json.loads(payload)["u"] == json.loads(last)["u"]:
            return found
    raise AssertionError("the connection has ended")


@tls_in_full
@pytest_twisted.ensureDeferred
async def test_those_who_are_gone_without_a_word_are_found(harness: Harness, tls: bool) -> None:
    """Half-open connections answer no ping: 4009. Fifty who answer stay, and miss nothing."""
    market = await Market.open(harness, "trade@TATA_INR", "--ping-interval", "1", "--ping-timeout", "10", tls=tls)
    gone = [market.slow() for _ in range(5)]
    deaf = await harness.client(market.daemon, tls=market.secure and market.secure.client)
    deaf.onPing = lambda payload: None
    await market.welcome(HEALTHY)
    await market.publish(trade(number=1))
    assert await deaf.closed.addTimeout(DEADLINE, harness.reactor) == (4009, "no pong within the time-out")
    await market.ended(4009, 6)
    for reader in gone:
        frames = list(reader.frames())
        assert frames[:1] in ([(TEXT, trade(number=1))], [(PING, b"")], [])
        assert frames.count((PING, b"")) <= 1
        assert not frames or frames[-1][0] in (CLOSE, PING, TEXT)
    await market.publish(*(trade(number=number) for number in range(2, 50)))
    await market.stop()


@tls_in_full
@pytest_twisted.ensureDeferred
async def test_those_who_answer_are_asked_again_and_again(harness: Harness, tls: bool) -> None:
    """Clients who are quiet, and there, stay."""
    market = await Market.open(harness, "trade@TATA_INR", "--ping-interval", "0.5", "--ping-timeout", "10", tls=tls)
    client = await harness.client(market.daemon, tls=market.secure and market.secure.client)
    pings: list[bytes] = []
    answer = client.onPing

    def note(payload: bytes) -> None:
        pings.append(payload)
        answer(payload)

    client.onPing = note
    await harness.eventually(lambda: len(pings) >= 6)
    assert pings == [b""] * len(pings)
    assert not client.closed.called
    await market.stop()
