"""Books that clients keep, who come at any moment and read as they like, against the engine's own.

`BOOKS=updates,clients` makes it longer; `make faults` does.
"""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Sequence

import msgspec
import pytest_twisted
from twisted.internet.defer import gatherResults

from tests.system.harness import DEADLINE, Harness, Redis
from tests.system.lean import LeanClient, LeanClients, within

_UPDATES, _CLIENTS = map(int, os.environ.get("BOOKS", "20000,50").split(","))
_MARKETS = 20
_BATCH = 200
_PAD = "x" * 500
_SECONDS = 3 * DEADLINE + _UPDATES / 200

Levels = dict[str, str]


class Depth(msgspec.Struct):
    """A depth message, as far as a book needs it."""

    U: int
    u: int
    a: list[tuple[str, str]]
    b: list[tuple[str, str]]
    snapshot: bool = False


class _Envelope(msgspec.Struct):
    data: Depth


_read = msgspec.json.Decoder(_Envelope).decode


class Market:
    """The engine's side of one book: updates of some levels each, around a price that wanders."""

    def __init__(self, name: str, rng: random.Random) -> None:
        self.stream = f"depth@{name}"
        self._rng = rng
        self._middle = 10_000
        self.last = 0
        self.sides: tuple[Levels, Levels] = ({}, {})

    def next(self) -> bytes:
        """One more publication; the first is a snapshot, and some of the later ones are."""
        rng = self._rng
        self._middle += rng.randrange(-2, 3)
        self.last += 1
        fields: dict[str, object] = {"e": "depthUpdate", "U": self.last, "u": self.last, "x": _PAD}
        if self.last == 1 or not rng.randrange(5000):
            fields["snapshot"] = True
            changes = [[(price, quantity) for price, quantity in side.items()] for side in self.sides]
        else:
            changes = [[self._level(sign) for _ in range(rng.randrange(3))] for sign in (1, -1)]
        for side, levels in zip(self.sides, changes, strict=True):
            apply(side, levels)
        return msgspec.json.encode({**fields, "a": changes[0], "b": changes[1]})

    def _level(self, sign: int) -> tuple[str, str]:
        price = self._middle + sign * self._rng.randrange(1, 60)
        return f"{price / 100:.2f}", str(self._rng.choice((0, self._rng.randrange(1, 100))))


def apply(side: Levels, levels: Sequence[tuple[str, str]]) -> None:
    """Change one side of a book."""
    for price, quantity in levels:
        if quantity == "0":
            side.pop(price, None)
        else:
            side[price] = quantity


class BookClient(LeanClient):
    """A client that keeps a book from the state that it is given, and checks that each update continues it."""

    def __init__(self, market: Market) -> None:
        super().__init__()
        self.market = market
        self.last = 0
        self.sides: tuple[Levels, Levels] = ({}, {})
        self.snapshots = 0
        self.is_over = False

    def gone(self) -> None:
        self.is_over = True

    def begin(self) -> None:
        self.send({"method": "SET_PROPERTY", "params": ["snapshot", True], "id": 1})
        self.send({"method": "SUBSCRIBE", "params": [self.market.stream], "id": 2})

    def text_received(self, text: bytes) -> None:
        if not text.startswith(b'{"stream":"depth@'):
            return
        depth = _read(text).data
        if depth.snapshot:
            self.snapshots += 1
            self.sides = ({}, {})
        elif not self.last:
            return  # there was no state yet
        else:
            assert self.last + 1 >= depth.U, f"{self.last} and then {depth.U}"
        self.last = depth.u
        for side, levels in zip(self.sides, (depth.a, depth.b), strict=True):
            apply(side, levels)


@pytest_twisted.ensureDeferred
@within(_SECONDS)
async def test_every_client_holds_the_engines_book(harness: Harness) -> None:
    """However late it came, and however slowly it read: what waited for it was merged, and nothing is missing."""
    rng = random.Random(seed := random.randrange(1 << 30))
    print(f"seed {seed}")
    redis = await harness.redis("--client-output-buffer-limit", "pubsub 0 0 0")  # the engine waits for nobody
    # Who does not read answers no ping either, on a slow machine for longer than a client may.
    daemon = await harness.daemon("--warm", "depth@*", "--connect-rate", "0", "--ping-interval", "0", redis=redis)
    clients: list[BookClient] = []
    lean: LeanClients[BookClient] = LeanClients(harness, daemon)
    markets = [Market(f"M{number}", rng) for number in range(_MARKETS)]
    engine = await redis.connect()
    keepers = [await _join(lean, market) for market in markets]  # from before the first publication on
    await harness.eventually(lambda: _all_subscribed(engine, markets))
    paused: list[BookClient] = []
    batches = range(0, _UPDATES, _BATCH)
    for _ in batches:
        await gatherResults([engine.publish(market.stream, market.next()) for market in rng.choices(markets, k=_BATCH)])
        if len(clients) < _CLIENTS and rng.random() < 2 * _CLIENTS / len(batches):
            clients.append(await _join(lean, rng.choice(markets)))
        if rng.random() < 10 / len(batches):
            for client in paused:
                client.transport.resumeProducing()
            paused = rng.sample(clients, len(clients) // 3)  # long enough for the kernel's buffers to fill
            for client in paused:
                client.transport.pauseProducing()
    for client in paused:
        client.transport.resumeProducing()
    while len(clients) < _CLIENTS:
        clients.append(await _join(lean, rng.choice(markets)))
    everybody = [*clients, *keepers]
    await harness.eventually(lambda: all(client.is_over or client.last == client.market.last for client in everybody))
    for client in everybody:
        assert not client.is_over, f"closed with {client.close_code}: {client.fault}"
        assert client.snapshots
        assert client.sides == client.market.sides, f"{client.market.stream}, seed {seed}"


async def _join(lean: LeanClients[BookClient], market: Market) -> BookClient:
    client = await lean.connect(BookClient(market))
    client.transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    await lean.upgrade(client, "/stream")
    client.begin()
    return client


async def _all_subscribed(engine: Redis, markets: list[Market]) -> bool:
    return {market.stream for market in markets} <= await engine.channels()
