"""Candles in a real server: written whole or not at all, by one leader, wherever a link or a leader ends."""

from __future__ import annotations

import random
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
import pytest_twisted

from marketfeed.candles.market import Market
from marketfeed.candles.store import CandleStore, Change, Overtaken
from marketfeed.model.candle_store import CANDLE_FIELDS, KEEP, CandleKeys, Row, rows_in
from marketfeed.model.candles import newest_of
from marketfeed.model.intervals import Calendar
from marketfeed.model.kinds.kline import INTERVALS
from marketfeed.model.statistics import DAY_MS
from marketfeed.model.trades import Trade
from marketfeed.redis.address import RedisAddress
from marketfeed.redis.commands import OutOfReach
from marketfeed.redis.endpoint import redis_endpoints
from marketfeed.redis.routed_commands import RoutedCommands
from marketfeed.redis.tls import RedisTls
from marketfeed.redis.topology import Node, OneServer
from tests.conftest import LogCapture
from tests.model.test_candles import LATE, Reference, numbers
from tests.system.forwarder import Forwarder
from tests.system.harness import Harness, Redis, RedisServer

KEYS = CandleKeys("p:")
NAME = "A_B"
NOW = 1_800_000_000_000


def trades(count: int) -> list[Trade]:
    """In the order in which they come: some late, some in the same ms."""
    chance = random.Random(3)
    found = []
    for number in range(1, count + 1):
        time = NOW + number * 900 - chance.choice((0, 0, 0, 0, 70_000))
        price, quantity = str(chance.randrange(1, 100)), str(Decimal(chance.randrange(1, 999)).scaleb(-2))
        found.append(Trade(number, time, price, quantity, chance.random() < 0.5, Decimal(price), Decimal(quantity)))
    return found


class Leader:
    """Takes trades from where the one before was, and writes what they come to."""

    def __init__(self, store: CandleStore, commands: RoutedCommands) -> None:
        self.store = store
        self._commands = commands
        self.market = Market(NAME, Calendar(), LATE)

    @classmethod
    async def at(cls, harness: Harness, address: RedisAddress, make: type[CandleStore] = CandleStore) -> Leader:
        """One that has its number, and the market."""
        node = Node("redis", address, redis_endpoints(harness.reactor, address, RedisTls())(address))
        commands = RoutedCommands(harness.reactor, OneServer(node), "transactions")
        commands.startService()
        harness.on_close(commands.stopService)
        await harness.eventually(lambda: commands.at(node).ready)
        leader = cls(make(commands, KEYS, KEEP, has_slots=False), commands)
        await leader.store.lead()
        await leader.take_over()
        return leader

    async def take_over(self) -> None:
        self.market = Market(NAME, Calendar(), LATE)
        self.market.load(await self.store.load(NAME, NOW - DAY_MS))

    def take(self, sold: Sequence[Trade], until: int) -> Change:
        """What those come to that are behind the position, up to that one."""
        for place in range(int(self.market.position or 0), until):
            one = sold[place]
            assert self.market.take(one, one.time, b"%d" % (place + 1)) is None
        change, _ = self.market.change(NOW, ())
        return change

    async def end(self) -> None:
        await self._commands.stopService()


async def written(redis: Redis) -> dict[tuple[str, int], Any]:
    """The numbers of all candles, closed ones and open ones, as readers find them."""
    found = {}
    for interval in INTERVALS:
        reply = await redis.command("ZRANGEBYSCORE", KEYS.candles(NAME, interval), "-inf", "+inf", "WITHSCORES")
        rows = rows_in(reply)
        assert len(reply) == 2 * len(rows)
        found |= {(interval, row.open_time): numbers(row) for row in rows}
        fields = await redis.command("HMGET", KEYS.state(NAME), *CANDLE_FIELDS)
        newest = newest_of(fields, Calendar(), interval, NOW)
        if newest is not None and newest.trades:
            found[interval, newest.start] = numbers(newest.row())
    return found


def expected(sold: Sequence[Trade]) -> dict[tuple[str, int], Any]:
    reference = Reference(Calendar())
    for one in sold:
        assert reference.take(one, one.time) is None
    return {key: reference.row(*key)[0] for key in reference.of}


def direct(server: RedisServer) -> RedisAddress:
    return RedisAddress(path=server.path)


@pytest_twisted.ensureDeferred
async def test_the_link_ends_anywhere_in_a_transaction(harness: Harness) -> None:
    """So does the leader with it. The next one goes on from what there is: each trade is in each candle once."""
    server = await harness.redis()
    redis = await server.connect()
    forwarder = Forwarder(harness, server.path)
    way = RedisAddress(host="127.0.0.1", port=forwarder.port)
    sold, chance, amid = trades(200), random.Random(8), 0
    for until in range(10, 200, 10):
        leader = await Leader.at(harness, way)
        change = leader.take(sold, until)
        forwarder.led, forwarder.room = b"", chance.randrange(7000)
        try:
            await leader.store.write([change])
        except OutOfReach:
            amid += b"MULTI" in forwarder.led and not forwarder.led.endswith(b"EXEC\r\n")
        forwarder.room = None
        await leader.end()
    assert amid > 3
    leader = await Leader.at(harness, way)
    await leader.store.write([leader.take(sold, 200)])
    assert await written(redis) == expected(sold)


@pytest_twisted.ensureDeferred
async def test_nobody_knows_whether_it_was_written(harness: Harness) -> None:
    """The link ended before the reply came. Written once more it does nothing, to late trades above all."""
    server = await harness.redis()
    redis = await server.connect()
    sold = trades(60)
    leader = await Leader.at(harness, direct(server))
    await leader.store.write([leader.take(sold, 30)])
    change = leader.take(sold, 60)
    assert change.late
    for _ in range(2):
        await leader.store.write([change])
        assert await written(redis) == expected(sold)


@pytest_twisted.ensureDeferred
async def test_a_leader_that_is_none_any_more(harness: Harness) -> None:
    """It wakes up with writes in its hand, and the next one has only read so far: nothing but its number tells."""
    server = await harness.redis()
    redis = await server.connect()
    sold = trades(60)
    asleep = await Leader.at(harness, direct(server))
    await asleep.store.write([asleep.take(sold, 20)])
    change = asleep.take(sold, 40)
    following = await Leader.at(harness, direct(server))
    assert (asleep.store.number, following.store.number) == (1, 2)
    before = await redis.command("HGETALL", KEYS.state(NAME))
    with pytest.raises(Overtaken):
        await asleep.store.write([change])
    assert await redis.command("HGETALL", KEYS.state(NAME)) == before
    with pytest.raises(Overtaken):
        await asleep.take_over()
    assert await redis.command("HGETALL", KEYS.state(NAME)) == before
    await following.store.write([following.take(sold, 60)])
    assert await written(redis) == expected(sold)


class Interrupted(CandleStore):
    """Something happens between what it looks at and what it writes."""

    meanwhile: Any = None

    async def _execute(self, *transaction: Any) -> None:
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            await meanwhile()
        await super()._execute(*transaction)


@pytest_twisted.ensureDeferred
async def test_one_takes_over_while_another_one_writes(harness: Harness) -> None:
    """After it has looked: nothing of it is written."""
    server = await harness.redis()
    redis = await server.connect()
    sold = trades(60)
    leader = await Leader.at(harness, direct(server), Interrupted)
    following = await Leader.at(harness, direct(server))
    assert isinstance(leader.store, Interrupted)
    await leader.store.lead()
    await leader.take_over()
    await leader.store.write([leader.take(sold, 20)])

    async def take_over() -> None:
        await following.store.lead()
        await following.take_over()

    leader.store.meanwhile = take_over
    with pytest.raises(Overtaken):
        await leader.store.write([leader.take(sold, 40)])
    await following.store.write([following.take(sold, 60)])
    assert await written(redis) == expected(sold)


@pytest_twisted.ensureDeferred
async def test_redis_has_lost_what_it_had_taken(harness: Harness) -> None:
    """As after a failover: who leads loads it anew, and goes on from there."""
    server = await harness.redis()
    redis = await server.connect()
    sold = trades(60)
    leader = await Leader.at(harness, direct(server))
    await leader.store.write([leader.take(sold, 20)])
    state = await redis.command("DUMP", KEYS.state(NAME))
    kept = [(key, await redis.command("DUMP", key)) for key in await redis.command("KEYS", "p:candles:*")]
    await leader.store.write([leader.take(sold, 40)])
    assert state != await redis.command("DUMP", KEYS.state(NAME))
    await redis.command("FLUSHALL")
    for key, dump in kept:
        await redis.command("RESTORE", key, 0, dump)
    with pytest.raises(Overtaken):
        await leader.store.write([leader.take(sold, 60)])
    await leader.take_over()
    await leader.store.write([leader.take(sold, 60)])
    assert await written(redis) == expected(sold)


@pytest_twisted.ensureDeferred
async def test_what_is_no_minute_is_left_out(harness: Harness) -> None:
    """Of a back-fill; it is said how much."""
    server = await harness.redis()
    redis = await server.connect()
    leader = await Leader.at(harness, direct(server))
    key, row = KEYS.candles(NAME, "1m"), Row(NOW, "5", "6", "4", "5", "10", NOW + 59_999, "50", 3, "1", "5")
    await redis.command(
        "ZADD", key, NOW, row.to_bytes(), NOW + 60_000, b"rubbish", NOW + 120_000, row.to_bytes() + b" "
    )
    ahead, beside = row.flat(NOW + 2 * DAY_MS, NOW), row.flat(NOW + 1, NOW)
    for each in (ahead, beside):
        await redis.command("ZADD", key, each.open_time, each.to_bytes())
    stored = await leader.store.load(NAME, NOW - DAY_MS)
    assert (stored.minutes, stored.left_out) == ([row], 4)


@pytest_twisted.ensureDeferred
async def test_a_number_that_somebody_has_spoilt(harness: Harness, logged: LogCapture) -> None:
    """It counts as 0, and is written anew: nobody waits for it for ever."""
    server = await harness.redis()
    redis = await server.connect()
    leader = await Leader.at(harness, direct(server))
    await redis.command("HSET", KEYS.state(NAME), "leader", "x", "turn", "y")
    await leader.take_over()
    sold = trades(3)
    await leader.store.write([leader.take(sold, 3)])
    assert await redis.command("HMGET", KEYS.state(NAME), "leader", "turn") == [b"1", b"1"]
    assert "candles: a number in the state of {market} is none, and counts as 0" in logged.formats()
    await leader.end()
