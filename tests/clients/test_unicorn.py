"""unicorn-binance-websocket-api, with UnicornFy, for which a field that is missing is the end of the stream.

UnicornFy 0.17 still wants the order ids `a` and `b` in each trade, which Binance itself left out in 2024. An engine
that writes them serves it; otherwise a user asks for plain dicts.
"""

from __future__ import annotations

from typing import Any

import pytest_twisted

from tests.clients.bots import Bot, needs
from tests.clients.scenes import Platform, Scene
from tests.clients.shapes import check_trade
from tests.system.harness import Harness

PACKAGE = "unicorn-binance-websocket-api"
pytestmark = needs(PACKAGE)

MARKET = "TATA_INR"
CHANNELS = (
    *("aggTrade", "kline_1m", "miniTicker", "ticker", "bookTicker"),
    *("depth", "depth@100ms", "depth5", "depth20@100ms"),
)


async def run(harness: Harness, scene: Scene, output: str, *streams: str, url: tuple[list[str], list[str]]) -> Any:
    """The first message of each of these streams, from a manager that was asked for these channels and markets."""
    await scene.begin(harness)
    channels, markets = url
    options = {"channels": channels, "markets": markets, "awaited": streams, "output": output}
    bot = Bot(harness, PACKAGE, "unicorn", scene.daemon.port, **options)
    await scene.goes_on(bot.ends())
    return [await bot.told(stream) for stream in streams]


@pytest_twisted.ensureDeferred
async def test_what_unicorn_fy_makes_of_each_stream(harness: Harness, scene: Scene) -> None:
    """It looks for every field that there is at Binance, and all of them are there."""
    streams = [f"tata_inr@{channel}" for channel in CHANNELS]
    told = await run(harness, scene, "UnicornFy", *streams, url=([*CHANNELS], [MARKET]))
    got = dict(zip(CHANNELS, told, strict=True))
    for message in told:
        assert message["unicorn_fied"][0] == "binance.com"
    for channel in ("aggTrade", "kline_1m", "bookTicker", "depth", "depth@100ms", "depth5", "depth20@100ms"):
        assert got[channel]["symbol"] == MARKET
    for channel in ("ticker", "miniTicker"):
        assert [each["symbol"] for each in got[channel]["data"]] == [MARKET]
    assert got["depth5"]["event_type"] == "depth"
    assert 1 <= len(got["depth5"]["bids"]) <= 5
    assert got["depth"]["first_update_id_in_event"] <= got["depth"]["final_update_id_in_event"]


@pytest_twisted.ensureDeferred
async def test_all_mini_tickers(harness: Harness, scene: Scene) -> None:
    """A stream without a market, named in the path: arrays, bare."""
    (message,) = await run(harness, scene, "UnicornFy", "!miniTicker@arr", url=(["arr"], ["!miniTicker"]))
    assert {each["symbol"][-4:] for each in message["data"]} == {"_INR"}


@pytest_twisted.ensureDeferred
async def test_trades_as_plain_dicts(harness: Harness, scene: Scene) -> None:
    """As they come, without order ids."""
    (message,) = await run(harness, scene, "dict", "tata_inr@trade", url=(["trade"], [MARKET]))
    check_trade(message["data"], MARKET, scene.trades)


@pytest_twisted.ensureDeferred
async def test_trades_with_order_ids(harness: Harness) -> None:
    """An engine that writes the fields that UnicornFy cannot do without has them passed on."""
    scene = Platform(b=88, a=50)
    (message,) = await run(harness, scene, "UnicornFy", "tata_inr@trade", url=(["trade"], [MARKET]))
    assert (message["buyer_order_id"], message["seller_order_id"]) == (88, 50)
    assert message["price"] == scene.engine.trades[message["trade_id"]]["p"]
