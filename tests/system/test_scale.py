"""A thousand clients of one daemon: each gets exactly what it has asked for, in order, while others come and go."""

from __future__ import annotations

import json
import random
import socket
from collections import defaultdict
from collections.abc import Iterable
from itertools import count
from typing import Any

import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults
from twisted.python.failure import Failure

from marketfeed.wire.frames import text_frame
from tests.system.harness import DEADLINE, DaemonProcess, Harness, Redis, trade
from tests.system.lean import LeanClient, LeanClients, all_of, within

MARKETS = [f"M{number:03}" for number in range(200)]
STREAMS = [f"trade@{market}" for market in MARKETS]
RARE = [f"trade@RARE{number:03}" for number in range(200)]
"""Streams that only those who come and go ask for, so that each has its first and its last client many times."""
BEACON = "trade@BEACON"
"""The stream that the engine ends its batches with: what arrives there shows how far the daemon has come."""
CLIENTS = 1000
BATCHES = 200
"""A client of ten streams gets about 250 KB of as many batches, too little to be called slow however slow it is."""
TEST_SECONDS = 3 * DEADLINE
WINDOW = 4
"""Batches that the engine may be ahead of the daemon, or of the readers of what is wide."""
VISITORS, ROUNDS = 200, 5
WIDE, WIDE_SIZE, WIDE_BATCHES = "trade@WIDE", 200_000, 80
"""A stream that brings its readers 16 MB, more than the kernel's buffers and the daemon's together hold for one.

Its frames are long, so that the kernel takes a part of one."""


class Tape:
    """All that the engine has published, by the text in which it arrives."""

    def __init__(self) -> None:
        self.published: dict[str, int] = defaultdict(int)
        self.bare: dict[bytes, tuple[str, int]] = {}
        self.enveloped: dict[bytes, tuple[str, int]] = {}

    def record(self, stream: str) -> bytes:
        """The next publication of `stream`; they are numbered from 0."""
        number = self.published[stream]
        self.published[stream] += 1
        more = {"padding": "x" * WIDE_SIZE} if stream == WIDE else {}
        data = trade(stream.partition("@")[2], number, **more)
        self.bare[data] = self.enveloped[b'{"stream":"%b","data":%b}' % (stream.encode(), data)] = stream, number
        return data

    def envelope(self, stream: str, number: int) -> bytes:
        """The text in which a publication arrives in an envelope."""
        return next(text for text, known in self.enveloped.items() if known == (stream, number))


class Watcher(LeanClient):
    """A client that notes the numbers of the publications that it gets, and nothing that it has not asked for."""

    def __init__(self, tape: Tape, path: str = "/") -> None:
        super().__init__()
        self.path = path
        self.numbers: dict[str, list[int]] = {}
        self.due: dict[str, int] = {}  # the first publication that must not be missed
        self._tape = tape
        self._known = tape.bare if path.startswith("/ws") else tape.enveloped
        self._ids = count(1)
        self._asked: dict[int, Deferred[None]] = {}

    def text_received(self, text: bytes) -> None:
        known = self._known.get(text)
        if known is None:
            self._replied(json.loads(text))
            return
        stream, number = known
        self.numbers[stream].append(number)

    def _replied(self, reply: Any) -> None:
        if self.path == "/":
            reply = reply["data"]
        assert "result" in reply, reply
        self._asked.pop(reply["id"]).callback(None)

    def gone(self) -> None:
        asked, self._asked = self._asked, {}
        for waiting in asked.values():
            waiting.errback(self.fault or Failure(ConnectionError(f"lost, close code {self.close_code}")))

    def ask(self, method: str, *params: str) -> Deferred[None]:
        """Send a request; fires in the moment of its reply."""
        number = next(self._ids)
        done = self._asked[number] = Deferred()
        self.send({"method": method, "params": params, "id": number})
        return done

    async def subscribe(self, streams: Iterable[str]) -> None:
        """Publications of `streams` are accepted from the moment of the reply on."""
        await self.ask("SUBSCRIBE", *streams).addCallback(self.joined, streams)

    async def unsubscribe(self, streams: Iterable[str]) -> dict[str, list[int]]:
        """Publications of `streams` are accepted until the moment of the reply; the numbers of those that came."""
        return await self.ask("UNSUBSCRIBE", *streams).addCallback(self._left, streams)

    def joined(self, _: None, streams: Iterable[str]) -> None:
        for stream in streams:
            assert stream not in self.numbers
            self.numbers[stream] = []
            self.due[stream] = self._tape.published[stream]

    def _left(self, _: None, streams: Iterable[str]) -> dict[str, list[int]]:
        return {stream: self.numbers.pop(stream) for stream in streams}


class Beacon(Watcher):
    """Sees how many batches have come."""

    def __init__(self, tape: Tape) -> None:
        super().__init__(tape)
        self.batches = 0
        self._waiting: dict[Deferred[None], int] = {}

    def text_received(self, text: bytes) -> None:
        super().text_received(text)
        if BEACON in self.numbers:
            self.batches = len(self.numbers[BEACON])
        for done in [done for done, least in self._waiting.items() if self.batches >= least]:
            del self._waiting[done]
            done.callback(None)

    def until(self, batches: int) -> Deferred[None]:
        """Wait until so many have come."""
        done: Deferred[None] = Deferred()
        if self.batches >= batches:
            done.callback(None)
        else:
            self._waiting[done] = batches
        return done


class Stage:
    """The real parts, an engine that publishes trades of all streams, and the watchers."""

    def __init__(self, harness: Harness, daemon: DaemonProcess, engine: Redis) -> None:
        self.daemon = daemon
        self.tape = Tape()
        self.clients = LeanClients[Watcher](harness, daemon)
        self.beacon = Beacon(self.tape)
        self._engine = engine

    @classmethod
    async def build(cls, harness: Harness, *options: str) -> Stage:
        redis = await harness.redis()
        # Who does not read answers no ping either, and a thousand clients are busy for longer than one may be silent.
        daemon = await harness.daemon("--ping-interval", "0", *options, redis=redis)
        stage = cls(harness, daemon, await redis.connect())
        await stage.clients.open(stage.beacon)
        await stage.beacon.subscribe([BEACON])
        return stage

    async def watcher(self, streams: list[str], dialect: int, in_path: bool) -> Watcher:
        """A watcher of `streams`, which its path names if `in_path` and where that is possible."""
        root, behind = (("/", ""), ("/stream", "?streams="), ("/ws", "/"))[dialect]
        in_path = in_path and behind != ""
        watcher = Watcher(self.tape, root + behind + "/".join(streams) if in_path else root)
        await self.clients.open(watcher, watcher.path)
        if in_path:
            await watcher.ask("PING").addCallback(watcher.joined, streams)  # answered behind what the path asks for
        else:
            await watcher.subscribe(streams)
        return watcher

    async def crowd(self, streams: list[str], seed: int) -> list[Watcher]:
        """Watchers of one to ten of `streams` each, in all dialects."""
        rng = random.Random(seed)
        wishes = [rng.sample(streams, rng.randint(1, 10)) for _ in range(CLIENTS)]
        return await all_of(self.watcher(wish, index % 3, index % 2 == 0) for index, wish in enumerate(wishes))

    async def publish(self, streams: Iterable[str]) -> None:
        """One trade of each stream, then the beacon; done when the server has taken them all."""
        await gatherResults([self._engine.publish(stream, self.tape.record(stream)) for stream in (*streams, BEACON)])

    async def keep_up(self, window: int) -> None:
        """Wait until the daemon has sent all but the last `window` batches."""
        await self.beacon.until(self.tape.published[BEACON] - window)

    async def settle(self, watchers: Iterable[Watcher]) -> None:
        """Wait until whatever the daemon will ever send of what was published has arrived."""
        await self.keep_up(0)
        await gatherResults([watcher.ask("PING") for watcher in watchers])

    def check_complete(self, watchers: Iterable[Watcher]) -> int:
        """Each has got everything of its streams, in order, once. Returns how many publications that were."""
        received = 0
        for watcher in watchers:
            for stream, numbers in watcher.numbers.items():
                assert numbers == list(range(self.tape.published[stream])), f"{stream} at {watcher.path}"
                received += len(numbers)
        return received


@pytest_twisted.ensureDeferred
@within(TEST_SECONDS)
async def test_a_thousand_clients_get_all_of_their_streams_in_order(harness: Harness) -> None:
    """However fast the engine publishes, nothing is lost, repeated, out of order or other than its bytes."""
    stage = await Stage.build(harness)
    crowd = await stage.crowd(STREAMS, seed=1)
    rng = random.Random(2)
    for _ in range(BATCHES):
        await stage.publish(rng.sample(STREAMS, len(STREAMS)))
    await stage.settle(crowd)
    wishes = sum(len(watcher.numbers) for watcher in crowd)
    assert stage.check_complete(crowd) == BATCHES * wishes


async def come_and_go(stage: Stage, seed: int) -> int:
    """One visitor: it asks for streams, drops some, and leaves. Returns how many publications it has got."""
    rng = random.Random(seed)
    visitor = Watcher(stage.tape, rng.choice(("/", "/stream", "/ws")))
    await stage.clients.open(visitor, visitor.path)
    seen: dict[str, int] = defaultdict(lambda: -1)
    received = 0
    for _ in range(ROUNDS):
        wishes = [*rng.sample(STREAMS, rng.randint(0, 2)), *rng.sample(RARE, rng.randint(1, 3))]
        await visitor.subscribe([stream for stream in wishes if stream not in visitor.numbers])
        await stage.beacon.until(stage.beacon.batches + rng.randint(0, 4))
        sent = stage.beacon.batches
        left = await visitor.unsubscribe(rng.sample(list(visitor.numbers), rng.randint(1, len(visitor.numbers))))
        for stream, numbers in left.items():
            # Each batch has one publication of each stream: the one with the batch's number.
            assert set(range(visitor.due[stream], sent)) <= set(numbers), f"{stream} was missed in part"
            if numbers:
                assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), f"{stream} with a hole"
                assert seen[stream] < numbers[0] <= visitor.due[stream]
                seen[stream] = numbers[-1]
            received += len(numbers)
    if rng.random() < 0.5:
        visitor.abort()
    else:
        visitor.close()
    await visitor.lost
    return received


@pytest_twisted.ensureDeferred
@within(TEST_SECONDS)
async def test_coming_and_going_under_load_has_exact_borders(harness: Harness) -> None:
    """Nothing before the reply to a SUBSCRIBE or after that to an UNSUBSCRIBE, no hole between; no harm to others."""
    stage = await Stage.build(harness, "--request-rate", "100000", "--linger", "0")
    crowd = await stage.crowd(STREAMS, seed=3)
    visits = all_of((come_and_go(stage, seed) for seed in range(VISITORS)), at_once=VISITORS)
    done = Deferred.fromCoroutine(visits)
    while not done.called:
        await stage.publish(STREAMS + RARE)
        await stage.keep_up(WINDOW)
    assert sum(await done) > VISITORS
    await stage.settle(crowd)
    assert stage.check_complete(crowd) > 0


@pytest_twisted.ensureDeferred
@within(TEST_SECONDS)
async def test_clients_that_do_not_read_are_ended_and_nobody_else_notices(harness: Harness) -> None:
    """Past the limit of what waits for a client it is closed with 4008, or cut when it does not read that either."""
    stage = await Stage.build(harness)
    crowd = await stage.crowd(STREAMS, seed=4)
    readers = [await stage.watcher([WIDE, STREAMS[0]], dialect, True) for dialect in (0, 1, 2)]
    late, deaf = [await stage.watcher([WIDE], dialect, False) for dialect in (0, 2)]
    for slow in (late, deaf):
        slow.transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        slow.transport.pauseProducing()
    rng = random.Random(5)
    for batch in range(WIDE_BATCHES):
        await stage.publish([WIDE, *rng.sample(STREAMS, 20)])
        if batch % WINDOW == 0:
            await stage.settle(readers)
    await stage.settle([*crowd, *readers])
    stage.check_complete([*crowd, *readers])
    late.transport.resumeProducing()
    await late.lost
    received = len(late.numbers[WIDE])
    assert late.numbers[WIDE] == list(range(received))
    assert received < WIDE_BATCHES  # how many of the first that is depends on the buffers of the kernel
    if late.close_code is None:
        assert text_frame(stage.tape.envelope(WIDE, received)).startswith(late.rest)
    else:
        assert (late.close_code, late.rest) == (4008, b"")
    first = await stage.daemon.expect("disconnected .* closed by the server with 4008 slow consumer")
    await stage.daemon.expect(first.re, since=1 + stage.daemon.lines.index(first.string))
