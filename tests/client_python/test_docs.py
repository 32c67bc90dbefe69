"""What the client's README says is so."""

from __future__ import annotations

import asyncio
import re
from dataclasses import fields
from typing import get_args

import msgspec
from marketfeed_client import Times
from marketfeed_client.errors import ErrorKind
from marketfeed_client.events import Event
from websockets.asyncio.server import ServerConnection, serve

from tests.docs_runner import ROOT

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


def test_the_first_minute_prints_a_trade() -> None:
    """The program as it stands, but for the address, and a print that ends it."""
    (program,) = re.findall(r"```python\n(.*?)```", README, re.S)
    shown: list[tuple[str, ...]] = []

    async def answer(socket: ServerConnection) -> None:
        async for text in socket:
            request = msgspec.json.decode(text)
            reply = {"stream": "!reply", "data": {"e": "reply", "id": request["id"], "result": None}}
            await socket.send(msgspec.json.encode(reply).decode())
            if request["method"] == "SUBSCRIBE":
                await socket.send('{"stream":"trade@TATA_INR","data":{"e":"trade","p":"1000.50","q":"10"}}')

    def show(*words: str) -> None:
        shown.append(words)
        raise KeyboardInterrupt

    async def run() -> None:
        async with serve(answer, "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            text = program.replace("localhost:8080", f"127.0.0.1:{port}").replace("asyncio.run(main())", "")
            namespace = {"print": show}
            exec(text, namespace)
            try:
                await namespace["main"]()  # type: ignore[operator]
            except KeyboardInterrupt:
                pass

    asyncio.run(run())
    assert shown == [("1000.50", "10")]
