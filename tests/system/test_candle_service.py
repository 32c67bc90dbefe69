"""A real `marketfeed candles` beside a real server: what it keeps, what it publishes, and where it goes on."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import pytest
import pytest_twisted

from marketfeed.model.candle_store import CandleKeys
from tests.system.admin_port import ADMIN, AdminPort
from tests.system.harness import DaemonProcess, Harness, RedisServer

KEYS = CandleKeys("")
BOTH = pytest.mark.parametrize("source", ["pubsub", "streams"])


async def candles(harness: Harness, server: RedisServer, source: str, *options: str) -> tuple[DaemonProcess, AdminPort]:
    """One that leads."""
    command = [sys.executable, "-m", "marketfeed", "candles", "--redis-url", server.url, "--source", source]
    process = DaemonProcess(harness.spawn([*command, *ADMIN, *options]))
    port = await AdminPort.of(process)
    await process.expect("every channel is listened to" if source == "pubsub" else "this one leads")
    return process, port


def trade(number: int, time: int, price: str, quantity: str = "1") -> bytes:
    fields = {"e": "trade", "s": "A_B", "t": number, "p": price, "q": quantity, "m": False, "T": time}
    return json.dumps(fields).encode()


async def publish(redis: Any, source: str, *trades: bytes) -> None:
    for each in trades:
        if source == "streams":
            await redis.command("XADD", "trade@A_B", "*", "d", each)
        else:
            await redis.publish("trade@A_B", each)


@BOTH
@pytest_twisted.ensureDeferred
async def test_what_it_keeps(harness: Harness, source: str) -> None:
    """Closed candles by the clock, the open ones in the state, the last 24 hours; and the next one goes on there."""
    server = await harness.redis()
    redis = await server.connect()
    process, port = await candles(harness, server, source)
    now = int(time.time() * 1000)
    second = now - now % 1000 - 30_000
    await publish(redis, source, *[trade(number, second + number, str(10 + number), "0.5") for number in range(4)])

    async def are_closed() -> bool:
        return bool(await redis.command("ZCARD", KEYS.candles("A_B", "1s")))

    await harness.eventually(are_closed)
    rows = await redis.command("ZRANGE", KEYS.candles("A_B", "1s"), 0, -1)
    assert [json.loads(row) for row in rows] == [
        [second, "10", "13", "10", "13", "2.0", second + 999, "23.0", 4, "2.0", "23.0", "0"]
    ]
    await process.stop()
    assert await redis.command("EXISTS", KEYS.lease) == 0

    process, port = await candles(harness, server, source)
    await publish(redis, source, trade(3, second + 3, "99"), trade(4, second + 4, "9"), trade(5, now, "11"))

    async def are_all_there() -> bool:
        return bool(await redis.command("HGET", KEYS.state("A_B"), "ids:1") == b"[[0,5]]")

    await harness.eventually(are_all_there)
    rows = await redis.command("ZRANGEBYSCORE", KEYS.candles("A_B", "1s"), second, second)
    assert [json.loads(row) for row in rows] == [
        [second, "10", "13", "9", "13", "3.0", second + 999, "32.0", 5, "3.0", "32.0", "0"]
    ]

    async def is_told() -> bool:
        ticker = await redis.command("HGET", KEYS.tickers, "A_B")
        return bool(ticker and json.loads(ticker)["n"] == 6)

    await harness.eventually(is_told)
    ticker = json.loads(await redis.command("HGET", KEYS.tickers, "A_B"))
    assert [ticker[field] for field in "ohlcvq"] == ["10", "13", "9", "11", "4.0", "43.0"]
    samples = await port.samples(harness)
    assert samples["candles_dropped_total repeated"] == 1
    assert await process.stop() == 0


@BOTH
@pytest_twisted.ensureDeferred
async def test_a_client_of_a_daemon(harness: Harness, source: str) -> None:
    """It gets what there is at once, and what changes; without a service it hears of a gap, until there is one."""
    server = await harness.redis()
    redis = await server.connect()
    daemon = await harness.daemon("--source", source, redis=server)
    client = await harness.client(daemon, "/stream")
    streams = ["a_b@kline_1m", "a_b@miniTicker", "!miniTicker@arr"]
    await client.ask({"method": "SET_PROPERTY", "params": ["events", True], "id": 0})
    await client.ask({"method": "SUBSCRIBE", "params": streams, "id": 1})
    gap = (await client.next())["data"]
    assert (gap["e"], gap["streams"], gap["reason"], gap["to"]) == ("gap", streams, "no-candles", None)
    process, _ = await candles(harness, server, source)
    over = (await client.next())["data"]
    assert (over["from"], over["reason"]) == (gap["from"], "no-candles")
    assert over["to"] > over["from"]
    now = int(time.time() * 1000)
    await publish(redis, source, trade(1, now, "10"), trade(2, now, "12"))
    got: dict[str, Any] = {}
    while set(got) < set(streams):
        message = await client.next()
        got[message["stream"]] = message["data"]
    assert [got[streams[0]]["k"][field] for field in "ohlcn"] == ["10", "12", "10", "12", 2]
    assert (got[streams[1]]["c"], [each["s"] for each in got[streams[2]]]) == ("12", ["A_B"])

    late = await harness.client(daemon, "/stream")
    late.send({"method": "SUBSCRIBE", "params": streams, "id": 1})
    first: dict[str, Any] = {}
    while set(first) < set(streams):
        message = await late.next()
        if "stream" in message:
            first.setdefault(message["stream"], message["data"])
    assert first[streams[0]]["k"]["n"] == 2
    assert first[streams[1]]["c"] == first[streams[2]][0]["c"] == "12"
    assert await process.stop() == 0
    assert await daemon.stop() == 0


@pytest_twisted.ensureDeferred
async def test_what_is_answered_to_who_asks_once(harness: Harness) -> None:
    """Candles without holes, with the open one; the last 24 hours; what cannot be used; nothing without a service."""
    server = await harness.redis()
    redis = await server.connect()
    daemon = await harness.daemon(redis=server)

    async def ask(path: str) -> tuple[int, Any]:
        status, _, body = await harness.http(daemon, f"GET /api/v3/{path} HTTP/1.1\nHost: localhost\nConnection: close")
        return status, json.loads(body) if body.startswith((b"{", b"[")) else body.decode()

    assert (await ask("klines?symbol=A_B&interval=1m"))[0] == 503
    assert (await ask("ticker/24hr"))[0] == 503
    process, _ = await candles(harness, server, "streams")
    now = int(time.time() * 1000)
    minute = now - now % 60_000 - 4 * 60_000
    trades = [trade(1, minute, "10"), trade(2, minute + 1000, "12", "2"), trade(3, minute + 130_000, "11")]
    await publish(redis, "streams", *trades, trade(4, now, "13"))

    async def are_there() -> bool:
        status, rows = await ask("klines?symbol=A_B&interval=1m&startTime=1")
        _, day = await ask("ticker/24hr?symbol=A_B")
        return status == 200 and len(rows) >= 5 and day.get("count") == 4  # of trades that count one after the other

    await harness.eventually(are_there)
    _, rows = await ask("klines?symbol=A_B&interval=1m&startTime=1&limit=4")
    assert [row[0] for row in rows] == [minute + at * 60_000 for at in range(4)]
    assert [(row[1], row[4], row[5], row[8]) for row in rows] == [
        ("10", "12", "3", 2),
        ("12", "12", "0", 0),
        ("11", "11", "1", 1),
        ("11", "11", "0", 0),
    ]
    assert (await ask(f"klines?symbol=A_B&interval=1m&limit=2&endTime={minute + 61_000}"))[1] == rows[:2]
    _, text = await ask(f"uiKlines?symbol=A_B&interval=1m&endTime={minute}&format=csv")
    assert text.splitlines()[1].startswith(f"{minute},10,12,10,12,3,")
    _, day = await ask("ticker/24hr?symbol=A_B")
    assert len(day) == 21
    assert (day["openPrice"], day["lastPrice"], day["count"], day["bidPrice"]) == ("10", "13", 4, "0.00000000")
    assert len((await ask("ticker/24hr?type=MINI"))[1][0]) == 12
    assert (await ask('ticker/price?symbols=["A_B"]'.replace('"', "%22")))[1] == [{"symbol": "A_B", "price": "13"}]
    for path, code in (
        ("klines?symbol=A_B&interval=2m", -1120),
        ("klines?symbol=A_B", -1102),
        ("klines?interval=1m", -1102),
        ("klines?symbol=A_B&interval=1m&startTime=x", -1100),
        ("klines?symbol=A_B&interval=1m&format=xml", -1100),
        ("ticker/24hr?type=SMALL", -1100),
    ):
        status, error = await ask(path)
        assert (status, error["code"]) == (400, code), path
    assert await process.stop() == 0
    assert (await ask("klines?symbol=A_B&interval=1m"))[0] == 503
    assert await daemon.stop() == 0
