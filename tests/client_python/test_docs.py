"""What the client's README says is so."""

from __future__ import annotations

import asyncio
import re
import sys
from dataclasses import fields
from typing import Any, get_args
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest
import pytest_twisted
from marketfeed_client import Times
from marketfeed_client.errors import ErrorKind
from marketfeed_client.events import Event
from twisted.internet.defer import ensureDeferred
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from tests.client_python.loops import Loop
from tests.docs_runner import ROOT
from tests.system.harness import Harness, trade

README = (ROOT / "clients" / "python" / "README.md").read_text(encoding="utf-8")


def section(heading: str) -> str:
    return README.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def test_every_event_and_error_is_listed() -> None:
    names = {(event.__name__, str(event.__struct_config__.tag)) for event in get_args(Event)}
    assert set(re.findall(r"^\| `(\w+)` \| `(\w+)` \|", section("Events"), re.M)) == names
    first = [line.split("|")[1] for line in section("Errors").splitlines() if line.startswith("| `")]
    assert {kind for cell in first for kind in re.findall(r"`([\w-]+)`", cell)} == set(get_args(ErrorKind))


def test_every_time_is_listed_with_its_default() -> None:
    listed = dict(re.findall(r"`(\w+_\w+)` ([\d.]+)", section("Options of Client")))
    assert {name: float(value) for name, value in listed.items()} == {each.name: each.default for each in fields(Times)}


def programs(heading: str) -> list[str]:
    found: list[str] = re.findall(r"```python\n(.*?)```", section(heading), re.S)
    return found


def program(heading: str, port: int, call: str, place: int = 0) -> str:
    """A program of a section as it stands, but for the address, and without the `call` that runs it."""
    found = programs(heading)[place]
    assert found.endswith(f"\n{call}\n")
    assert "localhost:8080" in found
    return found.replace("localhost:8080", f"127.0.0.1:{port}").replace(f"\n{call}\n", "")


async def answer(socket: ServerConnection) -> None:
    """A daemon, as far as one trade needs it."""
    async for text in socket:
        request = msgspec.json.decode(text)
        reply = {"stream": "!reply", "data": {"e": "reply", "id": request["id"], "result": None}}
        await socket.send(msgspec.json.encode(reply).decode())
        if request["method"] == "SUBSCRIBE":
            await socket.send('{"stream":"trade@TATA_INR","data":{"e":"trade","p":"1000.50","q":"10"}}')


class Shown:
    """In place of `print`: what was printed; the first time ends the program."""

    def __init__(self) -> None:
        self.words: list[tuple[Any, ...]] = []

    def __call__(self, *words: Any) -> None:
        self.words.append(words)
        raise KeyError("enough")


def test_the_first_minute_prints_a_trade() -> None:
    shown = Shown()

    async def run() -> None:
        async with serve(answer, "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            namespace: dict[str, Any] = {"print": shown}
            exec(program("The first minute", port, "asyncio.run(main())"), namespace)
            with pytest.raises(KeyError, match="enough"):
                await namespace["main"]()

    asyncio.run(run())
    assert shown.words == [("1000.50", "10")]


@pytest_twisted.ensureDeferred
async def test_the_program_for_twisted_prints_a_trade(harness: Harness) -> None:
    redis = await harness.redis()
    daemon = await harness.daemon("--source", "streams", redis=redis)
    shown = Shown()
    namespace: dict[str, Any] = {"print": shown}
    exec(program("Twisted", daemon.port, "react(main)"), namespace)
    running = ensureDeferred(namespace["main"](harness.reactor))
    running.addErrback(lambda failure: failure.trap(KeyError) and None)
    engine = await redis.connect()

    async def is_shown() -> bool:
        await engine.command("XADD", "trade@TATA_INR", "*", "d", trade())
        return bool(shown.words)

    await harness.eventually(is_shown)
    await running
    assert shown.words == [("1000.50", "10")]


@pytest_twisted.ensureDeferred
async def test_the_program_with_tables_prints_candles(harness: Harness, loop: Loop) -> None:
    pytest.importorskip("pandas")
    redis = await harness.redis()
    daemon = await harness.daemon("--source", "streams", redis=redis)
    engine = await redis.connect()
    for number, price in enumerate(("1000.50", "1002.25", "999.75"), 1):
        await engine.command("XADD", "trade@TATA_INR", f"60000-{number}", "d", trade(number=number, p=price))
    shown = Shown()
    namespace: dict[str, Any] = {"print": shown}
    exec(program("Tables", daemon.port, "asyncio.run(main())"), namespace)
    with pytest.raises(KeyError, match="enough"):
        await loop.run(namespace["main"]())
    ((table,),) = shown.words
    assert table.to_dict("records") == [{"open": 1000.5, "high": 1002.25, "low": 999.75, "close": 999.75}]


class Said:
    """In place of `print`: what was printed; `until` waits for a line."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._more = asyncio.Event()

    def __call__(self, *words: Any) -> None:
        self.lines.append(" ".join(map(str, words)))
        self._more.set()

    async def until(self, line: str) -> None:
        while line not in self.lines:
            self._more.clear()
            await self._more.wait()


async def in_the_background(code: str, said: Said) -> asyncio.Task[None]:
    namespace: dict[str, Any] = {"print": said}
    exec(code, namespace)
    return asyncio.ensure_future(namespace["main"]())


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


@pytest_twisted.ensureDeferred
async def test_the_program_with_a_book_says_when_it_is_stale(harness: Harness, loop: Loop) -> None:
    redis = await harness.redis()
    daemon = await harness.daemon(redis=redis)
    book = b'{"e":"depth","u":157,"b":[["1000.00","5"]],"a":[["1001.00","2"]]}'
    await (await redis.connect()).command("SET", "snapshot:depth@TATA_INR", book)
    said = Said()
    task = await loop.run(in_the_background(program("The book", daemon.port, "asyncio.run(main())"), said))
    await loop.run(said.until("best bid and ask: [('1000.00', '5')] [('1001.00', '2')]"))
    await daemon.stop("KILL")
    await loop.run(said.until("no prices to trade at: stale"))
    await loop.run(ended(task))


TRADES = [{"a": number, "p": f"{number}.50", "q": "1", "T": 1, "m": False} for number in range(1, 5)]


def answer_request(_: ServerConnection, request: Request) -> Response | None:
    """What REST has of the trades, of which the connection has left out two."""
    if not request.path.startswith("/api/v3/aggTrades"):
        return None
    first = int(dict(parse_qsl(urlsplit(request.path).query))["fromId"])
    return Response(200, "OK", Headers(), msgspec.json.encode([row for row in TRADES if row["a"] >= first]))


async def answer_with_a_hole(socket: ServerConnection) -> None:
    async for text in socket:
        request = msgspec.json.decode(text)
        reply = {"stream": "!reply", "data": {"e": "reply", "id": request["id"], "result": None}}
        await socket.send(msgspec.json.encode(reply).decode())
        if request["method"] == "SUBSCRIBE":
            gap = {"e": "gap", "streams": ["trade@TATA_INR"], "reason": "sequence", "from": 1, "to": 2}
            trades = [{"stream": "trade@TATA_INR", "data": {"t": number, "p": f"{number}.50"}} for number in (1, 4)]
            for message in (trades[0], {"stream": "!gap", "data": gap}, trades[1]):
                await socket.send(msgspec.json.encode(message).decode())


def test_the_program_that_fills_a_gap_has_every_trade() -> None:
    said = Said()

    async def run() -> None:
        async with serve(answer_with_a_hole, "127.0.0.1", 0, process_request=answer_request) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            task = await in_the_background(program("What is missing", port, "asyncio.run(main())"), said)
            await said.until("trade 4 4.50")
            await ended(task)

    asyncio.run(run())
    filled = ["filled 2 2.50", "filled 3 3.50"]
    assert said.lines == ["trade 1 1.50", "something may be missing: sequence", *filled, "trade 4 4.50"]


@pytest_twisted.ensureDeferred
async def test_the_program_with_pages_of_history_has_them_in_order(harness: Harness, loop: Loop) -> None:
    redis = await harness.redis()
    daemon = await harness.daemon("--source", "streams", redis=redis)
    engine = await redis.connect()
    for number in range(1, 6):
        await engine.command("XADD", "trade@TATA_INR", f"60000-{number}", "d", trade(number=number))
    said = Said()
    task = await loop.run(in_the_background(program("What is missing", daemon.port, "asyncio.run(main())", 1), said))
    await loop.run(said.until("[2, 3, 4, 5]"))
    await loop.run(ended(task))


@pytest_twisted.ensureDeferred
async def test_the_program_for_scripts_draws_candles(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas")
    pytest.importorskip("matplotlib")
    redis = await harness.redis()
    daemon = await harness.daemon("--source", "streams", "--candles", redis=redis)
    await (await redis.connect()).command("XADD", "trade@TATA_INR", "*", "d", trade())
    script = harness.directory / "program.py"
    (code,) = programs("Without an event loop")
    script.write_text(code.replace("localhost:8080", f"127.0.0.1:{daemon.port}"), encoding="utf-8")
    monkeypatch.chdir(harness.directory)
    said: list[str] = []

    async def is_drawn() -> bool:
        process = harness.spawn([sys.executable, str(script)], {"MPLBACKEND": "Agg"})
        status = await process.wait()
        said[:] = process.lines.all
        return status == 0

    await harness.eventually(is_drawn)  # once there is a candle service, and it has had the trade
    assert "Name: close, dtype: float64" in said
    assert (harness.directory / "TATA_INR.png").read_bytes()[:4] == b"\x89PNG"


def test_every_program_is_run() -> None:
    """Those above know each of them by its section."""
    headings = re.findall(r"^## (.+)$", README, re.M)
    known = {"The first minute": 1, "The book": 1, "What is missing": 2, "Without an event loop": 1, "Tables": 1}
    found = {heading: len(programs(heading)) for heading in headings}
    assert {heading: count for heading, count in found.items() if count} == {**known, "Twisted": 1}
