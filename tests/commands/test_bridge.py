"""`marketfeed bridge`: what becomes of what is heard, and the command with a real server."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

import pytest
import pytest_twisted

from marketfeed.commands import bridge, main
from marketfeed.commands.bridge import Bridge
from marketfeed.model.selection import parse_selection
from marketfeed.model.streams import StreamKinds
from marketfeed.redis.listener import ListenerSink
from tests.conftest import LogCapture
from tests.system.harness import Harness, Process, Redis, RedisServer


class FakePublisher:
    """Keeps the batches."""

    ready = True

    def __init__(self) -> None:
        self.batches: list[list[tuple[str, bytes]]] = []

    def publish(self, batch: list[tuple[str, bytes]]) -> None:
        self.batches.append(batch)


def bridged(*patterns: str, prefix: str = "") -> tuple[Bridge, FakePublisher, list[str]]:
    publisher = FakePublisher()
    ended: list[str] = []
    selection = parse_selection(patterns, StreamKinds())
    return Bridge(selection, prefix, publisher, lambda: ended.append("ended")), publisher, ended


if TYPE_CHECKING:
    _sink: ListenerSink = bridged()[0]


def test_a_read_is_a_batch_and_nothing_is_copied_twice() -> None:
    """However many subscriptions cover it."""
    copier, publisher, _ = bridged("trade@*", "*@A", prefix="p:")
    copier.arrived()
    copier.publication(b"p:trade@*", b"p:trade@A", b"1")
    copier.publication(b"p:*@A", b"p:trade@A", b"1")
    copier.publication(b"p:*@A", b"p:depth@A", b"2")
    copier.flush()
    copier.flush()
    assert publisher.batches == [[("p:trade@A", b"1"), ("p:depth@A", b"2")]]
    assert copier.heard == 2


def test_channels_that_are_no_streams(logged: LogCapture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Are named once, and skipped."""
    monkeypatch.setattr(bridge, "_MOST_NAMES", 3)
    copier, publisher, _ = bridged("*")
    for channel in (b"news", b"\xff@A", b"a@*", b"news", b"trade@A"):
        copier.publication(b"*", channel, b"1")
    copier.flush()
    assert publisher.batches == [[("trade@A", b"1")]]
    assert sum("is skipped" in text for text in logged.formats()) == 3
    assert (copier.heard, copier.skipped) == (1, 4)


def test_losses_and_refusals(logged: LogCapture) -> None:
    """A refusal ends it at the beginning, and is tried again later; a loss is said once."""
    copier, _, ended = bridged("trade@*")
    copier.lost(math.inf)
    assert copier.refused(b"trade@*", "NOPERM no") is False
    assert ended == ["ended"]
    assert copier.fault == "Redis refuses the subscription to trade@*: NOPERM no"
    copier, _, ended = bridged("trade@*")
    assert (copier.is_listening, copier.was_listening) == (False, False)
    copier.complete()
    assert (copier.is_listening, copier.was_listening) == (True, True)
    assert copier.refused(b"trade@*", "NOPERM no") is True
    copier.lost(math.inf)
    copier.lost(math.inf)
    assert (copier.is_listening, copier.was_listening) == (False, True)
    assert ended == []
    assert sum("from now on is lost" in text for text in logged.formats()) == 1


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["trade"], "'trade' cannot be used; expected a stream such as trade@TATA_INR, or a pattern"),
        (["*", "--maxlen=x"], "--maxlen: 'x' cannot be used; expected a whole number of entries, or 0 for all"),
        (["*", "--redis-url=rediss://h", "--redis-ca=no.pem"], "--redis-ca: no.pem: No such file"),
        (["*", "--redis-url=rediss://h", "--redis-key=no.key"], "--redis-key: expected together with --redis-certif"),
        (
            ["*", "--redis-url=rediss://h", "--redis-certificate=no.pem", "--redis-key=no.key"],
            "--redis-key: no.key: No such file",
        ),
    ],
)
def test_a_bad_value_is_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], line: str) -> None:
    """It names the option and what would be accepted."""
    assert main(["bridge", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"marketfeed bridge: {line}")


def start(harness: Harness, server: RedisServer, *arguments: str) -> Process:
    return harness.spawn([sys.executable, "-m", "marketfeed", "bridge", "--redis-url", server.url, *arguments])


async def entries(redis: Redis, stream: str) -> list[bytes]:
    return [fields[1] for _, fields in await redis.command("XRANGE", stream, "-", "+")]


@pytest_twisted.ensureDeferred
async def test_it_copies_until_it_is_told_to_end(harness: Harness) -> None:
    """Byte for byte and in order; what was heard before the end is in the stream."""
    server = await harness.redis()
    redis = await server.connect()
    process = start(harness, server, "trade@*", "--maxlen", "0")
    await process.expect("every channel is listened to")
    await process.expect("appender: connected")
    payloads = [b"\xff\x00%d" % number for number in range(3000)]
    await redis.publish("trade@A", *payloads)
    process.signal("TERM")
    assert await process.wait() == 0
    got = await entries(redis, "trade@A")
    assert got == payloads[: len(got)]
    assert process.lines.all[-1] == (
        f"marketfeed bridge: {len(got)} publications heard, {len(got)} of them added to streams, 0 lost"
    )


@pytest_twisted.ensureDeferred
async def test_a_server_that_goes_away(harness: Harness) -> None:
    """The loss is said, and copying goes on afterwards."""
    server = await harness.redis()
    process = start(harness, server, "trade@*")
    await process.expect("every channel is listened to")
    await server.kill()
    await process.expect("what is published from now on is lost")
    since = len(process.lines.all)
    await server.start()
    await process.expect("every channel is listened to", since)
    await process.expect("appender: connected", since)
    redis = await server.connect()
    await redis.publish("trade@A", b"1")

    async def is_there() -> bool:
        return await entries(redis, "trade@A") == [b"1"]

    await harness.eventually(is_there)
    process.signal("INT")
    assert await process.wait() == 0


@pytest_twisted.ensureDeferred
async def test_a_server_that_is_a_replica_for_a_while(harness: Harness) -> None:
    """What is published there meanwhile is heard, and is added once it takes entries again."""
    server = await harness.redis()
    redis = await server.connect()
    process = start(harness, server, "trade@*")
    await process.expect("every channel is listened to")
    await redis.publish("trade@A", b"1")
    await harness.eventually(lambda: redis.command("XLEN", "trade@A"))
    await redis.command("REPLICAOF", "127.0.0.1", "1")
    await redis.publish("trade@A", b"2", b"3")
    await process.expect("READONLY")
    await redis.publish("trade@A", b"4")
    await redis.command("REPLICAOF", "NO", "ONE")

    async def all_there() -> bool:
        return await entries(redis, "trade@A") == [b"1", b"2", b"3", b"4"]

    await harness.eventually(all_there)
    process.signal("TERM")
    assert await process.wait() == 0
    assert process.lines.all[-1].endswith("4 publications heard, 4 of them added to streams, 0 lost")


@pytest_twisted.ensureDeferred
async def test_a_subscription_that_is_refused(harness: Harness) -> None:
    """Ends it with one line and status 1."""
    server = await harness.redis()
    redis = await server.connect()
    await redis.command("ACL", "SETUSER", "b", "on", ">x", "~*", "+@all", "resetchannels")
    url = server.url.replace("unix://", "unix://b:x@")
    process = harness.spawn([sys.executable, "-m", "marketfeed", "bridge", "--redis-url", url, "trade@*"])
    assert await process.wait() == 1
    assert process.lines.all[-1].startswith("marketfeed bridge: Redis refuses the subscription to trade@*: NOPERM")
