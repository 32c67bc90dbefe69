"""Two real candle services, one of them stalled: each trade counts once.

`STALL=seconds` makes it longer, with the lease as it is; `make faults` does.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

import pytest_twisted

from tests.system.harness import Harness, Redis
from tests.system.test_candles import KEYS, SHORT, Sold, add, have_all, moves_on, newest, service, sold

STALL = float(os.environ.get("STALL", "0"))
PROGRAM = () if STALL else ("-c", SHORT)
AT_ONCE = 100


async def trade(harness: Harness, redis: Redis, trades: Sequence[Sold]) -> None:
    """As an engine does, for as long as the one is stalled."""
    for at in range(0, len(trades), AT_ONCE):
        await add(redis, trades[at : at + AT_ONCE])
        await harness.pause(STALL * AT_ONCE / len(trades))


@pytest_twisted.ensureDeferred
async def test_two_of_them_one_stalled(harness: Harness) -> None:
    """The other takes over; the first is no harm when it wakes up amid what it was doing; and the other way round."""
    server = await harness.redis()
    redis = await server.connect()
    trades = sold(20_000)
    await add(redis, trades[:10_000])
    first = service(harness, server, program=PROGRAM)
    await moves_on(harness, redis, await newest(redis))
    first.signal("STOP")
    leader = await redis.command("GET", KEYS.lease)
    second = service(harness, server, program=PROGRAM)

    async def is_taken_over() -> bool:
        return await redis.command("GET", KEYS.lease) not in (None, leader)

    await harness.eventually(is_taken_over)
    await trade(harness, redis, trades[10_000:12_000])
    await harness.eventually(lambda: have_all(redis, trades[:12_000], closes=False))
    os.kill(first.pid, signal.SIGCONT)
    await add(redis, trades[12_000:15_000])
    await harness.eventually(lambda: have_all(redis, trades[:15_000], closes=False))
    second.signal("STOP")
    await trade(harness, redis, trades[15_000:])
    await harness.eventually(lambda: have_all(redis, trades, closes=False))
    os.kill(second.pid, signal.SIGCONT)
    await first.expect("another one leads|has taken over")
    await second.expect("another one leads|has taken over")
    assert first.status is None
    assert second.status is None
    assert await have_all(redis, trades, closes=False)
