"""python-binance: its sockets, its requests, and the strictest reader of depth messages that there is.

That is its DepthCacheManager. It takes the book from REST, applies each update whose `U` is the last `u` + 1, asks REST
again where one is missing, knows a price by its text, and removes a level only for the text `0.00000000`.

`CLIENT_BOOKS=updates` makes it longer; `make faults` does.
"""

from __future__ import annotations

import os
import random

import pytest
import pytest_twisted

from tests.clients.bots import Bot, needs
from tests.clients.engine import LAST, Engine, Writes, levels
from tests.clients.scenes import AS_IT_IS, Scene, meanwhile
from tests.clients.shapes import (
    check_agg_trade,
    check_kline,
    check_mini_ticker,
    check_ticker,
    check_top,
    check_trade,
)
from tests.system.forwarder import Forwarder
from tests.system.harness import DaemonProcess, Harness, RedisServer

PACKAGE = "python-binance"
pytestmark = needs(PACKAGE)

MARKET = "TATA_INR"
_UPDATES = int(os.environ.get("CLIENT_BOOKS", "4000"))
_BATCH = 100


@pytest_twisted.ensureDeferred
async def test_its_sockets_and_its_requests(harness: Harness, scene: Scene) -> None:
    """A connection for each stream, named in its path, and each request that needs no key."""
    await scene.begin(harness)
    bot = Bot(harness, PACKAGE, "socket_manager", scene.daemon.port, symbol=MARKET)
    await scene.goes_on(bot.ends())
    check_trade(await bot.told("trade"), MARKET, scene.trades)
    check_agg_trade(await bot.told("aggTrade"), MARKET, scene.trades)
    check_kline(await bot.told("kline"), MARKET, scene.trades)
    check_mini_ticker(await bot.told("miniTicker"), MARKET)
    assert {each["s"][-4:] for each in await bot.told("allMiniTickers")} == {"_INR"}
    check_ticker(await bot.told("ticker"), MARKET, scene.trades)
    check_top(await bot.told("bookTicker"), MARKET)
    for word in ("depth", "depthTenTimes"):
        assert set(await bot.told(word)) >= set("eEsUuba")
    for word, count in (("depth5", 5), ("depth20", 20)):
        part = await bot.told(word)
        assert 1 <= len(part["bids"]) <= count
        assert 1 <= len(part["asks"]) <= count
    check_top((await bot.told("multiplex"))["data"], MARKET)
    assert (await bot.told("symbolInfo"))["symbol"] == MARKET
    ids = [each["a"] for each in await bot.told("aggTradesFrom")]
    assert ids == list(range(ids[0], ids[-1] + 1))
    assert (await bot.told("historicalKlines"))[-1][:2] == (await bot.told("klines"))[-1][:2]
    assert [each["symbol"] for each in await bot.told("tops")] == [MARKET]


@pytest.mark.parametrize("writes", Writes, ids=lambda writes: writes.value)
@pytest.mark.parametrize("interval", [None, 100])
@pytest_twisted.ensureDeferred
async def test_its_book_is_the_engines(harness: Harness, writes: Writes, interval: int | None) -> None:
    """After many updates with levels that come and go, and a platform's snapshots; its queue need not be long."""
    redis, engine = await begin(harness, writes)
    daemon = await harness.daemon(*AS_IT_IS, redis=redis)
    queue = {} if interval else {"max_queue_size": 2 * _UPDATES}  # it ends if more than 100 wait, as they do here
    bot = await depth_cache(harness, daemon.port, interval, **queue)
    for _ in range(0, _UPDATES, _BATCH):
        await engine.update(_BATCH, snapshot_each=1000 if writes is Writes.PLATFORM else 0)
    await check_book(harness, engine, bot)


@pytest.mark.parametrize("writes", Writes, ids=lambda writes: writes.value)
@pytest_twisted.ensureDeferred
async def test_it_begins_anew_where_something_is_missing(harness: Harness, writes: Writes) -> None:
    """The daemon's link is cut while the engine goes on: `U` jumps, and REST has the book as it is by then.

    An engine with ids has laid it beside the stream; one without publishes it.
    """
    redis, engine = await begin(harness, writes)
    door = Forwarder(harness, redis.path)
    daemon = await harness.daemon(*AS_IT_IS, "--redis-url", f"redis://127.0.0.1:{door.port}")
    bot = await depth_cache(harness, daemon.port)
    witness = await harness.client(daemon, f"/ws/depth@{MARKET}")
    for _ in range(3):
        await engine.update(_BATCH)
        await witness.next()  # some of them, at least, have come
        since = len(daemon.lines)
        door.shut()
        await daemon.expect(r"redis: .*trying again", since)
        await engine.update(_BATCH)
        await engine.keep()
        door.open()
        await daemon.expect(r"redis: connected", since)
        await harness.eventually(engine.is_followed)
        if writes is Writes.PLATFORM:
            await engine.whole()
    await engine.update(_BATCH)
    await check_book(harness, engine, bot)


@pytest_twisted.ensureDeferred
async def test_it_survives_a_restart_of_the_daemon(harness: Harness) -> None:
    """It stumbles at serverShutdown, as at Binance; asked again, it connects anew, and takes the book from there."""
    redis, engine = await begin(harness, Writes.BINANCE)
    daemon, path = await daemon_on_a_socket(harness, redis, "one")
    door = Forwarder(harness, path)
    bot = await depth_cache(harness, door.port, stumbles=True)
    await engine.update(_BATCH)
    await engine.keep()
    _, door.path = await daemon_on_a_socket(harness, redis, "another")
    assert await daemon.stop("TERM") == 0
    await harness.eventually(engine.is_followed)
    await engine.update(_BATCH)
    await bot.told("stumbled")
    await check_book(harness, engine, bot)


async def begin(harness: Harness, writes: Writes) -> tuple[RedisServer, Engine]:
    """A server, and an engine that has laid its book there."""
    print(f"seed {(seed := random.randrange(1 << 30))}")
    redis = await harness.redis("--client-output-buffer-limit", "pubsub 0 0 0")  # the engine waits for nobody
    engine = Engine(await redis.connect(), random.Random(seed), writes)
    await engine.begin()
    return redis, engine


async def depth_cache(
    harness: Harness, port: int, interval: int | None = 100, *, stumbles: bool = False, **sockets: object
) -> Bot:
    """The manager of a book that has been taken from REST, and is followed. `sockets`: for the socket manager."""
    options = {"symbol": MARKET, "last": LAST, "stumbles": stumbles}
    bot = Bot(harness, PACKAGE, "depth_cache", port, book={"ws_interval": interval}, sockets=sockets, **options)
    await bot.told("begun")
    return bot


async def check_book(harness: Harness, engine: Engine, bot: Bot) -> None:
    """With the engine's last update in it, it is the engine's book, and the manager ends well."""
    await engine.end()
    book = await bot.told("book")
    assert levels(book["bids"]) == engine.bids
    assert levels(book["asks"]) == engine.asks
    await meanwhile(harness, lambda: engine.update(1), bot.ends())  # the next message wakes it to its end


async def daemon_on_a_socket(harness: Harness, redis: RedisServer, name: str) -> tuple[DaemonProcess, str]:
    path = str(harness.directory / name)
    daemon = await harness.daemon(*AS_IT_IS, "--port", f"unix:{path}", redis=redis, wait=False)
    await daemon.expect(r"redis: connected")
    return daemon, path
