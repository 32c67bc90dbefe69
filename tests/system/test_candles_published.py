"""What the real `marketfeed candles` publishes: closed candles in order, and once more what may not have been."""

from __future__ import annotations

import json
import time
from typing import Any

import hiredis
import pytest
import pytest_twisted

from tests.system.harness import Harness, Redis, RedisServer
from tests.system.test_candles import KEYS, MARKET, SHORT, Sold, add, kept, service, written

DYING = (
    """
import os, signal
import marketfeed.candles.market
marketfeed.candles.market.SETTLED_MS = 3_600_000
from marketfeed.redis.publisher import RoutedPublisher
published = RoutedPublisher.publish
def publish(self, batch):
    if any(b'"x":true' in data for _, data in batch):
        os.kill(os.getpid(), signal.SIGKILL)
    published(self, batch)
RoutedPublisher.publish = publish
"""
    + SHORT
)
"""The program, killed as it has written its first closed candle, and not published it. The clock closes none."""


class Channel:
    """What comes on channels."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []

    async def listen(self, server: RedisServer, *channels: str) -> None:
        redis = await server.connect()
        redis.dataReceived = self._feed  # type: ignore[method-assign]
        self._reader = redis._reader
        assert redis.transport is not None
        redis.transport.write(hiredis.pack_command(("SUBSCRIBE", *channels)))

    def _feed(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            if reply[0] == b"message":
                self.heard.append((reply[1].decode(), json.loads(reply[2])))

    def of(self, stream: str) -> list[Any]:
        return [data for name, data in self.heard if name == stream]


async def want(redis: Redis, *streams: str) -> None:
    """As daemons do."""
    seconds, _ = await redis.command("TIME")
    await redis.command("ZADD", KEYS.wanted, *[word for name in streams for word in (int(seconds), name)])


@pytest_twisted.ensureDeferred
async def test_what_is_published(harness: Harness) -> None:
    """Of what somebody wants: each closed candle once and in order, and nothing else."""
    server = await harness.redis()
    redis = await server.connect()
    wanted = [f"kline_1s@{MARKET}", f"miniTicker@{MARKET}", "!miniTicker@arr"]
    channel = Channel()
    await channel.listen(server, *wanted, f"kline_1m@{MARKET}", "miniTicker@OTHER")

    await want(redis, *wanted)
    service(harness, server)
    await harness.eventually(lambda: redis.command("EXISTS", KEYS.lease))
    number = 0

    async def has_all() -> bool:
        nonlocal number
        number += 1
        await want(redis, *wanted)
        now = int(time.time() * 1000)
        await add(redis, [Sold(number, now, "10.50", "2", False)])
        await add(redis, [Sold(number, now, "20", "1", False)], "OTHER")
        closed = [each["k"]["t"] for each in channel.of(wanted[0]) if each["k"]["x"]]
        told_of = {one["s"] for each in channel.of(wanted[2]) for one in each}
        return len(closed) >= 3 and len(told_of) >= 2 and all(channel.of(name) for name in wanted)

    await harness.eventually(has_all)
    assert {name for name, _ in channel.heard} == set(wanted)
    closed = [each["k"] for each in channel.of(wanted[0]) if each["k"]["x"]]
    times = [each["t"] for each in closed]
    assert times == list(range(times[0], times[-1] + 1, 1000))
    stored = {row.open_time: row for row in await kept(redis, "1s")}
    for each in closed:
        if each["n"]:
            row = stored[each["t"]]
            assert (each["o"], each["c"], each["v"], each["n"]) == (row.open, row.close, row.volume, row.trades)
    assert {each["s"] for each in channel.of(wanted[1])} == {MARKET}
    assert {one["s"] for each in channel.of(wanted[2]) for one in each} == {MARKET, "OTHER"}
    assert all(channel.of(wanted[2])), "never an empty one"


@pytest.mark.parametrize("source", ["pubsub", "streams"])
@pytest_twisted.ensureDeferred
async def test_a_closed_candle_that_was_not_published(harness: Harness, source: str) -> None:
    """For the service was killed: the next one publishes it, without any trade that came meanwhile."""
    server = await harness.redis()
    redis = await server.connect()
    stream = f"kline_1s@{MARKET}"
    channel = Channel()
    await channel.listen(server, stream)
    second = int(time.time()) * 1000
    trades = [Sold(number, second + (number - 1) * 1000, str(10 + number), "2", False) for number in (1, 2)]
    await want(redis, stream)
    dying = service(harness, server, source=source, program=("-c", DYING))
    await dying.expect("every channel is listened to" if source == "pubsub" else "this one leads")
    for one in trades:
        if source == "streams":
            await add(redis, [one])
        else:
            await redis.publish(f"trade@{MARKET}", written(one))
        await harness.eventually(lambda: redis.command("HEXISTS", KEYS.tickers, MARKET))
    assert await dying.wait() != 0
    assert [row.open_time for row in await kept(redis, "1s")] == [second]
    assert not [each for each in channel.of(stream) if each["k"]["x"]]

    await want(redis, stream)
    service(harness, server, source=source, program=("-c", SHORT))

    async def are_told() -> bool:
        await want(redis, stream)
        return len([each for each in channel.of(stream) if each["k"]["x"]]) >= 3

    await harness.eventually(are_told)
    closed = [each["k"] for each in channel.of(stream) if each["k"]["x"]]
    assert [(each["t"] - second, each["f"], each["L"], each["c"], each["n"]) for each in closed[:3]] == [
        (0, 1, 1, "11", 1),
        (1000, 2, 2, "12", 1),
        (2000, -1, -1, "12", 0),
    ]
