"""Faults of every kind, while publications go on: nothing is lost through Redis streams, and nothing is hidden without.

`FAULTS=publications,faults,clients` makes it longer; `make faults` does.
"""

from __future__ import annotations

import os
import random
from zlib import crc32

import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from tests.system.faults import Cast, Engine, Faults, Watcher
from tests.system.harness import Harness, RedisServer
from tests.system.lean import within

_PUBLICATIONS, _FAULTS, _CLIENTS = map(int, os.environ.get("FAULTS", "12000,8,40").split(","))
_SECONDS = 120 + _PUBLICATIONS / 1000
_DURABLE = ("--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0")


async def entries(redis: RedisServer, stream: str) -> list[tuple[bytes, bytes]]:
    """What a stream of the server holds: ids and payloads."""
    connection = await redis.connect()
    return [(entry, fields[1]) for entry, fields in await connection.command("XRANGE", stream, "-", "+")]


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
    harness.on_close(engine.stop)
    harness.on_close(lambda: [watcher.end() for watcher in watchers] and None)
    work = [Deferred.fromCoroutine(engine.run(_PUBLICATIONS))]
    work += [Deferred.fromCoroutine(watcher.run()) for watcher in watchers]
    faults = Faults(cast, rng, watchers, "normal")
    for number in range(1, _FAULTS + 1):
        await engine.after(number * _PUBLICATIONS // (_FAULTS + 1))
        await faults.one()
    await engine.after(_PUBLICATIONS)
    held = {stream: await entries(redis, stream) for stream in streams}
    ends = {stream: held[stream][-1][0] for stream in streams}
    await harness.eventually(
        lambda: all(offset == ends[stream] for watcher in watchers for stream, offset in watcher.last.items())
    )
    for watcher in watchers:
        watcher.end()
    await gatherResults(work)
    for stream in streams:
        expected = [(entry, crc32(payload)) for entry, payload in held[stream][1:]]
        assert len(expected) >= len(engine.acknowledged[stream])
        for watcher in watchers:
            assert watcher.seen.get(stream, expected) == expected, f"{stream}, seed {seed}"
    print(dict(faults.counts), sum(w.visits for w in watchers), sum(w.not_recovered for w in watchers))
