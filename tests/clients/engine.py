"""One market of an engine: what it publishes, in either of two ways, and what it knows of its own book.

1. `PLATFORM`: only what docs/protocol.md#what-the-engine-publishes requires, and the book beside the stream.
2. `BINANCE`: everything that Binance's own messages have, with `U` and `u` that leave nothing out; no snapshots.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from decimal import Decimal
from enum import Enum
from random import Random
from typing import Any

from tests.system.harness import Redis

__all__ = ["LAST", "Engine", "Writes", "levels"]

LAST = "0.01"
"""The price of the bid that no other update has: who sees it has got everything."""

Side = dict[Decimal, Decimal]


class Writes(Enum):
    PLATFORM = "platform"
    BINANCE = "binance"


def levels(told: Iterable[tuple[str | float, str | float]]) -> Side:
    """One side of a book that a client told, in any spelling."""
    return {Decimal(str(price)): Decimal(str(quantity)) for price, quantity in told}


class Engine:
    """A market around a price that wanders, up to `REACH` levels a side."""

    REACH = 40

    def __init__(self, redis: Redis, rng: Random, writes: Writes, market: str = "TATA_INR") -> None:
        self.market = market
        self.bids: Side = {}
        self.asks: Side = {}
        self.trades: dict[int, dict[str, Any]] = {}
        self.tops: set[tuple[Decimal, Decimal, Decimal, Decimal]] = set()
        self._redis = redis
        self._rng = rng
        self._writes = writes
        self._middle = 100_000
        self._last = 1_000

    async def begin(self) -> None:
        """Begin with some levels on each side, which no update has."""
        for at in range(1, self.REACH, 2):
            self.bids[self._price(-at)] = self.asks[self._price(at)] = Decimal(at)
        await self.keep()

    async def keep(self) -> None:
        """Lay the book beside the stream."""
        ids = {} if self._writes is Writes.PLATFORM else {"u": self._last}
        state = self._depth(self.bids.items(), self.asks.items()) | ids
        await self._redis.command("SET", f"snapshot:depth@{self.market}", json.dumps(state))

    async def update(self, count: int, snapshot_each: int = 0) -> None:
        """Publish so many depth messages: levels that come, change and go, and now and then the whole book."""
        await self._redis.publish(f"depth@{self.market}", *[self._next(snapshot_each) for _ in range(count)])

    async def whole(self) -> None:
        """Publish the whole book."""
        await self._redis.publish(f"depth@{self.market}", self._snapshot())

    async def end(self) -> None:
        """Publish the update that nothing comes behind."""
        await self._redis.publish(f"depth@{self.market}", self._change([(Decimal(LAST), Decimal(7))], []))

    async def is_followed(self) -> bool:
        """Whether anybody has the depth stream."""
        return f"depth@{self.market}" in await self._redis.channels()

    async def trade(self, **more: object) -> dict[str, Any]:
        """Publish a trade; what was published."""
        number = len(self.trades) + 1
        fields = {"e": "trade", "t": number, "m": bool(number % 2), "p": str(self._price(0)), "q": str(number)}
        fields |= {"s": self.market, **more}
        if self._writes is Writes.BINANCE:
            fields |= {"E": _now(), "T": _now(), "M": True}
        self.trades[number] = fields
        await self._redis.publish(f"trade@{self.market}", json.dumps(fields).encode())
        return fields

    async def ticker(self) -> None:
        """Publish the ticker: the last trade's price."""
        last = self.trades[len(self.trades)]["p"]
        fields: dict[str, Any] = {"e": "ticker", "c": last, "s": self.market}
        if self._writes is Writes.BINANCE:
            fields |= {"e": "24hrTicker", "E": _now(), **dict.fromkeys("pPwxQbBaAohlvq", "1.00")}
            fields |= {"O": _now() - 86_400_000, "C": _now(), "F": 1, "L": 2, "n": 2}
        await self._redis.publish(f"ticker@{self.market}", json.dumps(fields).encode())

    def _next(self, snapshot_each: int) -> bytes:
        rng = self._rng
        self._middle += rng.randrange(-1, 2)
        if snapshot_each and not rng.randrange(snapshot_each):
            far = self.REACH // 2
            self.bids = {price: quantity for price, quantity in self.bids.items() if price > self._price(-far)}
            return self._snapshot()
        bids, asks = ([self._level(sign) for _ in range(rng.randrange(1, 4))] for sign in (-1, 1))
        gone = [(price, Decimal(0)) for price in self.bids if price >= self._price(0)]
        gone_asks = [(price, Decimal(0)) for price in self.asks if price <= self._price(0)]
        return self._change(gone + bids, gone_asks + asks)

    def _snapshot(self) -> bytes:
        return json.dumps({**self._depth(self.bids.items(), self.asks.items()), "snapshot": True}).encode()

    def _level(self, sign: int) -> tuple[Decimal, Decimal]:
        return self._price(sign * self._rng.randrange(1, self.REACH)), Decimal(self._rng.choice((0, 0, 1, 5, 12)))

    def _price(self, steps: int) -> Decimal:
        return Decimal(self._middle + 5 * steps) / 100

    def _change(self, bids: list[tuple[Decimal, Decimal]], asks: list[tuple[Decimal, Decimal]]) -> bytes:
        for side, changes in ((self.bids, bids), (self.asks, asks)):
            for price, quantity in changes:
                side.pop(price, None)
                if quantity:
                    side[price] = quantity
        if self.bids and self.asks:
            bid, ask = max(self.bids), min(self.asks)
            self.tops.add((bid, self.bids[bid], ask, self.asks[ask]))
        fields = self._depth(bids, asks)
        if self._writes is Writes.BINANCE:
            fields |= {"e": "depthUpdate", "E": _now(), "s": self.market, "U": self._last + 1, "u": self._last + 2}
            self._last += 2
        return json.dumps(fields).encode()

    def _depth(
        self, bids: Iterable[tuple[Decimal, Decimal]], asks: Iterable[tuple[Decimal, Decimal]]
    ) -> dict[str, Any]:
        return {"e": "depth", "b": self._spelled(bids), "a": self._spelled(asks)}

    def _spelled(self, side: Iterable[tuple[Decimal, Decimal]]) -> list[tuple[str, str]]:
        places = 8 if self._writes is Writes.BINANCE else 0
        return [(f"{price:.2f}", f"{quantity:.{places}f}") for price, quantity in side]


def _now() -> int:
    return int(time.time() * 1000)
