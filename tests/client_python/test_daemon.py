"""The Python client on asyncio, with a real daemon, a real server, and their faults."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
import pytest_twisted
from marketfeed_client import Client, Error, Expiring, FeedError, Gap, Message, Recovered, Rewound, State, Times
from marketfeed_client.frames import data_frame

from tests.client_python.engine import TRADE, add, url_of
from tests.client_python.loops import Loop
from tests.system.harness import Harness, trade
from tests.tokens import SECRET, signed

QUICK = Times(backoff_base=0.01, backoff_most=0.05)


class Bot:
    """A client that keeps all that it hears of the trades, in order."""

    def __init__(self, url: Any, **options: Any) -> None:
        self.feed = Client(url, **{"times": QUICK, **options})
        self.log: list[Any] = []
        self._changed = asyncio.Event()

    async def start(self) -> None:
        await self.feed.__aenter__()
        self._task = asyncio.ensure_future(self._listen())

    async def _listen(self) -> None:
        async for item in self.feed.messages(TRADE, rewind=100):
            self.log.append(item)
            self._changed.set()

    async def until(self, kind: type, **fields: Any) -> Any:
        """The first item of the log like this."""
        while True:
            for item in self.log:
                if isinstance(item, kind) and all(getattr(item, name) == value for name, value in fields.items()):
                    return item
            self._changed.clear()
            await self._changed.wait()

    async def until_trade(self, number: int) -> None:
        while number not in self.trades():
            self._changed.clear()
            await self._changed.wait()

    def trades(self) -> list[int]:
        return [item.data["t"] for item in self.log if isinstance(item, Message) and item.stream == TRADE]

    async def stop(self) -> None:
        await self.feed.close()
        await self._task


@pytest_twisted.ensureDeferred
async def test_streams_are_resumed_across_a_restart_without_loss_or_duplicates(harness: Harness, loop: Loop) -> None:
    redis = await harness.redis()
    daemons = [await harness.daemon("--source", "streams", redis=redis)]
    engine = await redis.connect()
    bot = Bot(lambda: url_of(daemons[-1]))
    await loop.run(bot.start())
    await loop.run(bot.until(Rewound))
    await add(engine, 1, 2)
    await loop.run(bot.until_trade(2))
    await daemons[0].stop("TERM")
    await add(engine, 3, 4)
    daemons.append(await harness.daemon("--source", "streams", redis=redis))
    await loop.run(bot.until(Recovered, recovered=True))
    await add(engine, 5)
    await loop.run(bot.until_trade(5))
    await loop.run(bot.stop())
    assert bot.trades() == [1, 2, 3, 4, 5]
    assert not [item for item in bot.log if isinstance(item, Gap)]


@pytest_twisted.ensureDeferred
async def test_a_lost_redis_server_is_a_gap_that_is_told(harness: Harness, loop: Loop) -> None:
    redis = await harness.redis()
    daemon = await harness.daemon(redis=redis)
    bot = Bot(url_of(daemon))
    await loop.run(bot.start())
    await loop.run(bot.until(Rewound))
    await harness.eventually(lambda: _is_heard(redis))
    await (await redis.connect()).publish(TRADE, trade(number=1))
    await loop.run(bot.until_trade(1))
    await redis.kill()
    await loop.run(bot.until(Gap, reason="source-down", to=None))
    await redis.start()
    await loop.run(bot.until(Recovered, stream=TRADE, recovered=False))
    await harness.eventually(lambda: _is_heard(redis))
    await (await redis.connect()).publish(TRADE, trade(number=2))
    await loop.run(bot.until_trade(2))
    await loop.run(bot.stop())
    gap = next(item for item in bot.log if isinstance(item, Gap) and item.reason == "not-recovered")
    messages = [item for item in bot.log if isinstance(item, Message)]
    assert bot.log.index(messages[0]) < bot.log.index(gap) < bot.log.index(messages[1])


async def _is_heard(redis: Any) -> bool:
    return TRADE in await (await redis.connect()).channels()


@pytest_twisted.ensureDeferred
async def test_a_killed_daemon_over_pubsub_is_a_gap_and_the_book_is_right_again(harness: Harness, loop: Loop) -> None:
    redis = await harness.redis()
    daemons = [await harness.daemon(redis=redis)]
    engine = await redis.connect()
    book = b'{"e":"depth","u":157,"b":[["1000.00","5"]],"a":[["1001.00","2"]]}'
    await engine.command("SET", "snapshot:depth@TATA_INR", book)
    bot = Bot(lambda: url_of(daemons[-1]))
    await loop.run(bot.start())
    kept = bot.feed.book("TATA_INR")
    await loop.run(bot.until(Rewound))
    await harness.eventually(lambda: kept.state == "live")
    await daemons[0].stop("KILL")
    await harness.eventually(lambda: kept.state == "stale")
    daemons.append(await harness.daemon(redis=redis))
    await harness.eventually(lambda: kept.state == "live")
    assert (kept.bids(), kept.asks()) == ([("1000.00", "5")], [("1001.00", "2")])
    await loop.run(bot.stop())


@pytest_twisted.ensureDeferred
async def test_it_stops_while_there_is_nobody_to_connect_to(harness: Harness, loop: Loop) -> None:
    bot = Bot("ws://127.0.0.1:1/")
    await loop.run(bot.start())
    await loop.run(bot.until(State, state="waiting"))
    await loop.run(bot.stop())
    assert bot.feed.state == "closed"


@pytest.mark.parametrize("path", ["/stream", "/ws", "/ws/trade@TATA_INR"])
@pytest_twisted.ensureDeferred
async def test_a_path_of_another_dialect_is_a_final_error(path: str, harness: Harness, loop: Loop) -> None:
    daemon = await harness.daemon(redis=await harness.redis())

    async def run() -> None:
        async with Client(f"ws://127.0.0.1:{daemon.port}{path}", times=QUICK) as feed:
            await feed.ready()

    with pytest.raises(FeedError, match=r"paths /stream and /ws; this client speaks that of the path /: ") as raised:
        await loop.run(run())
    assert (raised.value.kind, raised.value.final) == ("protocol", True)


@pytest_twisted.ensureDeferred
async def test_history_has_the_last_publications(harness: Harness, loop: Loop) -> None:
    redis = await harness.redis()
    daemon = await harness.daemon("--source", "streams", redis=redis)
    await add(await redis.connect(), 1, 2, 3)
    bot = Bot(url_of(daemon))
    await loop.run(bot.start())
    await loop.run(bot.until(Rewound))
    assert [each.data["t"] for each in await loop.run(bot.feed.history(TRADE, limit=2))] == [2, 3]
    with pytest.raises(FeedError) as raised:
        await loop.run(bot.feed.history("nonsense@A"))
    assert (raised.value.kind, raised.value.code, raised.value.final) == ("refused", 2, True)
    for wrong in ({"limit": 0}, {"limit": True}, {"before": 7}):
        with pytest.raises(TypeError, match=next(iter(wrong))):
            await loop.run(bot.feed.history(TRADE, **wrong))
    await loop.run(bot.stop())


@pytest_twisted.ensureDeferred
async def test_history_is_put_together_of_pages(harness: Harness, loop: Loop) -> None:
    """What pub/sub keeps, of which an answer holds a part; and a daemon that has been asked too much is waited for."""
    pandas = pytest.importorskip("pandas")
    redis = await harness.redis()
    limits = ("--client-queue", "20000", "--request-burst", "10")
    daemon = await harness.daemon("--history", "300", *limits, redis=redis)
    bot = Bot(url_of(daemon), times=Times())
    await loop.run(bot.start())
    await loop.run(bot.until(Rewound))
    await harness.eventually(lambda: _is_heard(redis))
    engine = await redis.connect()
    for number in range(400):
        await engine.publish(TRADE, trade(number=number))
    await loop.run(bot.until_trade(399))
    with pytest.raises(FeedError, match="before is no offset of trade@TATA_INR"):
        await loop.run(bot.feed.history(TRADE, limit=1, before="of another daemon"))
    kept = await loop.run(bot.feed.history(TRADE, limit=None))
    assert [each.data["t"] for each in kept] == list(range(100, 400))
    await loop.run(bot.stop())
    table = data_frame(kept)
    assert (len(table), table["t"].tolist()[::299]) == (300, [100, 399])
    assert isinstance(table, pandas.DataFrame)


@pytest_twisted.ensureDeferred
async def test_past_trades_and_candles(harness: Harness, loop: Loop) -> None:
    """Of trades of two minutes, in a stream and in the store of a candle service."""
    redis = await harness.redis()
    daemon = await harness.daemon("--source", "streams", "--candles", redis=redis)
    engine = await redis.connect()
    minute = int(time.time()) // 60 * 60_000
    sold = [(minute - 120_000, "10.5"), (minute - 90_000, "12"), (minute - 61_000, "9.25"), (minute - 60_000, "11")]
    for number, (at, price) in enumerate(sold, 1):
        await engine.command("XADD", TRADE, f"{at}-{number}", "d", trade(number=number, p=price, T=at, E=at))
    bot = Bot(url_of(daemon))
    await loop.run(bot.start())
    past = await loop.run(bot.feed.trades("TATA_INR", start=minute - 120_000))
    assert [(each.time, each.price) for each in past] == sold

    async def are_stored() -> bool:
        try:
            return len(await loop.run(bot.feed.klines("TATA_INR", "1m", start=minute - 120_000, end=minute - 1))) == 2
        except FeedError as error:  # that nobody makes candles yet
            if error.final:
                raise
            return False

    await harness.eventually(are_stored)
    first, second = await loop.run(bot.feed.klines("TATA_INR", "1m", start=minute - 120_000, end=minute - 1))
    assert (first.open, first.high, first.low, first.close, first.trades) == ("10.5", "12", "9.25", "9.25", 3)
    assert (first.open_time, second.open_time, second.close) == (minute - 120_000, minute - 60_000, "11")
    assert await loop.run(bot.feed.klines("TATA_INR", "1m", end=minute - 1, limit=1)) == [second]
    with pytest.raises(FeedError) as raised:
        await loop.run(bot.feed.klines("TATA_INR", "2d"))
    assert (raised.value.kind, raised.value.final) == ("refused", True)
    await loop.run(bot.stop())


@pytest_twisted.ensureDeferred
async def test_a_token_that_ends_is_renewed_on_the_open_connection(harness: Harness, loop: Loop) -> None:
    """The other one permits more, and what was refused comes then."""
    redis = await harness.redis()
    secret = harness.directory / "secret"
    secret.write_bytes(SECRET)
    daemon = await harness.daemon("--auth", "required", "--auth-key", str(secret), redis=redis)
    book = b'{"e":"depth","u":157,"b":[["1000.00","5"]],"a":[["1001.00","2"]]}'
    await (await redis.connect()).command("SET", "snapshot:depth@TATA_INR", book)
    now = time.time()
    narrow = {
        "sub": "alice",
        "exp": now + 45,
        "streams": ["trade@*"],
    }  # less than the minute before the end of which is told
    tokens = [signed(claims=narrow), signed(claims={"sub": "alice", "exp": now + 3600})]
    asked: list[str] = []

    def token() -> str:
        asked.append(tokens[min(len(asked), 1)])
        return asked[-1]

    bot = Bot(url_of(daemon), token=token)
    kept = bot.feed.book("TATA_INR")
    await loop.run(bot.start())
    await loop.run(bot.until(Expiring))
    await harness.eventually(lambda: kept.state == "live")
    await loop.run(bot.stop())
    assert asked == tokens
    assert [item.state for item in bot.log if isinstance(item, State)] == ["open", "closed"]
    refused = [(item.code, item.stream) for item in bot.log if isinstance(item, Error)]
    assert refused in ([], [(5, "depth@TATA_INR")], [(5, None)])
