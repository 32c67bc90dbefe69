"""The real `marketfeed candles` between a real server and its trades: each trade counts once, whatever happens."""

from __future__ import annotations

import json
import random
import re
import sys
import time
from collections.abc import Iterator, Sequence
from decimal import Decimal
from functools import partial
from typing import Any, Protocol

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from marketfeed.model.candle_store import CANDLE_FIELDS, CandleKeys, Row, read_row
from marketfeed.model.candles import newest_of
from marketfeed.model.intervals import Calendar
from marketfeed.model.kinds.kline import INTERVALS
from tests.docs_runner import ROOT, blocks
from tests.system.admin_port import ADMIN
from tests.system.harness import Harness, Process, Redis
from tests.system.plain_candles import Plain, Sold, rows_of

KEYS = CandleKeys("")
MARKET = "TATA_INR"
SPAN = 480_000
"""The ms over which trades are spread: no more seconds than are kept of candles of a second."""
SHORT = """
import marketfeed.candles.lease as lease
lease.LEASE_SECONDS, lease.LOOK_SECONDS = 1.0, 0.25
import sys
from marketfeed.commands import main
sys.exit(main())
"""
"""The program, with a lease that is over sooner."""


class Server(Protocol):
    """Where Redis is."""

    @property
    def url(self) -> str: ...


def service(
    harness: Harness, redis: Server, *options: str, source: str = "streams", program: Sequence[str] = ()
) -> Process:
    run = [*program] if program else ["-m", "marketfeed"]
    return harness.spawn([sys.executable, *run, "candles", "--redis-url", redis.url, "--source", source, *options])


def sold(count: int, seed: int = 1, end: int | None = None) -> list[Sold]:
    """Trades of the last minutes, in order; some in the same ms, and one at least in the period of now."""
    chance = random.Random(seed)
    now = int(time.time() * 1000) if end is None else end
    times = sorted(now - chance.randrange(SPAN) for _ in range(count))
    return [
        Sold(
            number * 3,
            at,
            str(Decimal(chance.randrange(90_000, 110_000)).scaleb(-chance.choice((1, 2, 3)))),
            str(Decimal(chance.randrange(1, 10**9)).scaleb(-chance.choice((0, 4, 9)))),
            chance.random() < 0.5,
        )
        for number, at in enumerate(times, 1)
    ]


def written(one: Sold, market: str = MARKET) -> bytes:
    fields = {"e": "trade", "E": one.time, "T": one.time, "s": market, "t": one.number, "p": one.price}
    return json.dumps({**fields, "q": one.quantity, "m": one.is_maker}).encode()


async def add(redis: Redis, trades: Sequence[Sold], market: str = MARKET) -> None:
    """As an engine adds them to a stream."""
    key = f"trade@{market}"
    await gatherResults([redis.command("XADD", key, "*", "d", written(one, market)) for one in trades])


def plain(row: Row) -> Plain:
    return (
        row.open_time,
        row.open,
        row.high,
        row.low,
        row.close,
        Decimal(row.volume),
        row.close_time,
        Decimal(row.quote_volume),
        row.trades,
        Decimal(row.taker_volume),
        Decimal(row.taker_quote_volume),
    )


class Commands(Protocol):
    """Whoever can be asked."""

    def command(self, *words: str | bytes | int) -> Deferred[Any]: ...


async def kept(redis: Commands, interval: str, market: str = MARKET) -> list[Row]:
    """The closed candles, as a reader finds them. Each is there once, at the score of its time."""
    reply = await redis.command("ZRANGEBYSCORE", KEYS.candles(market, interval), "-inf", "+inf", "WITHSCORES")
    rows = []
    for member, score in _pairs(reply):
        row = read_row(member)
        assert row is not None
        assert row.open_time == int(score)
        rows.append(row)
    times = [row.open_time for row in rows]
    assert times == sorted(set(times))
    return rows


def _pairs(reply: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
    return zip(reply[::2], reply[1::2], strict=True)


async def open_candles(redis: Commands, market: str = MARKET) -> dict[str, Row]:
    """Those that the state has."""
    state = await redis.command("HMGET", KEYS.state(market), *CANDLE_FIELDS)
    if state[0] is None:
        return {}
    now = int(time.time() * 1000)
    found = [(interval, newest_of(state, Calendar(), interval, now)) for interval in INTERVALS]
    return {interval: candle.row() for interval, candle in found if candle is not None and candle.trades}


async def have_all(
    redis: Commands, trades: Sequence[Sold], market: str = MARKET, *, offset: int = 0, closes: bool = True
) -> bool:
    """Whether the candles of these trades, and of no others, are there, to the last digit, the open ones besides.

    `closes`: also the closes, which a trade does not change that comes when the clock has closed its candle.
    """
    calendar = Calendar(offset)
    opened = await open_candles(redis, market)
    for interval in INTERVALS:
        rows = [plain(row) for row in await kept(redis, interval, market)]
        if interval in opened:
            rows.append(plain(opened[interval]))
        expected = rows_of(interval, trades, calendar)
        if not closes:
            rows, expected = [[(*row[:4], *row[5:]) for row in each] for each in (rows, expected)]  # type: ignore[misc]
        if rows != expected:
            return False
    return True


async def position(redis: Redis) -> Any:
    """Up to where trades are in candles."""
    return await redis.command("HGET", KEYS.state(MARKET), "position")


async def moves_on(harness: Harness, redis: Redis, ended: str) -> None:
    """Until more trades are in candles than at the moment, or all of them."""
    before = await position(redis)

    async def has_moved() -> bool:
        return await position(redis) not in (before, None) or before == ended.encode()

    await harness.eventually(has_moved)


async def newest(redis: Redis) -> str:
    """The id of the last trade's entry."""
    ((entry, _),) = await redis.command("XREVRANGE", f"trade@{MARKET}", "+", "-", "COUNT", 1)
    return str(entry.decode())


@pytest_twisted.ensureDeferred
async def test_of_streams(harness: Harness) -> None:
    """What was there before it began, and what comes while it runs."""
    server = await harness.redis()
    redis = await server.connect()
    trades = sold(3000)
    await add(redis, trades[:2000])
    candles = service(harness, server)
    await harness.eventually(lambda: have_all(redis, trades[:2000]))
    await add(redis, trades[2000:])
    await harness.eventually(lambda: have_all(redis, trades, closes=False))
    candles.signal("TERM")
    assert await candles.wait() == 0
    assert await redis.command("EXISTS", KEYS.lease) == 0


@pytest_twisted.ensureDeferred
async def test_days_of_another_zone(harness: Harness) -> None:
    server = await harness.redis()
    redis = await server.connect()
    trades = sold(50)
    await add(redis, trades)
    service(harness, server, "--day-offset", "+05:30")
    await harness.eventually(lambda: have_all(redis, trades, offset=330 * 60_000))


@pytest_twisted.ensureDeferred
async def test_killed_again_and_again(harness: Harness) -> None:
    """In the middle of whatever it does: kill -9, and another one, which goes on where it was."""
    server = await harness.redis()
    redis = await server.connect()
    trades = sold(20_000)
    await add(redis, trades)
    end = await newest(redis)
    chance = random.Random(7)
    for _ in range(8):
        candles = service(harness, server, program=("-c", SHORT))
        await moves_on(harness, redis, end)
        await harness.pause(chance.random() / 10)
        candles.signal("KILL")
        await candles.wait()
    service(harness, server, program=("-c", SHORT))
    await harness.eventually(lambda: have_all(redis, trades))


@pytest_twisted.ensureDeferred
async def test_the_server_is_killed_and_comes_back(harness: Harness) -> None:
    """With what it had on its disk."""
    server = await harness.redis("--appendonly", "yes", "--appendfsync", "always")
    redis = await server.connect()
    trades = sold(2000)
    service(harness, server)
    await add(redis, trades[:1000])
    await moves_on(harness, redis, await newest(redis))
    await server.kill()
    await server.start()
    redis = await server.connect()
    await add(redis, trades[1000:])
    await harness.eventually(lambda: have_all(redis, trades, closes=False))


@pytest_twisted.ensureDeferred
async def test_of_channels(harness: Harness) -> None:
    """As heard; and a restart goes on where the one before ended."""
    server = await harness.redis()
    redis = await server.connect()
    trades = sold(2000)
    for until in (1000, 2000):
        candles = service(harness, server, source="pubsub")
        await candles.expect("every channel is listened to")
        await redis.publish(f"trade@{MARKET}", *map(written, trades[until - 1000 : until]))
        await harness.eventually(partial(have_all, redis, trades[:until], closes=False))
        candles.signal("TERM")
        assert await candles.wait() == 0


@pytest_twisted.ensureDeferred
async def test_what_comes_late_and_what_is_no_trade(harness: Harness) -> None:
    """One line for each sort; no candle is spoilt, and one that was filled in from elsewhere is amended."""
    server = await harness.redis()
    redis = await server.connect()
    trades = sold(1000)
    candles = service(harness, server, *ADMIN)
    await add(redis, trades)
    await harness.eventually(lambda: have_all(redis, trades))
    now = int(time.time() * 1000)
    bad = [
        {},
        {"T": now + 3_600_000},
        {"T": now - 2 * 3_600_000},
        {"T": 10**30, "E": 10**30},
        {"t": trades[-1].number},
        {"p": "1" + "0" * 80},
        {"p": "NaN"},
        {"q": "-1"},
        {"m": "yes"},
    ]
    one = json.loads(written(trades[-1]))
    for number, fields in enumerate(bad):
        entry = {**one, "t": 10**6 + number, **fields} if fields else {}
        await redis.command("XADD", f"trade@{MARKET}", "*", "d", json.dumps(entry))
    await redis.command("XADD", f"trade@{MARKET}", "*", "d", b"\xff{")
    await redis.command("XADD", f"trade@{MARKET}", "*", "other", b"field")
    more = [Sold(10**7, now, "1" * 40, "0." + "3" * 39, False)]
    await add(redis, more)
    await harness.eventually(lambda: have_all(redis, [*trades, *more], closes=False))

    key, minute = KEYS.candles(MARKET, "1m"), now - now % 60_000 - 20 * 60_000
    filled = Row(minute, "5", "6", "4", "5.50", "10", minute + 59_999, "50", 3, "1", "5")
    await redis.command("ZADD", key, minute, filled.to_bytes(), minute + 60_000, b"rubbish")
    late = [Sold(10**7 + 1, minute + 1, "7.0", "1", False), Sold(10**7 + 2, minute + 60_001, "8", "1", True)]
    await add(redis, late)

    async def are_amended() -> bool:
        reply = await redis.command("ZRANGEBYSCORE", key, minute, minute + 60_000, "WITHSCORES")
        rows = [read_row(member) for member, _ in _pairs(reply)]
        amended = Row(minute, "5", "7.0", "4", "5.50", "11", minute + 59_999, "57.0", 4, "2", "12.0")
        alone = Row(minute + 60_000, "8", "8", "8", "8", "1", minute + 119_999, "8", 1, "0", "0")
        return rows == [amended, alone]

    await harness.eventually(are_amended)
    candles.signal("TERM")
    assert await candles.wait() == 0


@pytest_twisted.ensureDeferred
async def test_candles_are_filled_in_as_the_documentation_shows(harness: Harness) -> None:
    """However often, while the service runs: what was there of that time is gone."""
    server = await harness.redis()
    redis = await server.connect()
    service(harness, server)
    (block,) = [each for each in blocks("diagram") if "ZREMRANGEBYSCORE" in each.text]
    lines = [line.removeprefix("redis> ").split(" ") for line in block.text.splitlines()]
    key = next(words[1] for words in lines if words[0] == "ZADD")
    assert key == KEYS.candles(MARKET, "1m")
    for _ in range(2):
        *_, replies = [await redis.command(*words) for words in lines]
        assert replies[-1] == 1
    (row,) = await kept(redis, "1m")
    assert row.to_bytes().decode() == lines[-2][-1]


@pytest.mark.parametrize("source", ["pubsub", "streams"])
@pytest_twisted.ensureDeferred
async def test_it_needs_no_more_rights_than_the_documentation_says(harness: Harness, source: str) -> None:
    """As a user of its own, with late trades, and with candles that somebody wants."""
    server = await harness.redis()
    redis = await server.connect()
    text = (ROOT / "docs" / "market-data.md").read_text(encoding="utf-8")
    rows = {
        name: re.findall(r"[~&+][^`\s]+", rest)
        for name, rest in re.findall(r"^\| the service, `--source (\w+)` \|(.*)$", text, re.MULTILINE)
    }
    rights = {*rows[source], *[word for word in rows["pubsub"] if word.startswith("~")]}
    await redis.command("ACL", "SETUSER", "candles", "on", ">s3cret", "resetchannels", "-@all", *sorted(rights))
    url = server.url.replace("unix://", "unix://candles:s3cret@")
    candles = harness.spawn(
        [sys.executable, "-m", "marketfeed", "candles", "--redis-url", url, "--source", source, "--keep", "1s=5"]
    )
    await harness.eventually(lambda: redis.command("EXISTS", KEYS.lease))
    number = 0

    async def are_amended() -> bool:
        nonlocal number
        seconds = int((await redis.command("TIME"))[0])
        for stream in (f"kline_1s@{MARKET}", f"miniTicker@{MARKET}", "!miniTicker@arr"):
            await redis.command("ZADD", KEYS.wanted, seconds, stream)
        for age in (0, 120_000):
            number += 1
            one = written(Sold(number, seconds * 1000 - age, "1", "1", False))
            verb = ("XADD", f"trade@{MARKET}", "*", "d") if source == "streams" else ("PUBLISH", f"trade@{MARKET}")
            await redis.command(*verb, one)
        return len(await kept(redis, "1s")) == 5 and bool(await kept(redis, "1m"))

    await harness.eventually(are_amended)
    candles.signal("TERM")
    assert await candles.wait() == 0
    assert not [line for line in candles.lines.all if "NOPERM" in line]
