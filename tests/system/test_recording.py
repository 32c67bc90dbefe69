"""`marketfeed record` and `marketfeed replay` with a real server: nothing lost, nothing changed, whatever is killed."""

from __future__ import annotations

import gzip
import os
import select
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import hiredis
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from marketfeed.commands.recording.format import Begin, End, Gap, Publication, Record, read_line, read_records
from marketfeed.commands.recording.gzip_members import CutOff
from tests.docs_runner import ROOT
from tests.system.harness import Harness, Process, Redis, RedisServer, trade

COMMAND = [sys.executable, "-m", "marketfeed"]


class Listener(Protocol):
    """Keeps what is published on all channels, in order."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader()
        self.heard: list[tuple[bytes, bytes]] = []
        self.subscribed: Deferred[None] = Deferred()
        self.lost: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"PSUBSCRIBE *\r\n")

    def dataReceived(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            if reply[0] == b"pmessage":
                self.heard.append((reply[2], reply[3]))
            else:
                self.subscribed.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)


async def listen(harness: Harness, server: RedisServer) -> Listener:
    listener = Listener()
    await connectProtocol(UNIXClientEndpoint(harness.reactor, server.path), listener)

    def hang_up() -> Deferred[None]:
        assert listener.transport is not None
        if not listener.lost.called:
            listener.transport.abortConnection()  # type: ignore[attr-defined]
        return listener.lost

    harness.on_close(hang_up)
    await listener.subscribed
    return listener


def record(harness: Harness, server: RedisServer, *arguments: str) -> Process:
    return harness.spawn([*COMMAND, "record", "--redis-url", server.url, *arguments])


def read(path: Path) -> list[Record]:
    """What a file has; it may be cut off."""
    records = []
    try:
        for _, each in read_records([path.read_bytes()]):
            records.append(each)
    except CutOff:
        pass
    return records


def pairs(records: list[Record]) -> list[tuple[bytes, bytes]]:
    return [(each.stream, each.data) for each in records if isinstance(each, Publication)]


def is_subscribed(engine: Redis, count: int = 1) -> Callable[[], Awaitable[bool]]:
    async def ask() -> bool:
        return bool(await engine.command("PUBSUB", "NUMPAT") == count)

    return ask


async def is_heard(engine: Redis, channel: str) -> bool:
    return channel in await engine.channels()


PAYLOADS = [b'{"p":"1.50"}', b"", b"\xff\x00\r\n", "é\u2028".encode(), b"x" * 100_000]


@pytest_twisted.ensureDeferred
async def test_a_replay_is_what_was_recorded(harness: Harness) -> None:
    """Byte for byte and in order, over several files and streams, at any pace; to names and patterns that overlap."""
    server = await harness.redis("--client-output-buffer-limit", "pubsub 0 0 0")  # no listener is too slow
    engine = await server.connect()
    original = await listen(harness, server)
    patterns = ("--output", "files/%H%M%S-%f.gz", "--rotate-seconds", "1", "depth@*", "trade@A", "*@A", "orders@bob")
    recorder = record(harness, server, *patterns)
    await harness.eventually(lambda: is_heard(engine, "orders@bob"))
    directory = harness.directory / "files"

    published = 0

    async def publish() -> bool:
        nonlocal published
        for payload in PAYLOADS:
            for stream in ("depth@A", "trade@A", "orders@bob", "depth@B"):
                await engine.publish(stream, payload)
                published += 1
        return len(list(directory.iterdir())) >= 3

    await harness.eventually(publish)
    await harness.eventually(lambda: sum(len(pairs(read(path))) for path in directory.iterdir()) == published)
    await harness.eventually(lambda: len(original.heard) == published)
    recorder.signal("TERM")
    assert await recorder.wait() == 0, recorder.lines.all
    assert recorder.lines.all[-1].startswith(f"marketfeed record: {published} publications of ")
    files = [read(path) for path in sorted(directory.iterdir())]
    for number, file in enumerate(files, 1):
        times = [each.time for each in file]
        assert times == sorted(times)
        begin, *_, end = file
        assert isinstance(begin, Begin)
        assert begin.number == number
        assert end == End(end.time, len(file) - 2)
    assert [pair for file in files for pair in pairs(file)] == original.heard
    names = [str(path) for path in sorted(directory.iterdir())]
    for flags in (["--fast"], ["--speed", "100"]):
        echo = await listen(harness, server)
        player = harness.spawn([*COMMAND, "replay", "--redis-url", server.url, *flags, *names])
        assert await player.wait() == 0, player.lines.all
        await harness.eventually(lambda heard=echo.heard: len(heard) >= published)
        assert echo.heard == original.heard[:published]


@pytest_twisted.ensureDeferred
async def test_a_recorder_that_is_killed_leaves_what_it_flushed(harness: Harness) -> None:
    """Under load: the file ends behind a whole publication, is the beginning of what was published, and is whole."""
    server = await harness.redis()
    engine = await server.connect()
    recorder = record(harness, server, "--output", "market.jsonl.gz", "*")
    await harness.eventually(is_subscribed(engine))
    path = harness.directory / "market.jsonl.gz"
    published: list[tuple[bytes, bytes]] = []

    async def publish() -> bool:
        for _ in range(500):
            payload = trade(number=len(published))
            published.append((b"trade@TATA_INR", payload))
            await engine.publish("trade@TATA_INR", payload)
        return path.stat().st_size > 10_000 and len(published) % 1000 == 0

    await harness.eventually(publish)
    flushed = path.stat().st_size
    recorder.signal("KILL")
    await recorder.wait()
    assert path.stat().st_size >= flushed
    kept = pairs(read(path))
    assert kept
    assert kept == published[: len(kept)]
    lines = gzip.decompress(path.read_bytes())
    assert lines.count(b"\n") == len(kept) + 1
    assert unpacked(path) == (0, lines, b"")
    echo = await listen(harness, server)
    player = harness.spawn([*COMMAND, "replay", "--redis-url", server.url, "--fast", str(path)])
    assert await player.wait() == 0
    assert "market.jsonl.gz: its last line is missing: the recording was cut off" in player.lines.all[0]
    await harness.eventually(lambda: len(echo.heard) >= len(kept))
    assert echo.heard == kept


@pytest_twisted.ensureDeferred
async def test_a_server_that_goes_away_is_a_gap(harness: Harness) -> None:
    """It is recorded from when to when, and what comes afterwards is there again."""
    server = await harness.redis()
    engine = await server.connect()
    recorder = record(harness, server, "--output", "market.jsonl", "*")
    await harness.eventually(is_subscribed(engine))
    await engine.publish("trade@A", b"1")
    path = harness.directory / "market.jsonl"
    await harness.eventually(lambda: len(pairs(read(path))) == 1)
    await server.kill()
    await recorder.expect("redis: no connection")
    await server.start()
    engine = await server.connect()
    await harness.eventually(is_subscribed(engine))
    await engine.publish("trade@A", b"2")
    await harness.eventually(lambda: len(pairs(read(path))) == 2)
    recorder.signal("INT")
    assert await recorder.wait() == 0
    begin, one, gap, two, end = read(path)
    assert isinstance(gap, Gap)
    assert begin.time <= gap.since <= gap.until == gap.time <= two.time <= end.time
    assert begin.time <= one.time <= gap.until, "what came behind the last answer lies in the gap"
    assert ", 1 gap; " in recorder.lines.all[-1]


@pytest_twisted.ensureDeferred
async def test_standard_output_may_end_at_any_time(harness: Harness) -> None:
    """A reader that has enough ends the recording well; a disk that is full does not."""
    server = await harness.redis()
    engine = await server.connect()
    full = os.open("/dev/full", os.O_WRONLY)
    filling = to_a_file(harness, server, full, "--gzip", "trade@*")
    os.close(full)
    reading, writing = os.pipe()
    read_by_us = to_a_file(harness, server, writing, "--no-gzip", "*")
    os.close(writing)
    await harness.eventually(is_subscribed(engine, 2))
    await engine.publish("trade@A", b"1")
    await harness.eventually(lambda: select.select([reading], [], [], 0)[0])
    assert read_line(os.read(reading, 10_000).splitlines()[0]).time
    os.close(reading)

    async def publish() -> bool:
        await engine.publish("trade@A", b"1")
        return filling.poll() is not None and read_by_us.poll() is not None

    await harness.eventually(publish)
    assert (filling.returncode, read_by_us.returncode) == (1, 0)
    assert notes(filling)[-1] == "marketfeed record: standard output: No space left on device"
    assert "no gaps" in notes(read_by_us)[-1]


def to_a_file(harness: Harness, server: RedisServer, descriptor: int, *arguments: str) -> subprocess.Popen[str]:
    """A recorder whose standard output is that."""
    command = [*COMMAND, "record", "--redis-url", server.url, *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdout=descriptor, stderr=subprocess.PIPE, text=True)

    def end() -> None:
        process.kill()
        process.wait()

    harness.on_close(end)
    return process


def notes(process: subprocess.Popen[str]) -> list[str]:
    """What it has said, now that it has ended."""
    assert process.stderr is not None
    with process.stderr as stderr:
        return stderr.read().splitlines()


def unpacked(path: Path) -> tuple[int, bytes, bytes]:
    """What `zcat` makes of a file: its status, its output, its complaints."""
    done = subprocess.run(["gzip", "-dc", str(path)], capture_output=True, check=False)
    return done.returncode, done.stdout, done.stderr
