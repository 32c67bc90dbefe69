"""Clients made for Binance at a real daemon: a book kept by differences is the engine's, with either source."""

from __future__ import annotations

import json
import random
from decimal import Decimal
from typing import Any

import pytest
import pytest_twisted

from tests.system.harness import Client, DaemonProcess, Harness, Redis

NAME = "depth@A"
UPDATES = 400
REBUILT = ("--payloads", "binance")
ZERO = "0.00000000"


class Engine:
    """Publishes a book without ids, prices in the spelling of the moment, whole now and then."""

    def __init__(self, redis: Redis, source: str, seed: int) -> None:
        self.random = random.Random(seed)
        self.redis = redis
        self.source = source
        self.book: dict[str, dict[Decimal, str]] = {"a": {}, "b": {}}

    async def publish(self, stream: str, payload: dict[str, Any]) -> None:
        text = json.dumps(payload)
        if self.source == "streams":
            await self.redis.command("XADD", stream, "*", "d", text)
        else:
            await self.redis.command("PUBLISH", stream, text)

    async def update(self) -> None:
        rows: dict[str, list[list[str]]] = {"a": [], "b": []}
        for _ in range(3):
            side, units = self.random.choice("ab"), self.random.randrange(20)
            price = self.random.choice([f"{units}.50", f"{units}.5", f"{units}.500"])
            quantity = self.random.choice(["0", "0.0", "1.25", "7"])
            rows[side].append([price, quantity])
            self.book[side].pop(Decimal(price), None)
            if Decimal(quantity):
                self.book[side][Decimal(price)] = quantity
        await self.publish(NAME, {"e": "depth", **rows})

    async def snapshot(self, *, keeps: bool) -> None:
        if not keeps:
            for levels in self.book.values():
                for price in list(levels)[::2]:
                    del levels[price]
        rows = {side: [[str(price), amount] for price, amount in levels.items()] for side, levels in self.book.items()}
        await self.publish(NAME, {"e": "depth", **rows, "snapshot": True})


def apply(book: dict[str, dict[str, str]], data: dict[str, Any]) -> None:
    for side, levels in book.items():
        for price, quantity in data[side]:
            if quantity == ZERO:
                levels.pop(price, None)
            else:
                levels[price] = quantity


async def until_end(client: Client) -> list[dict[str, Any]]:
    """The depth messages until the one with a mark."""
    got = []
    while True:
        data = (await client.next())["data"]
        if data["e"] != "depthUpdate":
            continue
        got.append(data)
        if "mark" in data:
            return got


async def begin(
    harness: Harness, daemon: DaemonProcess, name: str = NAME, since: str | None = None
) -> tuple[Client, dict[str, Any]]:
    client = await harness.client(daemon, "/stream")
    await client.ask({"method": "SET_PROPERTY", "params": ["offsets", True], "id": 0})
    request: dict[str, Any] = {"method": "SUBSCRIBE", "params": [name], "id": 1}
    if since is not None:
        request["since"] = {name: since}
    return client, await client.ask(request)


async def rest(harness: Harness, daemon: DaemonProcess) -> dict[str, Any]:
    status, _, body = await harness.http(
        daemon, "GET /api/v3/depth?symbol=A&limit=5000 HTTP/1.1\nHost: localhost\nConnection: close"
    )
    assert status == 200
    return dict(json.loads(body))


@pytest.mark.parametrize("source", ["pubsub", "streams"])
@pytest_twisted.ensureDeferred
async def test_a_book_kept_by_differences_is_the_engines(harness: Harness, source: str) -> None:
    """Plain, at a rate, and begun from REST in between; each id follows the one before."""
    server = await harness.redis()
    engine = Engine(await server.connect(), source, seed=1)
    daemon = await harness.daemon("--source", source, *REBUILT, redis=server)
    plain, _ = await begin(harness, daemon)
    rated, _ = await begin(harness, daemon, f"{NAME}@100ms")
    await engine.snapshot(keeps=True)
    for number in range(UPDATES):
        await engine.update()
        if number % 50 == 20:
            await engine.snapshot(keeps=number % 100 == 20)
        if number == UPDATES // 2:
            late, _ = await begin(harness, daemon)
            begun = await rest(harness, daemon)
    await engine.publish(NAME, {"e": "depth", "a": [], "b": [], "mark": 1})
    expected = {side: dict(levels) for side, levels in engine.book.items()}
    for client, start in ((plain, None), (rated, None), (late, begun)):
        book: dict[str, dict[str, str]] = {"a": {}, "b": {}}
        last = None
        if start is not None:
            book, last = {"a": dict(start["asks"]), "b": dict(start["bids"])}, start["lastUpdateId"]
        for data in await until_end(client):
            assert data["s"] == "A"
            assert data["U"] <= data["u"]
            if start is not None and data["u"] <= begun["lastUpdateId"]:
                continue
            assert last is None or data["U"] <= last + 1 <= data["u"]
            assert start is not None or last is None or data["U"] == last + 1
            last = data["u"]
            apply(book, data)
        assert {side: {Decimal(p): q for p, q in levels.items()} for side, levels in book.items()} == expected
        assert sum(map(len, book.values())) == sum(map(len, expected.values()))
    answer = await rest(harness, daemon)
    assert answer["lastUpdateId"] == last
    assert {Decimal(price): quantity for price, quantity in answer["asks"]} == expected["a"]


@pytest.mark.parametrize("source", ["pubsub", "streams"])
@pytest_twisted.ensureDeferred
async def test_what_is_resumed_is_what_was_live(harness: Harness, source: str) -> None:
    """Depth messages, trades, aggregated trades and tickers, their times and ids among it; and HISTORY has the same."""
    server = await harness.redis()
    engine = Engine(await server.connect(), source, seed=2)
    daemon = await harness.daemon("--source", source, *REBUILT, redis=server)
    trade = {"e": "trade", "t": 1, "m": False, "p": "1.50", "q": "2", "s": "A"}
    for name, payload in (
        (NAME, {"e": "depth", "a": [["1.50", "0"]], "b": []}),
        ("trade@A", trade),
        ("a@aggTrade", trade),
        ("ticker@A", {"e": "ticker", "c": "1.50", "s": "A"}),
    ):
        client, _ = await begin(harness, daemon, name)
        stream = "trade@A" if "rade" in name else name
        for _ in range(4):
            await engine.publish(stream, payload)
        live = [await client.next() for _ in range(4)]
        again, reply = await begin(harness, daemon, name, since=live[0]["offset"])
        assert reply["recovered"] == {name: True}
        assert [await again.next() for _ in range(3)] == live[1:]
        kept = await again.ask({"method": "HISTORY", "params": [name], "limit": 3, "id": 2})
        assert [each["data"] for each in kept["result"]] == [each["data"] for each in live[1:]]
        if source == "streams":
            other = await harness.daemon("--source", source, *REBUILT, redis=server)
            elsewhere, _ = await begin(harness, other, name, since=live[0]["offset"])
            assert [await elsewhere.next() for _ in range(3)] == live[1:]


@pytest_twisted.ensureDeferred
async def test_the_engines_bytes_are_there_for_who_wants_them(harness: Harness) -> None:
    """On `/` always, and with an option on the other paths."""
    server = await harness.redis()
    redis = await server.connect()
    payload = b'{"e":"depth","a":[["1.50","0"]],"b":[[1.4,2]]}'
    for options, path in ((REBUILT, "/"), (("--payloads", "engine"), "/stream"), (("--payloads", "engine"), "/ws")):
        daemon = await harness.daemon(*options, redis=server)
        client = await harness.client(daemon, path)
        await client.ask({"method": "SUBSCRIBE", "params": [NAME], "id": 1})
        await redis.command("PUBLISH", NAME, payload)
        assert payload in await client.next_bytes()
