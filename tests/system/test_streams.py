"""The daemon on Redis streams: whatever is killed, a client that resumes gets everything once and in order."""

from __future__ import annotations

import json
from typing import Any

import pytest_twisted

from tests.system.harness import Client, DaemonProcess, Harness, trade, with_constants

A = "trade@TATA_INR"
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


async def resume(harness: Harness, daemon: DaemonProcess, since: str | None) -> tuple[Client, bool | None]:
    """A client that asks for offsets, behind one of them."""
    client = await (await harness.client(daemon, "/stream")).hear_events()
    await client.ask({"method": "SET_PROPERTY", "params": ["offsets", True], "id": 0})
    request: dict[str, Any] = {"method": "SUBSCRIBE", "params": [A], "id": 1}
    if since is not None:
        request["since"] = {A: since}
    client.send(request)
    reply = await client.next()
    while "id" not in reply:
        reply = await client.next()
    assert reply["result"] is None
    return client, reply.get("recovered", {}).get(A)


async def take(client: Client, count: int) -> list[tuple[str, int]]:
    """The next publications; control events are passed over."""
    taken: list[tuple[str, int]] = []
    while len(taken) < count:
        message = await client.next()
        if message["stream"] == A:
            taken.append((message["offset"], message["data"]["t"]))
    return taken


@pytest_twisted.ensureDeferred
async def test_a_client_goes_on_at_another_instance_and_across_restarts(harness: Harness) -> None:
    """Of the daemon and of Redis, both killed."""
    server = await harness.redis(*DURABLE)
    redis = await server.connect()
    one = await harness.daemon("--source", "streams", redis=server)
    two = await harness.daemon("--source", "streams", redis=server)
    client, recovered = await resume(harness, one, None)
    assert recovered is None
    held: list[tuple[str, int]] = []
    number = 0

    async def add(count: int) -> None:
        nonlocal number
        for _ in range(count):
            number += 1
            await redis.command("XADD", A, "*", "d", trade(number=number))

    await add(5)
    held += await take(client, 5)
    await harness.hang_up(client)
    await add(5)
    client, recovered = await resume(harness, two, held[-1][0])
    assert recovered is True
    held += await take(client, 5)
    two.process.signal("KILL")
    await two.process.wait()
    await add(5)
    three = await harness.daemon("--source", "streams", redis=server)
    client, recovered = await resume(harness, three, held[-1][0])
    assert recovered is True
    held += await take(client, 5)
    await server.kill()
    await server.start()
    redis = await server.connect()
    await add(5)
    held += await take(client, 5)
    entries = await redis.command("XRANGE", A, "-", "+")
    assert [offset for offset, _ in held] == [entry.decode() for entry, _ in entries]
    assert [each for _, each in held] == list(range(1, 21))


@pytest_twisted.ensureDeferred
async def test_what_is_gone_is_not_claimed(harness: Harness) -> None:
    """Trimmed, beyond the end, or no offset at all."""
    server = await harness.redis()
    redis = await server.connect()
    daemon = await harness.daemon("--source", "streams", redis=server)
    for number in range(1, 10):
        await redis.command("XADD", A, "MAXLEN", "3", f"{number}-0", "d", trade(number=number))
    for since, expected in (("6-0", False), ("99-0", False), ("x", False), ("7-0", True), ("9-0", True)):
        client, recovered = await resume(harness, daemon, since)
        assert recovered is expected, since
        await harness.hang_up(client)


@pytest_twisted.ensureDeferred
async def test_a_catch_up_closes_nobody_who_reads(harness: Harness) -> None:
    """16 MiB at once in many streams: one who reads gets all of it in order, one who does not is closed and no more."""
    server = await harness.redis()
    redis = await server.connect()
    options = ("--source", "streams", "--ping-interval", "0")  # which who does not read would not answer
    daemon = await harness.daemon(
        *options,
        redis=server,
        program=with_constants(redis__delivery__HOLD_SECONDS=120, redis__delivery__NO_PROGRESS=5),
    )
    streams = [f"trade@M{number}" for number in range(20)]
    reader, idle = [await harness.client(daemon, "/stream") for _ in range(2)]
    for client in (reader, idle):
        assert (await client.ask({"method": "SUBSCRIBE", "params": streams, "id": 1}))["result"] is None
    assert idle.transport is not None
    idle.transport.pauseProducing()
    for number in range(1000):
        if not number % 250:
            redis.command("MULTI")
        for stream in streams:
            payload = trade(stream.removeprefix("trade@"), number, padding="x" * 700)
            redis.command("XADD", stream, f"{number + 1}-0", "d", payload)
        if number % 250 == 249:
            redis.command("EXEC")
    last = dict.fromkeys(streams, -1)
    for _ in range(1000 * len(streams)):
        message = await reader.next()
        stream, number = message["stream"], message["data"]["t"]
        assert number == last[stream] + 1
        last[stream] = number
    await daemon.expect("closed by the server with 4008")
    assert sum("closed by the server" in line for line in daemon.lines) == 1


@pytest_twisted.ensureDeferred
async def test_a_book_is_found_in_its_stream(harness: Harness) -> None:
    """By the first who asks, however long ago the engine's last snapshot was; what follows continues it."""
    server = await harness.redis()
    redis = await server.connect()
    stream = "depth@TATA_INR"

    async def add(number: int, *, whole: bool = False) -> None:
        fields: dict[str, Any] = {"e": "depth", "U": number, "u": number, "b": [], "a": [[str(number), "1"]]}
        data = json.dumps(fields | ({"snapshot": True} if whole else {}))
        await redis.command("XADD", stream, "*", "d", data)

    for number in range(1, 300):
        await add(number, whole=number == 30)
    daemon = await harness.daemon("--source", "streams", redis=server)
    status, _, body = await harness.http(daemon, "GET /api/v3/depth?symbol=TATA_INR&limit=1 HTTP/1.1\nHost: a")
    assert (status, json.loads(body)) == (200, {"lastUpdateId": 299, "bids": [], "asks": [["30", "1"]]})
    client = await (await harness.client(daemon, "/stream")).hear_events()
    await client.ask({"method": "SET_PROPERTY", "params": ["snapshot", True], "id": 0})
    await client.ask({"method": "SUBSCRIBE", "params": [stream], "id": 1})
    whole = (await client.next())["data"]
    assert (whole["u"], len(whole["a"])) == (299, 270)
    await add(300)
    assert (await client.next())["data"]["U"] == 300
