"""What clients are shown: the demo, or an engine of a platform that writes no more than it must."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Protocol

from twisted.internet.defer import ensureDeferred

from tests.clients.engine import Engine, Writes
from tests.clients.shapes import Trades
from tests.system.harness import DaemonProcess, Harness

__all__ = ["AS_IT_IS", "Demo", "Platform", "Scene", "declared", "meanwhile"]


AS_IT_IS = ("--payloads", "binance")
"""What the daemon does without an option, and other tests have been told otherwise of."""
_MARKETS = """
[markets.TATA_INR]
price_step = "0.05"
quantity_step = "1"
alias = "TATAINR"
"""


def declared(harness: Harness) -> tuple[str, str]:
    """The option that names a file in which the market is declared, as for whoever asks for it before it has traded."""
    path = harness.directory / "marketfeed.toml"
    path.write_text(_MARKETS, encoding="utf-8")
    return "--config", str(path)


async def meanwhile(harness: Harness, step: Callable[[], Awaitable[None]], watched: Awaitable[None]) -> None:
    """Take this step again and again, until `watched` has come to its end, which is this one's."""

    async def watch() -> None:
        await watched

    done = ensureDeferred(watch())
    while not done.called:
        await step()
        await harness.pause(0.02)
    await done


class Scene(Protocol):
    """A daemon that has the market TATA_INR, and an engine behind it."""

    daemon: DaemonProcess
    trades: Trades
    """What the engine has published, where that is known."""

    async def begin(self, harness: Harness) -> None:
        """Start all of it."""

    async def goes_on(self, watched: Awaitable[None]) -> None:
        """Trade until this has come to its end, which is its own."""


class Demo:
    """`twistd marketfeed --demo`."""

    trades: Trades = None

    async def begin(self, harness: Harness) -> None:
        self.daemon = await harness.daemon("--demo", *AS_IT_IS)

    async def goes_on(self, watched: Awaitable[None]) -> None:
        await watched


class Platform:
    """An engine that publishes trades, depth messages and tickers with nothing in them but what is required.

    `more`: further fields of its trades.
    """

    def __init__(self, **more: object) -> None:
        self._more = more

    async def begin(self, harness: Harness) -> None:
        print(f"seed {(seed := random.randrange(1 << 30))}")
        redis = await harness.redis()
        self.engine = Engine(await redis.connect(), random.Random(seed), Writes.PLATFORM)
        self.trades: Trades = self.engine.trades
        await self.engine.begin()
        self.daemon = await harness.daemon("--candles", *AS_IT_IS, *declared(harness), redis=redis)
        self._harness = harness

    async def goes_on(self, watched: Awaitable[None]) -> None:
        async def step() -> None:
            await self.engine.trade(**self._more)
            if await self.engine.is_followed():
                await self.engine.update(2, snapshot_each=20)
            else:
                await self.engine.keep()  # which has to be the book as it is whenever somebody begins with it
            await self.engine.ticker()

        await meanwhile(self._harness, step, watched)
