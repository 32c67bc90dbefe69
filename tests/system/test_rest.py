"""Market data in plain HTTP from the real daemon: connections that go on, budgets, markets, past trades."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest
import pytest_twisted

from tests.by_hand import handshake, say
from tests.certificates import Authority
from tests.system.harness import DaemonProcess, Harness, RawConnection, trade
from tests.system.workers import make_crew

DEPTH = b'{"e":"depth","s":"TATA_INR","U":1,"u":7,"b":[["10.00","5"]],"a":[["10.05","2"]],"snapshot":true}'


class Talk:
    """One connection on which plain requests are made, one after the other."""

    def __init__(self, raw: RawConnection) -> None:
        self.raw = raw
        self._read = 0

    @classmethod
    async def begin(cls, harness: Harness, daemon: DaemonProcess) -> Talk:
        return cls(await harness.raw(daemon))

    async def ask(self, path: str, *headers: str) -> tuple[int, Any]:
        """Status, and body."""
        self.raw.send("\r\n".join((f"GET {path} HTTP/1.1", "Host: localhost", *headers, "", "")).encode())
        return await self.answer()

    async def answer(self) -> tuple[int, Any]:
        """The next one."""
        start = self._read
        data = await self.raw.until(lambda data: _end_of_answer(data[start:]) is not None)
        end = _end_of_answer(data[start:])
        assert end is not None
        self._read += end
        head, _, body = data[start : start + end].partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(body)


def _end_of_answer(data: bytes) -> int | None:
    """Where the first answer ends; None: not all of it is there."""
    head, end, body = data.partition(b"\r\n\r\n")
    if not end:
        return None
    fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    length = int(fields["Content-Length"])
    return len(head) + 4 + length if len(body) >= length else None


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("source", ["pubsub", "streams"])
async def test_all_on_one_connection(harness: Harness, source: str) -> None:
    """And a WebSocket at its end; whatever the source is."""
    redis = await harness.redis()
    engine = await redis.connect()
    daemon = await harness.daemon("--source", source, redis=redis)

    async def publish(stream: str, payload: bytes) -> None:
        if source == "streams":
            await engine.command("XADD", stream, "*", "d", payload)
        else:
            await engine.publish(stream, payload)

    talk = await Talk.begin(harness, daemon)
    assert await talk.ask("/api/v3/ping") == (200, {})
    assert (await talk.ask("/api/v3/exchangeInfo"))[1]["symbols"] == []
    client = await harness.client(daemon, "/stream")
    assert await client.subscribe("trade@TATA_INR", "depth@TATA_INR") == {"result": None, "id": 1}
    await publish("depth@TATA_INR", DEPTH)
    for number in range(1, 6):
        await publish("trade@TATA_INR", trade(number=number, T=1_700_000_000_000 + number))
    for _ in range(6):
        await client.next()
    assert await talk.ask("/api/v3/depth?symbol=TATA_INR&limit=99999") == (
        200,
        {"lastUpdateId": 7, "bids": [["10.00", "5"]], "asks": [["10.05", "2"]]},
    )
    status, trades = await talk.ask("/api/v3/trades?symbol=TATA_INR&limit=2")
    assert (status, [each["id"] for each in trades]) == (200, [4, 5])
    status, trades = await talk.ask("/api/v3/aggTrades?symbol=TATA_INR&fromId=2&limit=3")
    assert (status, [each["a"] for each in trades]) == (200, [2, 3, 4])
    assert await talk.ask("/api/v3/ticker/bookTicker") == (
        200,
        [{"symbol": "TATA_INR", "bidPrice": "10.00", "bidQty": "5", "askPrice": "10.05", "askQty": "2"}],
    )
    await harness.eventually(lambda: _is_listed(talk, "TATA_INR"))
    assert (await talk.ask("/api/v3/aggTrades?symbol=TATA_INR&limit=no"))[0] == 400
    talk.raw.send(handshake("/ws") + say({"method": "PING", "id": 1}))
    await talk.raw.until_ends(b'{"result":"PONG","id":1}')
    assert await daemon.stop("TERM") == 0


async def _is_listed(talk: Talk, market: str) -> bool:
    status, info = await talk.ask("/api/v3/exchangeInfo")
    return status == 200 and market in [each["symbol"] for each in info["symbols"]]


@pytest_twisted.ensureDeferred
async def test_what_one_instance_hears_the_other_lists(harness: Harness) -> None:
    """By what they share in Redis, behind the prefix. Nobody makes up a market by subscribing to it."""
    redis = await harness.redis()
    engine = await redis.connect()
    hears, other = [await harness.daemon("--channel-prefix", "md:", redis=redis) for _ in range(2)]
    client = await harness.client(hears, "/stream?streams=trade@TATA_INR/trade@NO_INR")
    for stream in ("trade@TATA_INR", "trade@NO_INR"):  # nothing comes before all are confirmed
        await harness.eventually(lambda name=f"md:{stream}": _has(engine, name))
    await engine.publish("md:trade@TATA_INR", trade())
    await client.next()
    talk = await Talk.begin(harness, other)
    await harness.eventually(lambda: _is_listed(talk, "TATA_INR"))
    assert not await _is_listed(talk, "NO_INR")
    assert await engine.command("ZRANGE", "md:markets", 0, -1) == [b"TATA_INR"]


async def _has(engine: Any, channel: str) -> bool:
    return channel in await engine.channels()


@pytest_twisted.ensureDeferred
async def test_declared_markets_and_a_reload(harness: Harness) -> None:
    """An alias is good in streams and in requests, and so is another one after a reload."""
    redis = await harness.redis()
    engine = await redis.connect()
    config = harness.directory / "marketfeed.toml"
    config.write_text('[markets.TATA_INR]\nprice_step = "0.05"\nalias = "TATAINR"\n')
    daemon = await harness.daemon("--config", str(config), redis=redis)
    client = await harness.client(daemon, "/stream?streams=tatainr@depth")
    await harness.eventually(lambda: _has(engine, "depth@TATA_INR"))
    await engine.publish("depth@TATA_INR", DEPTH)
    assert (await client.next())["stream"] == "tatainr@depth"
    talk = await Talk.begin(harness, daemon)
    assert (await talk.ask("/api/v3/depth?symbol=TATAINR"))[0] == 200
    assert await talk.ask("/api/v3/depth?symbol=TATA") == (
        400,
        {"code": -1121, "msg": "Invalid symbol. The markets are listed at /api/v3/exchangeInfo."},
    )
    config.write_text('[markets.TATA_INR]\nalias = "TATA"\n[markets.B_INR]\nstatus = "HALT"\n')
    daemon.process.signal("HUP")
    await daemon.expect(r"reloaded: markets")
    assert (await talk.ask("/api/v3/depth?symbol=TATA"))[0] == 200
    assert (await talk.ask("/api/v3/depth?symbol=TATAINR"))[0] == 400
    symbols = (await talk.ask("/api/v3/exchangeInfo"))[1]["symbols"]
    assert [(each["symbol"], each["status"]) for each in symbols] == [("B_INR", "HALT"), ("TATA_INR", "TRADING")]
    config.write_text("[markets.TATA_INR]\nprice_step = 1\n")
    daemon.process.signal("HUP")
    await daemon.expect(r"nothing is reloaded: markets.TATA_INR in .*: price_step: expected a decimal")
    assert (await talk.ask("/api/v3/depth?symbol=TATA"))[0] == 200


@pytest_twisted.ensureDeferred
async def test_the_budget_is_its_own(harness: Harness) -> None:
    """Who has used it up is told when to ask again, on the same connection, and may connect; a reload changes it."""
    redis = await harness.redis()
    config = harness.directory / "marketfeed.toml"
    config.write_text("rest_rate = 2\nconnect_rate = 1\n")
    daemon = await harness.daemon("--config", str(config), redis=redis)
    talk = await Talk.begin(harness, daemon)
    assert [(await talk.ask("/api/v3/ping"))[0] for _ in range(4)] == [200, 200, 429, 429]
    assert (await talk.ask("/api/v3/time"))[1]["code"] == -1003
    await harness.client(daemon)
    config.write_text("rest_rate = 3\nconnect_rate = 1\n")
    daemon.process.signal("HUP")
    await daemon.expect(r"reloaded: rest_rate")
    assert [(await talk.ask("/api/v3/ping"))[0] for _ in range(4)] == [200, 200, 200, 429]


@pytest_twisted.ensureDeferred
async def test_connections_that_are_idle_are_let_go_at_the_end(harness: Harness) -> None:
    """At once, as the drain begins: who keeps one goes elsewhere with the next request."""
    redis = await harness.redis()
    daemon = await harness.daemon("--drain-seconds", "600", redis=redis)
    talk = await Talk.begin(harness, daemon)
    assert await talk.ask("/api/v3/ping") == (200, {})
    raw = await harness.raw(daemon)
    raw.send(handshake())
    await raw.until(lambda data: b"101" in data)
    daemon.process.signal("TERM")
    await talk.raw.until_closed()
    daemon.process.signal("TERM")
    assert await daemon.process.wait() == 0


@pytest_twisted.ensureDeferred
async def test_over_tls(harness: Harness) -> None:
    """One request after the other there, too, also behind an answer that the socket does not take at once."""
    authority = Authority()
    certificate, key = authority.issue("localhost", "127.0.0.1").write(harness.directory)
    redis = await harness.redis()
    engine = await redis.connect()
    levels = ",".join(f'["{number}.00000001","1"]' for number in range(1, 5001))
    await engine.command("SET", "snapshot:depth@B", f'{{"e":"depth","u":7,"b":[{levels}],"a":[{levels}]}}')
    port = f"ssl:0:privateKey={key}:certKey={certificate}:interface=127.0.0.1"
    daemon = await harness.daemon("--port", port, redis=redis)
    talk = Talk(await harness.raw(daemon, tls=authority.client_options("localhost")))
    for _ in range(3):
        status, book = await talk.ask("/api/v3/depth?symbol=B&limit=5000")
        assert (status, len(book["bids"]), len(book["asks"])) == (200, 5000, 5000)
    assert await talk.ask("/api/v3/ping") == (200, {})


@pytest_twisted.ensureDeferred
async def test_a_roll_refuses_no_request(harness: Harness) -> None:
    """Who keeps a connection to a worker that is replaced finds it closed, and asks the new one."""
    redis = await harness.redis()
    crew = await make_crew(harness, redis=redis)
    talks = [await Talk.begin(harness, crew.daemon) for _ in range(20)]
    for talk in talks:
        assert await talk.ask("/api/v3/ping") == (200, {})
    before = await crew.pids()
    os.kill(crew.daemon.process.pid, signal.SIGUSR2)
    for talk in talks:
        await talk.raw.until_closed()
        assert talk.raw.data.count(b"HTTP/1.1 ") == 1
    await crew.until_all(2, without=tuple(before.values()))
    talk = await Talk.begin(harness, crew.daemon)
    assert await talk.ask("/api/v3/ping") == (200, {})
