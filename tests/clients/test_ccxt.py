"""ccxt pro: its markets by REST, all that it watches, each on a connection of its own, and what it fetches.

`CLIENT_BOOKS=updates` makes it longer; `make faults` does.
"""

from __future__ import annotations

import os
import random

import pytest
import pytest_twisted

from tests.clients.bots import Bot, needs
from tests.clients.engine import LAST, Engine, Writes, levels
from tests.clients.scenes import declared
from tests.system.harness import Harness

pytestmark = needs("ccxt")

SYMBOL = "TATA/INR"
_UPDATES = int(os.environ.get("CLIENT_BOOKS", "4000"))
_BATCH = 100


@pytest.mark.parametrize("writes", [Writes.BINANCE], ids=lambda writes: writes.value)
@pytest_twisted.ensureDeferred
async def test_its_book_is_the_engines(harness: Harness, writes: Writes) -> None:
    """After many updates; one whose `U` is not the last `u` + 1 would be an error to whoever watches."""
    print(f"seed {(seed := random.randrange(1 << 30))}")
    redis = await harness.redis("--client-output-buffer-limit", "pubsub 0 0 0")
    engine = Engine(await redis.connect(), random.Random(seed), writes)
    await engine.begin()
    daemon = await harness.daemon(*declared(harness), redis=redis)
    bot = Bot(harness, "ccxt", "ccxt_pro", daemon.port, symbol=SYMBOL, last=float(LAST))
    await bot.told("begun")
    for _ in range(0, _UPDATES, _BATCH):
        await engine.update(_BATCH, snapshot_each=1000 if writes is Writes.PLATFORM else 0)
    await engine.end()
    book = await bot.told("book")
    assert levels(book["bids"]) == engine.bids
    assert levels(book["asks"]) == engine.asks
    await bot.ends()
