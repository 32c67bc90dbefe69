"""The lease in a real server: one has it, and another one when it is given up or over."""

from __future__ import annotations

import pytest
import pytest_twisted

from marketfeed.candles.lease import Lease
from marketfeed.candles.store import Overtaken
from tests.candles.test_store import Leader, direct, expected, trades, written
from tests.redis.streams import commands_on
from tests.system.harness import Harness

KEY = "p:lease:candles"


@pytest_twisted.ensureDeferred
async def test_one_has_it(harness: Harness) -> None:
    """For as long as it asks, or until it gives it up; who does not have it cannot."""
    server = await harness.redis()
    redis = await server.connect()
    commands = await commands_on(harness, server)
    one, other = Lease(commands, KEY, "one", 60), Lease(commands, KEY, "other", 120)
    assert await one.take()
    assert not await other.take()
    await redis.command("PEXPIRE", KEY, 30_000)
    assert await one.take()
    assert await redis.command("PTTL", KEY) > 30_000
    await other.give_up()
    assert await redis.command("GET", KEY) == b"one"
    await one.give_up()
    assert await other.take()
    assert await redis.command("PTTL", KEY) > 60_000
    await server.kill()
    await other.give_up()


@pytest_twisted.ensureDeferred
async def test_it_is_over_while_who_had_it_is_stalled(harness: Harness) -> None:
    """Who comes back with writes in its hand knows nothing of it: they are not written, and then it has no lease."""
    server = await harness.redis()
    redis = await server.connect()
    commands = await commands_on(harness, server)
    sold = trades(60)
    stalled, following = Lease(commands, KEY, "stalled", 0.05), Lease(commands, KEY, "following", 60)
    assert await stalled.take()
    one = await Leader.at(harness, direct(server))
    change = one.take(sold, 30)
    await harness.eventually(following.take)
    other = await Leader.at(harness, direct(server))
    with pytest.raises(Overtaken):
        await one.store.write([change])
    assert not await stalled.take()
    await other.store.write([other.take(sold, 60)])
    assert await written(redis) == expected(sold)
