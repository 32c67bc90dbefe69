"""The Python client on Twisted, with a real daemon, a real server, and their faults."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from marketfeed_client import Error, FeedError, Gap, Message, Recovered, Rewound, State, Times
from marketfeed_client.tx import Client
from twisted.internet.defer import Deferred, ensureDeferred

from tests.certificates import Authority
from tests.client_python.engine import TRADE, add, url_of
from tests.guard import DEADLINE
from tests.system.harness import Harness, trade

QUICK = Times(backoff_base=0.01, backoff_most=0.05)


class Bot:
    """A client that keeps all that it hears of the trades, in order; it is ended with the test."""

    def __init__(self, harness: Harness, url: Any, **options: Any) -> None:
        self.feed = Client(url, times=QUICK, reactor=harness.reactor, **options)
        self.log: list[Any] = []
        self._harness = harness
        self.feed.start()
        self._listening = ensureDeferred(self._listen())
        harness.on_close(self.stop)

    async def _listen(self) -> None:
        async for item in self.feed.messages(TRADE, rewind=100):
            self.log.append(item)

    async def until(self, kind: type, **fields: Any) -> Any:
        """The first item of the log like this."""

        def found() -> Any:
            for item in self.log:
                if isinstance(item, kind) and all(getattr(item, name) == value for name, value in fields.items()):
                    return item
            return None

        await self._harness.eventually(lambda: found() is not None)
        return found()

    async def until_trade(self, number: int) -> None:
        await self._harness.eventually(lambda: number in self.trades())

    def trades(self) -> list[int]:
        return [item.data["t"] for item in self.log if isinstance(item, Message)]

    async def stop(self) -> None:
        await self.feed.close().addTimeout(DEADLINE, self._harness.reactor)
        try:
            await self._listening
        except FeedError:
            pass


@pytest_twisted.ensureDeferred
async def test_streams_are_resumed_across_a_restart_without_loss_or_duplicates(harness: Harness) -> None:
    redis = await harness.redis()
    daemons = [await harness.daemon("--source", "streams", redis=redis)]
    engine = await redis.connect()
    asked: list[Deferred[str]] = []

    def url() -> Deferred[str]:
        asked.append(Deferred())
        asked[-1].callback(url_of(daemons[-1]))
        return asked[-1]

    bot = Bot(harness, url)
    await bot.until(Rewound)
    await add(engine, 1, 2)
    await bot.until_trade(2)
    await daemons[0].stop("TERM")
    await add(engine, 3, 4)
    daemons.append(await harness.daemon("--source", "streams", redis=redis))
    await bot.until(Recovered, recovered=True)
    await add(engine, 5)
    await bot.until_trade(5)
    assert bot.trades() == [1, 2, 3, 4, 5]
    assert not [item for item in bot.log if isinstance(item, Gap)]
    assert len(asked) >= 2


@pytest_twisted.ensureDeferred
async def test_it_stops_while_there_is_nobody_to_connect_to(harness: Harness) -> None:
    bot = Bot(harness, "ws://127.0.0.1:1/")
    await bot.until(State, state="waiting")
    await bot.stop()
    assert bot.feed.state == "closed"


@pytest_twisted.ensureDeferred
async def test_it_stops_while_an_attempt_is_under_way(harness: Harness) -> None:
    bot = Bot(harness, Deferred)  # which never says where
    await bot.stop()
    assert bot.feed.state == "closed"


@pytest_twisted.ensureDeferred
async def test_a_refusal_is_told_with_its_reason(harness: Harness) -> None:
    daemon = await harness.daemon(redis=await harness.redis())
    bot = Bot(harness, url_of(daemon) + "nonsense")
    await harness.eventually(lambda: any(getattr(item, "kind", "") == "closed" for item in bot.log))
    error = next(item for item in bot.log if getattr(item, "kind", "") == "closed")
    assert "refused with 404" in error.message


@pytest_twisted.ensureDeferred
async def test_history_and_past_trades(harness: Harness) -> None:
    redis = await harness.redis()
    daemon = await harness.daemon("--source", "streams", redis=redis)
    await add(await redis.connect(), *range(1, 1204))
    bot = Bot(harness, url_of(daemon))
    await bot.feed.ready()
    assert [each.data["t"] for each in await bot.feed.history(TRADE, limit=2)] == [1202, 1203]
    kept = await bot.feed.history(TRADE, limit=None)
    assert [each.data["t"] for each in kept] == list(range(1, 1204))
    assert await bot.feed.history(TRADE, limit=1101, before=kept[1102].offset) == kept[1:1102]
    past = await bot.feed.trades("TATA_INR", from_id=2)
    assert [each.id for each in past] == list(range(2, 1204))
    assert [each.id for each in await bot.feed.trades("TATA_INR", start=0)] == list(range(1, 1204))
    assert [each.id for each in await bot.feed.trades("TATA_INR", limit=1100)] == list(range(104, 1204))
    with pytest.raises(FeedError) as raised:
        await bot.feed.klines("TATA_INR", "2d")
    assert (raised.value.kind, raised.value.final) == ("refused", True)


@pytest_twisted.ensureDeferred
async def test_a_lost_redis_server_is_a_gap_that_is_told(harness: Harness) -> None:
    redis = await harness.redis()
    daemon = await harness.daemon(redis=redis)
    bot = Bot(harness, url_of(daemon))
    await bot.until(Rewound)

    async def is_heard() -> bool:
        return TRADE in await (await redis.connect()).channels()

    await harness.eventually(is_heard)
    await (await redis.connect()).publish(TRADE, trade(number=1))
    await bot.until_trade(1)
    await redis.kill()
    await bot.until(Gap, reason="source-down", to=None)
    await redis.start()
    await bot.until(Recovered, stream=TRADE, recovered=False)
    await harness.eventually(is_heard)
    await (await redis.connect()).publish(TRADE, trade(number=2))
    await bot.until_trade(2)
    (gap,) = [item for item in bot.log if isinstance(item, Gap) and item.reason == "not-recovered"]
    first, second = [item for item in bot.log if isinstance(item, Message)]
    assert bot.log.index(first) < bot.log.index(gap) < bot.log.index(second)


@pytest_twisted.ensureDeferred
async def test_by_tls(harness: Harness) -> None:
    """Of a server that is trusted; one that is not is told, and tried again."""
    authority = Authority()
    certificate, key = authority.issue("localhost").write(harness.directory)
    redis = await harness.redis()
    listen = f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={certificate}"
    daemon = await harness.daemon("--source", "streams", "--port", listen, redis=redis)
    url = f"wss://localhost:{daemon.port}/"
    bot = Bot(harness, url, tls=authority.client_options())
    await bot.until(Rewound)
    await add(await redis.connect(), 1)
    await bot.until_trade(1)
    stranger = Bot(harness, url)
    error = await stranger.until(Error)
    assert (error.kind, error.final) == ("closed", False)
    assert stranger.trades() == []
