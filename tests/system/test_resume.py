"""What a real daemon over pub/sub does not recover, and says so; the pages have examples of what it does."""

from __future__ import annotations

from typing import Any

import pytest_twisted

from tests.system.harness import Client, DaemonProcess, Harness, trade

TRADE = "trade@A"
LONG = ("--linger", "600")


async def client_of(harness: Harness, daemon: DaemonProcess) -> Client:
    """A client that is told offsets."""
    client = await (await harness.client(daemon, "/stream")).hear_events()
    await client.ask({"method": "SET_PROPERTY", "params": ["offsets", True], "id": 1})
    return client


async def resume(client: Client, stream: str, offset: str) -> Any:
    """SUBSCRIBE from this offset on; the reply."""
    return await client.ask({"method": "SUBSCRIBE", "params": [stream], "since": {stream: offset}, "id": 2})


def recovered(stream: str, is_recovered: bool) -> dict[str, Any]:
    return {"result": None, "id": 2, "recovered": {stream: is_recovered}}


@pytest_twisted.ensureDeferred
async def test_what_is_not_kept_is_not_recovered(harness: Harness) -> None:
    """Not even in part; and a stream that nobody has had for longer than it lingers has forgotten everything."""
    redis = await harness.redis()
    daemon = await harness.daemon("--history", "2", "--linger", "0", redis=redis)
    engine = await redis.connect()
    client, other = [await client_of(harness, daemon) for _ in range(2)]
    await client.subscribe(TRADE)
    await engine.publish(TRADE, *(trade(number=number) for number in range(1, 5)))
    offsets = [(await client.next())["offset"] for _ in range(4)]
    assert await resume(other, TRADE, offsets[0]) == recovered(TRADE, False)
    await other.ask({"method": "UNSUBSCRIBE", "params": [TRADE], "id": 1})
    assert await resume(other, TRADE, offsets[1]) == recovered(TRADE, True)
    assert [(await other.next())["data"]["t"] for _ in range(2)] == [3, 4]
    for each in (client, other):
        await each.ask({"method": "UNSUBSCRIBE", "params": [TRADE], "id": 1})
    assert await resume(client, TRADE, offsets[3]) == recovered(TRADE, False)


@pytest_twisted.ensureDeferred
async def test_an_offset_from_before_a_gap_is_another_epochs(harness: Harness) -> None:
    """Redis was away: something may have been missed. Offsets from behind the gap are good again."""
    redis = await harness.redis()
    daemon = await harness.daemon(*LONG, redis=redis)
    client = await client_of(harness, daemon)
    await client.subscribe(TRADE)
    await (await redis.connect()).publish(TRADE, trade(number=1))
    before = (await client.next())["offset"]
    await redis.kill()
    assert (await client.next())["data"]["to"] is None
    other = await client_of(harness, daemon)
    assert await resume(other, TRADE, before) == recovered(TRADE, True)  # nothing is missing up to this moment,
    assert (await other.next())["data"]["to"] is None  # and behind it there is a gap
    await redis.start()
    for each in (client, other):
        assert (await each.next())["data"]["to"] is not None
    other = await client_of(harness, daemon)
    assert await resume(other, TRADE, before) == recovered(TRADE, False)
    await (await redis.connect()).publish(TRADE, trade(number=2))
    after = [(await each.next())["offset"] for each in (client, other)]
    assert after[0] == after[1] != before
    other = await client_of(harness, daemon)
    assert await resume(other, TRADE, after[0]) == recovered(TRADE, True)


@pytest_twisted.ensureDeferred
async def test_an_offset_from_before_a_restart_is_another_epochs(harness: Harness) -> None:
    """The daemon that comes next remembers nothing, and says so."""
    redis = await harness.redis()
    engine = await redis.connect()
    daemon = await harness.daemon(*LONG, redis=redis)
    client = await client_of(harness, daemon)
    await client.subscribe(TRADE)
    await engine.publish(TRADE, trade(number=1))
    offset = (await client.next())["offset"]
    await daemon.stop("KILL")
    daemon = await harness.daemon(*LONG, redis=redis)
    other, client = [await client_of(harness, daemon) for _ in range(2)]
    await other.subscribe(TRADE)
    await engine.publish(TRADE, trade(number=2))
    await other.next()
    assert await resume(client, TRADE, offset) == recovered(TRADE, False)
    assert await client.ask({"method": "PING", "id": 3}) == {"result": "PONG", "id": 3}
