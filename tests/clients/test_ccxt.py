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
from tests.clients.scenes import AS_IT_IS, Scene, declared
from tests.clients.shapes import check_ticker, check_top, check_trade
from tests.system.harness import Harness

pytestmark = needs("ccxt")

MARKET, SYMBOL = "TATA_INR", "TATA/INR"
_UPDATES = int(os.environ.get("CLIENT_BOOKS", "4000"))
_BATCH = 100


@pytest_twisted.ensureDeferred
async def test_all_that_it_watches_and_fetches(harness: Harness, scene: Scene) -> None:
    """With its own words for them: what it calls TATA/INR it has found in exchangeInfo."""
    await scene.begin(harness)
    bot = Bot(harness, "ccxt", "ccxt_pro", scene.daemon.port, symbol=SYMBOL)
    await scene.goes_on(bot.ends())
    market = (await bot.told("markets"))[SYMBOL]
    assert (market["id"], market["type"], market["active"]) == (MARKET, "spot", True)
    trade = (await bot.told("trades"))[-1]
    check_trade(trade["info"], MARKET, scene.trades)
    assert (trade["symbol"], trade["side"]) == (SYMBOL, "sell" if trade["info"]["m"] else "buy")
    assert trade["timestamp"] == trade["info"]["T"]
    book = await bot.told("book")
    assert book["bids"][0][0] < book["asks"][0][0]
    for word in ("ticker", "wholeTicker", "fetchedTicker"):
        ticker = await bot.told(word)
        assert ticker["symbol"] == SYMBOL
        assert ticker["low"] <= ticker["last"] <= ticker["high"]
    check_ticker((await bot.told("wholeTicker"))["info"], MARKET, scene.trades)
    assert SYMBOL in await bot.told("tickers")
    check_top((await bot.told("tops"))[SYMBOL]["info"], MARKET)
    (candle, *_) = await bot.told("candles")
    assert candle[3] <= candle[1] <= candle[2]
    candles = await bot.told("fetchedCandles")
    assert candles[-1][0] >= candle[0]
    assert (await bot.told("candlesSince"))[0] == candles[0]
    for word in ("fetchedTrades", "recentTrades"):
        for fetched in await bot.told(word):
            assert fetched["symbol"] == SYMBOL
            if scene.trades is not None:
                assert fetched["price"] == float(scene.trades[int(fetched["id"])]["p"])
    assert list(await bot.told("fetchedTickers")) == list(await bot.told("fetchedTops")) == [SYMBOL]


@pytest.mark.parametrize("writes", Writes, ids=lambda writes: writes.value)
@pytest_twisted.ensureDeferred
async def test_its_book_is_the_engines(harness: Harness, writes: Writes) -> None:
    """After many updates; one whose `U` is not the last `u` + 1 would be an error to whoever watches."""
    print(f"seed {(seed := random.randrange(1 << 30))}")
    redis = await harness.redis("--client-output-buffer-limit", "pubsub 0 0 0")
    engine = Engine(await redis.connect(), random.Random(seed), writes)
    await engine.begin()
    daemon = await harness.daemon(*AS_IT_IS, *declared(harness), redis=redis)
    bot = Bot(harness, "ccxt", "ccxt_pro", daemon.port, symbol=SYMBOL, last=float(LAST))
    await bot.told("begun")
    for _ in range(0, _UPDATES, _BATCH):
        await engine.update(_BATCH, snapshot_each=1000 if writes is Writes.PLATFORM else 0)
    await engine.end()
    book = await bot.told("book")
    assert levels(book["bids"]) == engine.bids
    assert levels(book["asks"]) == engine.asks
    await bot.ends()
