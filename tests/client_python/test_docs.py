"""What the client's README says is so."""

from __future__ import annotations

import asyncio
import re
from dataclasses import fields
from typing import Any, get_args

import msgspec
import pytest
import pytest_twisted
from marketfeed_client import Times
from marketfeed_client.errors import ErrorKind
from marketfeed_client.events import Event
from twisted.internet.defer import ensureDeferred
from websockets.asyncio.server import ServerConnection, serve

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


def program(heading: str, port: int, call: str) -> str:
    """The program of a section as it stands, but for the address, and without the `call` that runs it."""
    (found,) = re.findall(r"```python\n(.*?)```", section(heading), re.S)
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
