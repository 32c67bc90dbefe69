"""The JavaScript client with a real daemon and a real Redis, through faults: what it tells is what happened."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from tests.javascript.places import CLIENT, needs_node
from tests.system.forwarder import Forwarder
from tests.system.harness import DaemonProcess, Harness, Process, RedisServer, trade

pytestmark = needs_node

A = "trade@TATA_INR"
D = "depth@TATA_INR"
DRIVER = Path(__file__).parent / "driver.mjs"
_PATIENT = ("--linger", "600")  # a client that is away for long, on a busy machine, is still missed


def start(harness: Harness, port: int, *streams: str) -> Process:
    """The client, which follows these streams."""
    node = shutil.which("node")
    assert node is not None
    module = str(CLIENT / "src" / "book.js")
    return harness.spawn([node, str(DRIVER), module, f"ws://127.0.0.1:{port}/", *streams])


def told(client: Process, *names: str) -> list[Any]:
    """What it has said of these events, in order."""
    lines = [json.loads(line) for line in client.lines.all]
    return [line[1] for line in lines if line[0] in names]


def numbers(client: Process) -> list[int]:
    return [data["t"] for data in told(client, "data")]


async def behind_a_door(harness: Harness, server: RedisServer, *options: str) -> tuple[DaemonProcess, Forwarder]:
    """A daemon, and a way to it that can be cut."""
    path = str(harness.directory / "daemon")
    daemon = await harness.daemon("--port", f"unix:{path}", *_PATIENT, *options, redis=server, wait=False)
    await daemon.expect(r"redis: connected")
    return daemon, Forwarder(harness, path)


def depth(first: int, last: int, **more: object) -> bytes:
    return json.dumps({"e": "depth", "U": first, "u": last, "a": [], "b": [[f"{last}.00", "1"]], **more}).encode()


@pytest_twisted.ensureDeferred
async def test_a_way_that_is_cut_loses_nothing(harness: Harness) -> None:
    """Each trade once and in order, and how many were recovered."""
    server = await harness.redis()
    redis = await server.connect()
    _, door = await behind_a_door(harness, server)
    client = start(harness, door.port, A)

    async def is_followed() -> bool:
        return A in await redis.channels()

    await harness.eventually(is_followed)
    for number in range(0, 40, 10):
        await redis.publish(A, *(trade(number=each) for each in range(number, number + 5)))
        await harness.eventually(lambda last=number + 4: numbers(client)[-1:] == [last])  # type: ignore[misc]
        door.shut()
        await harness.eventually(lambda times=number // 10 + 1: len(told(client, "reconnecting")) >= times)  # type: ignore[misc]
        await redis.publish(A, *(trade(number=each) for each in range(number + 5, number + 10)))
        door.open()
        await harness.eventually(lambda count=number // 10 + 1: len(told(client, "recovered")) == count)  # type: ignore[misc]
    assert numbers(client) == list(range(40))
    assert told(client, "recovered") == [{"stream": A, "recovered": True, "count": 5}] * 4
    assert [data["past"] for data in told(client, "data")] == ([False] * 5 + [True] * 5) * 4
    assert told(client, "gap") == []
    client.process.closeStdin()
    assert await client.wait() == 0


@pytest_twisted.ensureDeferred
async def test_redis_is_killed(harness: Harness) -> None:
    """A gap is told when it opens and when it ends, and what cannot be recovered is told before the next trade."""
    server = await harness.redis()
    redis = await server.connect()
    daemon, door = await behind_a_door(harness, server)
    client = start(harness, door.port, A, "book:TATA_INR")

    async def is_followed() -> bool:
        return {A, D} <= await redis.channels()

    await harness.eventually(lambda: any(" subscribed to 2 streams" in line for line in daemon.lines))
    await redis.publish(A, trade(number=1))
    await redis.publish(D, depth(1, 1, snapshot=True), depth(2, 2))
    await harness.eventually(lambda: [book["u"] for book in told(client, "book")] == [1, 2])
    await server.kill()
    await harness.eventually(lambda: told(client, "book")[-1]["state"] == "stale")
    await server.start()
    redis = await server.connect()
    await harness.eventually(is_followed)
    await harness.eventually(lambda: len(told(client, "recovered")) == 2)

    number = 1

    async def goes_on() -> bool:
        nonlocal number
        number += 1
        await redis.publish(A, trade(number=number))
        return len(numbers(client)) > 1

    await harness.eventually(goes_on)
    assert {event["recovered"] for event in told(client, "recovered")} == {False}
    gaps = [(gap["streams"], gap["reason"], gap["to"] is None) for gap in told(client, "gap")]
    assert ([A], "not-recovered", False) in gaps
    assert {reason for _, reason, is_open in gaps if is_open} == {"source-down"}
    await redis.publish(D, depth(9, 9, snapshot=True))
    await harness.eventually(lambda: told(client, "book")[-1]["state"] == "live")
    assert told(client, "book")[-1]["bids"] == [["9.00", "1"]]
    assert told(client, "error", "reconnecting") == []


@pytest_twisted.ensureDeferred
async def test_a_daemon_is_restarted(harness: Harness) -> None:
    """With Redis streams nothing is lost and nothing comes twice; the hint of the one that goes is taken."""
    server = await harness.redis()
    redis = await server.connect()
    daemon, door = await behind_a_door(harness, server, "--source", "streams")
    client = start(harness, door.port, A)
    await harness.eventually(lambda: any(line.startswith('["state"') for line in client.lines.all))

    async def add(first: int, last: int) -> None:
        for number in range(first, last):
            await redis.command("XADD", A, "*", "d", trade(number=number))

    async def is_heard() -> bool:
        await add(0, 1)
        return bool(numbers(client))

    await harness.eventually(is_heard)
    for round_ in range(1, 3):
        since = len(client.lines.all)
        await add(100 * round_, 100 * round_ + 10)
        await harness.eventually(lambda last=100 * round_ + 9: numbers(client)[-1] == last)  # type: ignore[misc]
        assert await daemon.stop("TERM" if round_ == 1 else "KILL") in (0, -9)
        await client.expect(r'^\["reconnecting"', since)
        await add(100 * round_ + 10, 100 * round_ + 20)
        path = str(harness.directory / f"daemon{round_}")
        options = ("--source", "streams", "--port", f"unix:{path}")
        daemon = await harness.daemon(*options, redis=server, wait=False)
        await daemon.expect(r"redis: connected")
        door.path = path
        await harness.eventually(lambda last=100 * round_ + 19: numbers(client)[-1] == last)  # type: ignore[misc]
    after = [number for number in numbers(client) if number]
    assert after == [*range(100, 120), *range(200, 220)]
    assert told(client, "reconnecting")[0]["hinted"]
    assert told(client, "gap") == []
    assert all(event["recovered"] for event in told(client, "recovered"))


README = (CLIENT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```js\n(.+?)```", README, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=["first", "node", "book", "rest", "chart"])
@pytest_twisted.ensureDeferred
async def test_examples_do_what_they_are_shown_for(example: str, harness: Harness) -> None:
    """Each prints what is published, of its market. Where Node has no WebSocket it gets one before."""
    server = await harness.redis()
    redis = await server.connect()
    daemon = await harness.daemon(*(["--candles"] if "klines" in example else []), redis=server)
    before = await harness.client(daemon)
    await before.subscribe(A)
    await redis.publish(A, trade())
    await before.next()

    async def has_candles() -> bool:
        question = "GET /api/v3/klines?symbol=TATA_INR&interval=1m HTTP/1.1\nHost: localhost"
        return (await harness.http(daemon, question))[0] == 200

    if "klines" in example:
        await harness.eventually(has_candles)
    program = harness.directory / "program.mjs"
    text = example.replace("localhost:8080", f"127.0.0.1:{daemon.port}")
    for name, path in (
        ("marketfeed/book", "src/book.js"),
        ("marketfeed/rest", "src/rest.js"),
        ("marketfeed", "src/index.js"),
        ("ws", "node_modules/ws/wrapper.mjs"),
    ):
        text = text.replace(f"from '{name}'", f"from '{CLIENT / path}'")
    socket = f"import {{ WebSocket as Socket }} from '{CLIENT / 'node_modules/ws/wrapper.mjs'}'\n"
    socket += "globalThis.WebSocket ??= Socket\n"
    program.write_text(socket + text, encoding="utf-8")
    node = shutil.which("node")
    assert node is not None
    process = harness.spawn([node, str(program)])

    async def is_printed() -> bool:
        await redis.publish(A, trade())
        await redis.publish(D, depth(1, 1, snapshot=True))
        return any(
            re.search(r"TATA_INR (1000\.50 \d+|live \[ \[ '1\.00', '1' \] \] \[\])", line) for line in process.lines.all
        )

    await harness.eventually(is_printed)
    assert not any("Error" in line for line in process.lines.all)


def test_the_page_names_everything() -> None:
    """Options, events, states and kinds of errors have their rows, and no others are there."""
    rows = {heading: re.findall(r"^\| `(.+?)` +\|", part, re.MULTILINE) for heading, part in sections(README)}
    source = {path.name: path.read_text(encoding="utf-8") for path in (CLIENT / "src").glob("*.js")}
    events = re.search(r"EVENTS = .+?\[(.+?)\]\)", source["feed.js"], re.DOTALL)
    assert events is not None
    assert sorted(rows["Events"]) == sorted(re.findall(r"'(\w+)'", events[1]))
    options = re.findall(r"@property \{.+\} \[(\w+)\]", source["types.js"].partition("The options of a feed")[2])
    assert sorted(rows["Options"]) == sorted(options)
    kinds = re.search(r"@typedef \{(.+)\} ErrorKind", source["errors.js"])
    assert kinds is not None
    named = {kind for row in rows["Errors"] for kind in row.split("`, `")}
    assert named == set(re.findall(r"'([\w-]+)'", kinds[1]))
    states = re.search(r"@typedef \{(.+)\} State\b", source["types.js"])
    assert states is not None
    assert rows["States"] == re.findall(r"'(\w+)'", states[1])


def sections(text: str) -> list[tuple[str, str]]:
    """Headings, and what stands under each."""
    return re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)


def test_links_of_the_page_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)\s#]*)(?:#[^)]*)?\)", README):
        assert not link or (CLIENT / link).is_file(), link
