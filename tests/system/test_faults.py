"""Faults of every kind, while publications go on: nothing is lost through Redis streams, and nothing is hidden without.

`FAULTS=publications,faults,clients` makes it longer; `make faults` does.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any
from zlib import crc32

import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from tests.system.faults import Cast, Engine, Faults, GapWatcher, Watcher, now_ms, trade
from tests.system.harness import DEADLINE, Harness, RedisServer
from tests.system.lean import within

_PUBLICATIONS, _FAULTS, _CLIENTS = map(int, os.environ.get("FAULTS", "12000,8,40").split(","))
_SECONDS = 3 * DEADLINE + 60 * _FAULTS + _PUBLICATIONS / 100
_DURABLE = ("--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0")


async def entries(redis: RedisServer, stream: str) -> list[tuple[bytes, bytes]]:
    """What a stream of the server holds: ids and payloads."""
    connection = await redis.connect()
    return [(entry, fields[1]) for entry, fields in await connection.command("XRANGE", stream, "-", "+")]


def watch(harness: Harness, watchers: Sequence[Watcher]) -> list[Deferred[None]]:
    """Let them watch until they are told to end, as they are when the test ends."""
    work = [Deferred.fromCoroutine(watcher.run()) for watcher in watchers]

    def end() -> Deferred[Any]:
        for watcher in watchers:
            watcher.end()
        return gatherResults(work)

    harness.on_close(end)
    return work


async def befall(
    harness: Harness, rng: random.Random, engine: Engine, faults: Faults, settled: Callable[[], Any]
) -> None:
    """Faults, each of them amid as many publications; for some it is waited until everybody has got over it."""
    for number in range(1, _FAULTS + 1):
        published = Deferred.fromCoroutine(engine.run(number * _PUBLICATIONS // _FAULTS))
        await engine.after((2 * number - 1) * _PUBLICATIONS // _FAULTS // 2)
        await faults.one()
        await published
        if rng.randrange(2) or number == _FAULTS:
            await harness.eventually(settled)


@pytest_twisted.ensureDeferred
@within(_SECONDS)
async def test_through_redis_streams_nothing_is_lost(harness: Harness) -> None:
    """Each client, on whichever daemon, ends with exactly what the server holds: no gap, no repetition, in order."""
    rng = random.Random(seed := random.randrange(1 << 30))
    print(f"seed {seed}")
    redis = await harness.redis(*_DURABLE)
    streams = [f"trade@M{number}" for number in range(max(10, _CLIENTS // 2))]
    first = {stream: (await (await redis.connect()).command("XADD", stream, "*", "d", "first")) for stream in streams}
    cast = Cast(harness, redis, "--source", "streams", "--connect-rate", "0")
    await cast.start()
    engine = Engine(harness, redis, streams, lambda stream, payload: ("XADD", stream, "*", "d", payload))
    watchers = [
        Watcher(cast, rng, {stream: first[stream] for stream in rng.sample(streams, 2)}) for _ in range(_CLIENTS)
    ]
    work = watch(harness, watchers)

    async def settled() -> bool:
        connection = await redis.connect()
        ends = {
            stream: (await connection.command("XREVRANGE", stream, "+", "-", "COUNT", 1))[0][0] for stream in streams
        }
        return all(offset == ends[stream] for watcher in watchers for stream, offset in watcher.last.items())

    faults = Faults(cast, rng, watchers, "normal")
    await befall(harness, rng, engine, faults, settled)
    held = {stream: await entries(redis, stream) for stream in streams}
    for watcher in watchers:
        watcher.end()
    await gatherResults(work)
    assert not [fault for watcher in watchers for fault in watcher.faults]
    for stream in streams:
        expected = [(entry, crc32(payload)) for entry, payload in held[stream][1:]]
        assert len(expected) >= len(engine.acknowledged[stream])
        for watcher in watchers:
            assert watcher.seen.get(stream, expected) == expected, f"{stream}, seed {seed}"
    print(dict(faults.counts), sum(w.visits for w in watchers), sum(w.not_recovered for w in watchers))


@pytest_twisted.ensureDeferred
@within(_SECONDS)
async def test_through_channels_what_is_lost_is_announced(harness: Harness) -> None:
    """Whatever a client has not seen of what the server has passed on lies inside a gap that it was told of."""
    rng = random.Random(seed := random.randrange(1 << 30))
    print(f"seed {seed}")
    redis = await harness.redis()
    streams = [f"trade@M{number}" for number in range(max(10, _CLIENTS // 2))]
    cast = Cast(harness, redis, "--connect-rate", "0")
    await cast.start()
    engine = Engine(harness, redis, streams, lambda stream, payload: ("PUBLISH", stream, payload))
    watchers = [GapWatcher(cast, rng, rng.sample(streams, 2)) for _ in range(_CLIENTS)]
    work = watch(harness, watchers)

    def settled() -> bool:
        return all(watcher.is_whole for watcher in watchers)

    await harness.eventually(settled)
    faults = Faults(cast, rng, watchers, "pubsub")
    await befall(harness, rng, engine, faults, settled)
    connection = await redis.connect()
    further = count(_PUBLICATIONS)

    async def all_is_well() -> bool:
        """Everybody gets what is published now: again and again, for somebody may be hit by the last fault only now."""
        for stream in streams:
            await connection.command("PUBLISH", stream, trade(stream, next(further), now_ms()))
        return all(numbers[-1:] >= [_PUBLICATIONS] for watcher in watchers for numbers in watcher.numbers.values())

    await harness.eventually(all_is_well)
    for watcher in watchers:
        watcher.end()
    await gatherResults(work)
    missed = sum(watcher.check(stream, engine.acknowledged[stream]) for watcher in watchers for stream in watcher.last)
    print(dict(faults.counts), sum(watcher.visits for watcher in watchers), f"{missed} missed")
