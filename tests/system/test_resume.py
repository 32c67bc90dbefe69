"""Nothing lost: offsets, resume, HISTORY, state on subscribe and the gaps between, of a real daemon over pub/sub."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor

from tests.system.harness import Client, DaemonProcess, Harness, Redis, RedisServer, trade

TRADE, DEPTH, TICKER = "trade@A", "depth@A", "ticker@A"
LONG = ("--linger", "600")


class Stage:
    """A daemon with its server and an engine; each test has a market of its own."""

    def __init__(self, harness: Harness, redis: RedisServer, daemon: DaemonProcess, engine: Redis) -> None:
        self.harness = harness
        self.redis = redis
        self.daemon = daemon
        self.engine = engine
        self.markets = 0

    def market(self) -> str:
        self.markets += 1
        return f"M{self.markets}"

    async def client(self, *properties: str, path: str = "/stream") -> Client:
        return await client_of(self.harness, self.daemon, *properties, path=path)


async def client_of(harness: Harness, daemon: DaemonProcess, *properties: str, path: str = "/stream") -> Client:
    """A client with these properties."""
    client = await harness.client(daemon, path)
    for name in properties:
        await client.ask({"method": "SET_PROPERTY", "params": [name, True], "id": 1})
    return client


@pytest_twisted.async_yield_fixture(scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """What most tests of this module share."""
    harness = Harness(reactor, tmp_path_factory.mktemp("stage"))
    try:
        redis = await harness.redis()
        daemon = await harness.daemon(*LONG, redis=redis)
        yield Stage(harness, redis, daemon, await redis.connect())
        assert await daemon.stop() == 0
    finally:
        await harness.close()


def depth(market: str, first: int, last: int, *levels: list[str], **more: Any) -> bytes:
    fields = {"e": "depthUpdate", "s": market, "U": first, "u": last, "a": [], "b": levels, **more}
    return json.dumps(fields, separators=(",", ":")).encode()


async def resume(client: Client, stream: str, offset: str) -> Any:
    """SUBSCRIBE from this offset on; the reply."""
    return await client.ask({"method": "SUBSCRIBE", "params": [stream], "since": {stream: offset}, "id": 2})


def recovered(stream: str, is_recovered: bool) -> dict[str, Any]:
    return {"result": None, "id": 2, "recovered": {stream: is_recovered}}


# Offsets and resume.


@pytest_twisted.ensureDeferred
async def test_an_envelope_says_its_offset(stage: Stage) -> None:
    """Behind the engine's own bytes; a client that has not asked for it gets none."""
    market = stage.market()
    stream = f"trade@{market}"
    client, other = await stage.client("offsets"), await stage.client()
    await client.subscribe(stream)
    await other.subscribe(stream)
    await stage.engine.publish(stream, trade(market, 1))
    text = await client.next_bytes()
    offset = json.loads(text)["offset"]
    assert text == b'{"stream":"%b","data":%b,"offset":"%b"}' % (stream.encode(), trade(market, 1), offset.encode())
    assert await other.next_bytes() == b'{"stream":"%b","data":%b}' % (stream.encode(), trade(market, 1))


@pytest.mark.parametrize("path", ["/", "/stream"])
@pytest_twisted.ensureDeferred
async def test_a_client_gets_across_a_reconnect(stage: Stage, path: str) -> None:
    """Within the linger of its stream: exactly what it has missed, in order, and then the live stream."""
    market = stage.market()
    stream = f"trade@{market}"
    client = await stage.client("offsets", path=path)
    await client.subscribe(stream)
    await stage.engine.publish(stream, *(trade(market, number) for number in range(1, 4)))
    messages = [await client.next() for _ in range(3)]
    await stage.harness.hang_up(client)
    await stage.engine.publish(stream, *(trade(market, number) for number in range(4, 8)))
    client = await stage.client("offsets", path=path)
    answer = await resume(client, stream, messages[1]["offset"])
    if path == "/":
        assert answer == {"stream": "!reply", "data": {"e": "reply", **recovered(stream, True)}}
    else:
        assert answer == recovered(stream, True)
    await stage.engine.publish(stream, trade(market, 8))
    later = [await client.next() for _ in range(6)]
    assert [message["data"]["t"] for message in later] == [3, 4, 5, 6, 7, 8]
    assert later[0] == messages[2]
    assert await client.ask({"method": "PING", "id": 3})  # and nothing beyond


@pytest_twisted.ensureDeferred
async def test_what_is_not_kept_is_not_recovered(harness: Harness) -> None:
    """Not even in part; and a stream that nobody has had for longer than it lingers has forgotten everything."""
    redis = await harness.redis()
    daemon = await harness.daemon("--history", "2", "--linger", "0", redis=redis)
    engine = await redis.connect()
    client, other = [await client_of(harness, daemon, "offsets") for _ in range(2)]
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
    client = await client_of(harness, daemon, "offsets")
    await client.subscribe(TRADE)
    await (await redis.connect()).publish(TRADE, trade(number=1))
    before = (await client.next())["offset"]
    await redis.kill()
    assert (await client.next())["data"]["to"] is None
    other = await client_of(harness, daemon, "offsets")
    assert await resume(other, TRADE, before) == recovered(TRADE, True)  # nothing is missing up to this moment,
    assert (await other.next())["data"]["to"] is None  # and behind it there is a gap
    await redis.start()
    for each in (client, other):
        assert (await each.next())["data"]["to"] is not None
    other = await client_of(harness, daemon, "offsets")
    assert await resume(other, TRADE, before) == recovered(TRADE, False)
    await (await redis.connect()).publish(TRADE, trade(number=2))
    after = [(await each.next())["offset"] for each in (client, other)]
    assert after[0] == after[1] != before
    other = await client_of(harness, daemon, "offsets")
    assert await resume(other, TRADE, after[0]) == recovered(TRADE, True)


@pytest_twisted.ensureDeferred
async def test_an_offset_from_before_a_restart_is_another_epochs(harness: Harness) -> None:
    """The daemon that comes next remembers nothing, and says so."""
    redis = await harness.redis()
    engine = await redis.connect()
    daemon = await harness.daemon(*LONG, redis=redis)
    client = await client_of(harness, daemon, "offsets")
    await client.subscribe(TRADE)
    await engine.publish(TRADE, trade(number=1))
    offset = (await client.next())["offset"]
    await daemon.stop("KILL")
    daemon = await harness.daemon(*LONG, redis=redis)
    other, client = [await client_of(harness, daemon, "offsets") for _ in range(2)]
    await other.subscribe(TRADE)
    await engine.publish(TRADE, trade(number=2))
    await other.next()
    assert await resume(client, TRADE, offset) == recovered(TRADE, False)
    assert await client.ask({"method": "PING", "id": 3}) == {"result": "PONG", "id": 3}


# HISTORY.


@pytest_twisted.ensureDeferred
async def test_history_is_what_was_published(stage: Stage) -> None:
    """The newest, oldest first, byte for byte; each with an offset from which one can go on."""
    market = stage.market()
    stream = f"trade@{market}"
    client = await stage.client("offsets")
    assert await client.ask({"method": "HISTORY", "params": [stream], "id": 6}) == {"result": [], "id": 6}
    await client.subscribe(stream)
    await stage.engine.publish(stream, *(trade(market, number) for number in range(120)))
    live = [await client.next() for _ in range(120)]
    client.send({"method": "HISTORY", "params": [stream], "limit": 2, "id": 7})
    items = ",".join(
        f'{{"offset":"{each["offset"]}","data":{trade(market, each["data"]["t"]).decode()}}}' for each in live[-2:]
    )
    assert await client.next_bytes() == f'{{"result":[{items}],"id":7}}'.encode()
    answer = await client.ask({"method": "HISTORY", "params": [f"{market.lower()}@trade".upper()], "id": 8})
    assert answer["error"]["code"] == 2
    answer = await client.ask({"method": "HISTORY", "params": [stream], "id": 8})
    assert [entry["offset"] for entry in answer["result"]] == [each["offset"] for each in live[20:]]
    other = await stage.client()
    assert await resume(other, stream, answer["result"][-2]["offset"]) == recovered(stream, True)
    assert (await other.next())["data"]["t"] == 119


# State.


@pytest_twisted.ensureDeferred
async def test_a_late_client_gets_the_last_ticker(stage: Stage) -> None:
    """As it was published, if the property asks for it."""
    market = stage.market()
    stream = f"ticker@{market}"
    first = await stage.client()
    await first.subscribe(stream)
    ticker = b'{ "e" : "ticker", "c" : 1.10, "s" : "%b" }' % market.encode()
    await stage.engine.publish(stream, ticker)
    await first.next()
    late, other = await stage.client("snapshot"), await stage.client()
    await late.subscribe(stream)
    assert await late.next_bytes() == b'{"stream":"%b","data":%b}' % (stream.encode(), ticker)
    await other.subscribe(stream)
    assert await other.ask({"method": "PING", "id": 3}) == {"result": "PONG", "id": 3}


@pytest_twisted.ensureDeferred
async def test_a_late_client_gets_the_book(stage: Stage) -> None:
    """What the snapshot and the updates come to, as one snapshot with the last id; the live updates follow it."""
    market = stage.market()
    stream = f"depth@{market}"
    first = await stage.client("snapshot")
    await first.subscribe(stream)
    await stage.engine.publish(stream, depth(market, 1, 1, ["9.0", "1"]))
    assert (await first.next())["data"]["u"] == 1
    late = await stage.client("snapshot")
    await late.subscribe(stream)  # the book is not known whole, and nothing is sent
    await stage.engine.publish(
        stream,
        depth(market, 7, 7, ["9.0", "1"], ["8.0", "2"], snapshot=True),
        depth(market, 8, 9, ["8.0", "0"], ["7.50", "3"]),
    )
    assert [(await late.next())["data"]["u"] for _ in range(2)] == [7, 9]
    later = await stage.client("snapshot", "offsets")
    await later.subscribe(stream)
    message = await later.next()
    book = message["data"]
    assert (book["e"], book["U"], book["u"], book["snapshot"]) == ("depthUpdate", 9, 9, True)
    assert (book["a"], sorted(book["b"])) == ([], [["7.50", "3"], ["9.0", "1"]])
    await stage.engine.publish(stream, depth(market, 10, 10, ["9.0", "4"]))
    assert (await later.next())["data"]["U"] == 10
    other = await stage.client("snapshot")  # the offset of a snapshot is one to go on from
    assert await resume(other, stream, message["offset"]) == recovered(stream, True)
    assert (await other.next())["data"]["U"] == 10


@pytest_twisted.ensureDeferred
async def test_a_jump_of_the_ids_is_a_gap(stage: Stage) -> None:
    """Which is told before the publication that shows it; nobody gets a book until the engine gives one again."""
    market = stage.market()
    stream = f"depth@{market}"
    client = await stage.client("snapshot")
    await client.subscribe(stream)
    await stage.engine.publish(
        stream, depth(market, 1, 1, ["9.0", "1"], snapshot=True), depth(market, 2, 3), depth(market, 5, 6)
    )
    assert [(await client.next())["data"]["u"] for _ in range(2)] == [1, 3]
    gap, update = [await client.next() for _ in range(2)]
    assert gap["stream"] == "!gap"
    assert (gap["data"]["streams"], gap["data"]["reason"]) == ([stream], "sequence")
    assert gap["data"]["from"] <= gap["data"]["to"]
    assert update["data"]["U"] == 5
    late = await stage.client("snapshot")
    await late.subscribe(stream)
    assert await late.ask({"method": "PING", "id": 3}) == {"result": "PONG", "id": 3}
    await stage.engine.publish(stream, depth(market, 9, 9, ["9.0", "2"], snapshot=True))
    for each in (client, late):
        assert (await each.next())["data"]["snapshot"] is True
    later = await stage.client("snapshot")
    await later.subscribe(stream)
    assert (await later.next())["data"]["b"] == [["9.0", "2"]]
