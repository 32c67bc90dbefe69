"""What a server says of itself while the daemon reads it: a replica that has lost its master, one that is busy."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import hiredis
import pytest
import pytest_twisted

from marketfeed.commands.recording.format import Gap, Publication, read_records
from tests.system.forwarder import Forwarder
from tests.system.harness import Client, DaemonProcess, Harness, Process, Redis, RedisServer, trade

A = "trade@A_INR"
LOST = "the server is a replica that has lost its master"
CHANGED = "the server has become another one's replica, or a master"
UNNOTICED = "redis: a replica that loses its master would not be noticed: "
ELSEWHERE = "the connection for commands leads to another server"
SOURCES = pytest.mark.parametrize("source", ["pubsub", "streams"])


class Pair:
    """A master, its replica, and the way between them."""

    def __init__(self, harness: Harness, *options: str) -> None:
        self._harness = harness
        options = ("--repl-diskless-sync-delay", "0", *options)
        self._servers = [RedisServer(harness, self._directory(name), *options) for name in ("master", "replica")]
        self.master, self.replica = self._servers
        self.way: Forwarder

    def _directory(self, name: str) -> Path:
        directory = self._harness.directory / name
        directory.mkdir()
        return directory

    async def start(self) -> Pair:
        for server in self._servers:
            await server.start()
        self.way = Forwarder(self._harness, self.master.path)
        await self.join()
        return self

    async def join(self) -> None:
        """Make the replica one, and wait until it has all."""
        redis = await self.replica.connect()
        await redis.command("REPLICAOF", "127.0.0.1", self.way.port)
        await self.until(redis, b"connected")

    async def until(self, redis: Redis, state: bytes) -> None:
        async def holds() -> bool:
            return bool((await redis.command("ROLE"))[3] == state)

        await self._harness.eventually(holds)

    def part(self) -> None:
        """Let nothing through between the two any more, also if the replica tries again."""
        self.way.path = str(self._harness.directory / "nowhere")
        self.way.cut()

    def meet(self) -> None:
        self.way.path = self.master.path


async def say(engine: Redis, source: str, number: int) -> bytes:
    """Publish, at the master; what clients get."""
    payload = trade("A_INR", number)
    if source == "pubsub":
        await engine.command("PUBLISH", A, payload)
    else:
        await engine.command("XADD", A, "*", "d", payload)
    return b'{"stream":"%b","data":%b}' % (A.encode(), payload)


async def gap(client: Client) -> dict[str, Any]:
    message = await client.next()
    assert message["stream"] == "!gap", message
    return dict(message["data"])


async def asked(replica: Redis, times: int) -> bool:
    """Whether the daemon has asked for the role so many times."""
    found = re.search(rb"cmdstat_role:calls=(\d+)", await replica.command("INFO", "commandstats"))
    return found is not None and int(found[1]) >= times


async def is_read(redis: Redis, source: str) -> bool:
    """Whether the daemon gets what is published there."""
    if source == "pubsub":
        return A in await redis.channels()
    return b"blocked_clients:1" in await redis.command("INFO", "clients")


class Links:
    """Those of the daemon to one server. `reader`: the server's number of the one that publications come on."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self.reader = b""

    async def all(self) -> dict[bytes, bytes]:
        """What the server says of each, by its number."""
        own = b"id=%d" % await self._redis.command("CLIENT", "ID")
        lines = [await self._redis.command("CLIENT", "LIST", "TYPE", kind) for kind in ("normal", "pubsub")]
        return {number: line for line in b"".join(lines).splitlines() if (number := line.split()[0]) != own}

    async def is_known(self) -> bool:
        """Whether it can be seen now which of them is the reader's."""
        found = [number for number, line in (await self.all()).items() if b" cmd=xread " in line or b" sub=1 " in line]
        self.reader = found[0] if len(found) == 1 else b""
        return bool(self.reader)

    async def cut_reader(self) -> None:
        await self._cut([self.reader])

    async def cut_others(self) -> None:
        await self._cut([number for number in await self.all() if number != self.reader])

    async def _cut(self, numbers: list[bytes]) -> None:
        for number in numbers:
            await self._redis.command("CLIENT", "KILL", "ID", number.removeprefix(b"id="))


def causes(daemon: DaemonProcess) -> list[str]:
    return [line.split(": ", 2)[2].partition(";")[0] for line in daemon.lines if "redis: no connection" in line]


def spawn(harness: Harness, pair: Pair, *words: str) -> Process:
    """A command of ours that reads the replica."""
    command, *arguments = words
    return harness.spawn([sys.executable, "-m", "marketfeed", command, "--redis-url", pair.replica.url, *arguments])


async def watching(harness: Harness, pair: Pair, source: str) -> tuple[DaemonProcess, Client, Redis]:
    daemon = await harness.daemon("--source", source, redis=pair.replica)
    client = await (await harness.client(daemon, "/stream")).hear_events()
    await client.subscribe(A)
    engine = await pair.master.connect()
    expected = await say(engine, source, 1)
    assert await client.next_bytes() == expected
    return daemon, client, engine


@SOURCES
@pytest_twisted.ensureDeferred
async def test_a_replica_that_loses_its_master(harness: Harness, source: str) -> None:
    """It answers everything as before, and nothing arrives: clients hear of a gap, and of its end when that is over."""
    pair = await Pair(harness).start()
    daemon, client, engine = await watching(harness, pair, source)
    replica = await pair.replica.connect()
    await replica.command("CONFIG", "RESETSTAT")
    await harness.eventually(lambda: asked(replica, 2))
    assert causes(daemon) == []
    pair.part()
    begin = await gap(client)
    assert begin == {"e": "gap", "streams": [A], "reason": "source-down", "from": begin["from"], "to": None}
    await daemon.expect(rf"redis: no connection to \S+: {LOST}; trying again")
    if source == "streams":  # which keep what is added meanwhile
        expected = await say(engine, source, 2)
        pair.meet()
    else:
        pair.meet()
        await harness.eventually(lambda: is_read(replica, source))
        expected = await say(engine, source, 2)
    end = await gap(client)
    assert await client.next_bytes() == expected
    assert end == {**begin, "to": end["to"]}
    assert set(causes(daemon)) == {LOST}
    assert len([line for line in daemon.lines if " error " in line]) == 1
    assert await daemon.stop() == 0


@SOURCES
@pytest_twisted.ensureDeferred
async def test_a_master_that_is_silent(harness: Harness, source: str) -> None:
    """The replica takes it for alive until its time-out; the gap begins before the silence all the same."""
    pair = await Pair(harness, "--repl-timeout", "4", "--repl-ping-replica-period", "1").start()
    daemon, client, _ = await watching(harness, pair, source)
    pair.master.process.signal("STOP")
    stopped = time.time_ns() // 1_000_000
    begin = await gap(client)
    assert begin["to"] is None
    assert begin["from"] <= stopped
    await daemon.expect(rf"redis: no connection to \S+: {LOST}; trying again")
    assert await daemon.stop() == 0


@SOURCES
@pytest_twisted.ensureDeferred
async def test_a_master_that_becomes_a_replica(harness: Harness, source: str) -> None:
    """Nobody knows how long there has been another: what was published meanwhile may be missing."""
    pair = await Pair(harness).start()
    redis = await pair.replica.connect()
    await redis.command("REPLICAOF", "NO", "ONE")
    daemon = await harness.daemon("--source", source, redis=pair.replica)
    client = await (await harness.client(daemon, "/stream")).hear_events()
    await client.subscribe(A)
    await pair.join()
    begin = await gap(client)
    assert begin["to"] is None
    assert all(cause in (LOST, CHANGED) or cause.startswith("UNBLOCKED") for cause in causes(daemon))
    engine = await pair.master.connect()
    await harness.eventually(lambda: is_read(redis, source))
    expected = await say(engine, source, 1)
    assert await gap(client) == {**begin, "to": ANY}
    assert await client.next_bytes() == expected
    assert await daemon.stop() == 0


async def is_listened_to(redis: Redis) -> bool:
    return bool(await redis.command("PUBSUB", "NUMPAT") == 1)


@pytest_twisted.ensureDeferred
async def test_a_recorder_of_a_replica_that_loses_its_master(harness: Harness) -> None:
    """The recording has a gap, from before the loss until the replica has its master back."""
    pair = await Pair(harness).start()
    path = harness.directory / "market.jsonl"
    recorder = spawn(harness, pair, "record", "--output", str(path), "*")
    replica, engine = await pair.replica.connect(), await pair.master.connect()
    await harness.eventually(lambda: is_listened_to(replica))
    await say(engine, "pubsub", 1)
    await harness.eventually(lambda: path.read_bytes().count(b'"stream"') == 1)
    parted = time.time_ns() // 1000
    pair.part()
    await recorder.expect(rf"redis: no connection to \S+: {LOST}; trying again")
    pair.meet()
    await harness.eventually(lambda: is_listened_to(replica))
    await say(engine, "pubsub", 2)
    await harness.eventually(lambda: path.read_bytes().count(b'"stream"') == 2)
    recorder.signal("INT")
    assert await recorder.wait() == 0
    _, one, gap, two, _ = [record for _, record in read_records([path.read_bytes()])]
    assert [record.data for record in (one, two) if isinstance(record, Publication)] == [
        trade("A_INR", number) for number in (1, 2)
    ]
    assert isinstance(gap, Gap)
    assert gap.since <= parted < gap.until


@pytest_twisted.ensureDeferred
async def test_a_bridge_on_a_replica_that_loses_its_master(harness: Harness) -> None:
    """It says that it is deaf, for as long as it is."""
    pair = await Pair(harness, "--replica-read-only", "no").start()
    bridge = spawn(harness, pair, "bridge", "trade@*")
    await bridge.expect("bridge: every channel is listened to")
    pair.part()
    await bridge.expect("bridge: what is published from now on is lost")
    await bridge.expect(rf"redis: no connection to \S+: {LOST}; trying again")
    since = len(bridge.lines.all)
    pair.meet()
    await bridge.expect("bridge: every channel is listened to", since)
    bridge.signal("INT")
    assert await bridge.wait() == 0


@SOURCES
@pytest_twisted.ensureDeferred
async def test_a_user_who_may_not_ask(harness: Harness, source: str) -> None:
    """Everything works, and a line says what does not."""
    redis = await harness.redis()
    engine = await redis.connect()
    await engine.command("ACL", "SETUSER", "feed", "on", ">x", "allchannels", "allkeys", "+@all", "-info", "-role")
    daemon = await harness.daemon("--source", source, "--redis-url", f"unix://feed:x@{redis.path}")
    await daemon.expect(UNNOTICED + "NOPERM .*'info' command")
    client = await (await harness.client(daemon, "/stream")).hear_events()
    await client.subscribe(A)
    expected = await say(engine, source, 1)
    assert await client.next_bytes() == expected
    assert await daemon.stop() == 0
    assert len([line for line in daemon.lines if UNNOTICED in line]) == 1


class Balanced:
    """A daemon behind an address that leads to the master, and is about to lead to the replica."""

    def __init__(self, harness: Harness, pair: Pair, source: str) -> None:
        self.harness = harness
        self.pair = pair
        self.source = source
        self.balancer = Forwarder(harness, pair.master.path)
        self.daemon: DaemonProcess
        self.client: Client
        self.engine: Redis
        self.links: Links

    async def start(self) -> Balanced:
        url = f"redis://127.0.0.1:{self.balancer.port}"
        self.daemon = await self.harness.daemon("--source", self.source, "--redis-url", url)
        self.client = await (await self.harness.client(self.daemon, "/stream")).hear_events()
        await self.client.subscribe(A)
        self.engine = await self.pair.master.connect()
        self.links = Links(self.engine)
        await self.harness.eventually(self.links.is_known)
        self.balancer.path = self.pair.replica.path
        return self

    async def lead_commands_away(self) -> None:
        """End the links for commands, also such as were on their way to the master, until the daemon has noticed."""

        async def is_noticed() -> bool:
            await self.links.cut_others()
            return any(UNNOTICED + ELSEWHERE in line for line in self.daemon.lines)

        await self.harness.eventually(is_noticed)

    async def flows(self, number: int) -> None:
        expected = await say(self.engine, self.source, number)
        assert await self.client.next_bytes() == expected


@SOURCES
@pytest_twisted.ensureDeferred
async def test_two_servers_behind_one_address(harness: Harness, source: str) -> None:
    """What the one says of itself is not about the other: a replica without a master here is no loss there."""
    pair = await Pair(harness).start()
    there = await Balanced(harness, pair, source).start()
    pair.part()
    await pair.until(await pair.replica.connect(), b"connect")
    await there.lead_commands_away()
    await there.flows(1)
    assert causes(there.daemon) == []
    assert await there.daemon.stop() == 0


@pytest.mark.parametrize("first", ["commands", "reader", "both"])
@SOURCES
@pytest_twisted.ensureDeferred
async def test_an_address_that_leads_to_another_server(harness: Harness, source: str, first: str) -> None:
    """Whichever link is made anew first: one gap, then all of the other server, whose loss of its master is noticed."""
    pair = await Pair(harness).start()
    there = await Balanced(harness, pair, source).start()
    await there.flows(1)
    if first == "commands":
        await there.lead_commands_away()
        await there.flows(2)
        await there.links.cut_reader()
    elif first == "reader":
        await there.links.cut_reader()
    else:
        there.balancer.cut()
    begin = await gap(there.client)
    assert begin == {"e": "gap", "streams": [A], "reason": "source-down", "from": begin["from"], "to": None}
    replica = await pair.replica.connect()
    await harness.eventually(lambda: is_read(replica, source))
    expected = await say(there.engine, source, 3)
    assert await gap(there.client) == {**begin, "to": ANY}
    assert await there.client.next_bytes() == expected
    if first == "reader":
        await there.daemon.expect(UNNOTICED + ELSEWHERE)
        await there.links.cut_others()
        await there.flows(4)
    assert len(causes(there.daemon)) == 1
    assert (first == "both") == (not any(UNNOTICED in line for line in there.daemon.lines))

    async def is_left() -> bool:
        return not await there.links.all()

    await harness.eventually(is_left)
    pair.part()
    assert (await gap(there.client))["to"] is None
    await there.daemon.expect(rf"redis: no connection to \S+: {LOST}; trying again")
    assert await there.daemon.stop() == 0


@pytest_twisted.ensureDeferred
async def test_a_server_that_runs_a_script(harness: Harness) -> None:
    """It answers BUSY to everything, and has lost nothing: no client hears of it."""
    redis = await harness.redis("--busy-reply-threshold", "50")
    daemon = await harness.daemon(redis=redis)
    client = await (await harness.client(daemon, "/stream")).hear_events()
    await client.subscribe(A)
    engine, operator = await redis.connect(), await redis.connect()

    async def has_answered_so() -> bool:
        running = engine.command("EVAL", "while true do end", 0)
        await harness.pause(1.2)  # the daemon asks once a second
        await operator.command("SCRIPT", "KILL")
        with pytest.raises(hiredis.ReplyError):
            await running
        stats = await engine.command("INFO", "commandstats")
        return re.search(rb"cmdstat_ping:\S*rejected_calls=[1-9]", stats) is not None

    await harness.eventually(has_answered_so)
    expected = await say(engine, "pubsub", 1)
    assert await client.next_bytes() == expected
    assert causes(daemon) == []
    assert await daemon.stop() == 0
