"""binance-connector, which Binance itself has written: its streams on one connection, and its requests."""

from __future__ import annotations

from decimal import Decimal

import pytest
import pytest_twisted

from tests.clients.bots import Bot, needs
from tests.clients.scenes import Demo, Platform, Scene
from tests.clients.shapes import (
    check_agg_trade,
    check_kline,
    check_mini_ticker,
    check_ticker,
    check_top,
    check_trade,
)
from tests.system.harness import Harness

pytestmark = needs("binance-connector")

MARKET = "TATA_INR"
STREAMS = {
    "trade": "trade",
    "aggTrade": "aggTrade",
    "kline": "kline_1m",
    "24hrMiniTicker": "miniTicker",
    "24hrTicker": "ticker",
    "bookTicker": "bookTicker",
    "depthUpdate": "depth@100ms",
    "depth5": "depth5@100ms",
}
"""What a message calls itself, and the stream behind the market."""


@pytest.mark.parametrize(
    ("scene", "symbol"),
    [(Demo(), MARKET), (Platform(), MARKET), (Platform(), "TATAINR")],
    ids=["demo", "platform", "alias"],
)
@pytest_twisted.ensureDeferred
async def test_its_streams_and_its_requests(harness: Harness, scene: Scene, symbol: str) -> None:
    """Each stream that it knows, in envelopes and bare, and each request that needs no key.

    An alias is accepted, and given back in the name of a stream as this client spelled it, and nowhere else.
    """
    await scene.begin(harness)
    awaited = [*STREAMS, "allMiniTickers"]
    bot = Bot(harness, "binance-connector", "connector", scene.daemon.port, symbol=symbol, awaited=awaited)
    await scene.goes_on(bot.ends())
    got = {}
    for word, kind in STREAMS.items():
        message = await bot.told(word)
        assert message["stream"] == f"{symbol.lower()}@{kind}"
        got[word] = message["data"]
    check_trade(got["trade"], MARKET, scene.trades)
    check_agg_trade(got["aggTrade"], MARKET, scene.trades)
    check_kline(got["kline"], MARKET, scene.trades)
    check_mini_ticker(got["24hrMiniTicker"], MARKET)
    check_ticker(got["24hrTicker"], MARKET, scene.trades)
    check_top(got["bookTicker"], MARKET)
    assert set(got["depthUpdate"]) >= set("eEsUuba")
    assert len(got["depth5"]["bids"]) == len(got["depth5"]["asks"]) == 5
    assert (await bot.told("allMiniTickers"))["stream"] == "!miniTicker@arr"
    check_trade(await bot.told("raw/trade"), MARKET, scene.trades)
    await _check_answers(bot, scene)


async def _check_answers(bot: Bot, scene: Scene) -> None:
    assert await bot.told("ping") == {}
    for word in ("exchangeInfo", "exchangeInfoOfOne", "exchangeInfoOfSome"):
        markets = {each["symbol"]: each for each in (await bot.told(word))["symbols"]}
        assert (markets[MARKET]["baseAsset"], markets[MARKET]["quoteAsset"]) == ("TATA", "INR")
    book = await bot.told("orderBook")
    assert Decimal(book["bids"][0][0]) < Decimal(book["asks"][0][0])
    for trade, agg in zip(await bot.told("trades"), await bot.told("aggTrades"), strict=False):
        assert set(trade) == {"id", "price", "qty", "quoteQty", "time", "isBuyerMaker", "isBestMatch"}
        assert Decimal(trade["quoteQty"]) == Decimal(trade["price"]) * Decimal(trade["qty"])
        assert set(agg) == set("apqflTmM")
    klines = await bot.told("klines")
    assert all(len(kline) == 12 and kline[6] == kline[0] + 59_999 for kline in klines)
    assert [kline[0] for kline in klines] == list(range(klines[0][0], klines[-1][0] + 1, 60_000))
    assert (await bot.told("uiKlines"))[-1][0] >= klines[-1][0]
    day = await bot.told("ticker24hr")
    assert len(day) == 21
    assert 1 <= day["count"] <= day["lastId"] - day["firstId"] + 1
    (mini,) = await bot.told("tickers24hr")
    assert set(mini) == set(day) - {
        *("priceChange", "priceChangePercent", "weightedAvgPrice", "prevClosePrice", "lastQty"),
        *("bidPrice", "bidQty", "askPrice", "askQty"),
    }
    assert set(await bot.told("price")) == {"symbol", "price"}
    assert set(await bot.told("top")) == {"symbol", "bidPrice", "bidQty", "askPrice", "askQty"}
