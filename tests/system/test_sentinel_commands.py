"""The commands that speak to Redis, with a real master, its replicas and three sentinels."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.threads import deferToThread

from marketfeed.commands.recording.files import recorded
from marketfeed.commands.recording.format import Begin, End, Gap, Publication, write_record
from tests.redis_servers.process import FLAVOURS, ServerProcess
from tests.redis_servers.sentinel import SentinelTrio
from tests.system.harness import Harness, Process

STREAM = "trade@A"


@pytest.fixture(params=FLAVOURS)
def trio(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SentinelTrio]:
    with SentinelTrio(tmp_path / "trio", request.param) as trio:
        yield trio


def command(harness: Harness, trio: SentinelTrio, name: str, *arguments: str) -> Process:
    return harness.spawn([sys.executable, "-m", "marketfeed", name, "--redis-url", trio.url, *arguments])


def publish(master: ServerProcess, payload: bytes) -> int:
    with master.connect() as connection:
        return int(connection.command("PUBLISH", STREAM, payload))


def entries(master: ServerProcess) -> list[bytes]:
    with master.connect() as connection:
        return [fields[1] for _, fields in connection.command("XRANGE", STREAM, "-", "+")]


@pytest_twisted.ensureDeferred
async def test_a_bridge_and_a_recording_follow_the_master(harness: Harness, trio: SentinelTrio, tmp_path: Path) -> None:
    """Each entry is in the stream once and in order; the recording has a gap."""
    path = tmp_path / "market.jsonl"
    bridge = command(harness, trio, "bridge", "trade@*")
    recorder = command(harness, trio, "record", "--output", str(path), "trade@*")
    await bridge.expect("every channel is listened to")
    before = trio.master()
    await harness.eventually(lambda: publish(before, b"0") == 2)
    await harness.eventually(lambda: b"0" in entries(before))
    after = await deferToThread(trio.failover)
    await harness.eventually(lambda: publish(after, b"1") == 2)
    await harness.eventually(lambda: b"1" in entries(after))
    for process in (bridge, recorder):
        process.signal("INT")
        assert await process.wait() == 0
    found = [int(each) for each in entries(after)]
    assert found == sorted(found)
    heard = re.search(r"(\d+) publications heard, (\d+) of them added to streams, 0 lost$", bridge.lines.all[-1])
    assert heard is not None
    assert heard[1] == heard[2] == str(len(found))
    records = [record for _, record in recorded([str(path)], pytest.fail)]
    assert any(isinstance(record, Gap) for record in records)
    assert {record.data for record in records if isinstance(record, Publication)} == {b"0", b"1"}


@pytest_twisted.ensureDeferred
async def test_a_replay_finds_the_master(harness: Harness, trio: SentinelTrio, tmp_path: Path) -> None:
    """Whichever it is when it begins."""
    path = tmp_path / "market.jsonl"
    records = [Begin(0, 1, ("*",)), *[Publication(0, STREAM.encode(), b"%d" % number) for number in range(100)]]
    path.write_bytes(b"".join(map(write_record, [*records, End(0, 100)])))
    master = await deferToThread(trio.failover)
    bridge = command(harness, trio, "bridge", STREAM)
    await bridge.expect("every channel is listened to")
    replay = command(harness, trio, "replay", str(path))
    assert await replay.wait() == 0
    assert replay.lines.all[-1].startswith("marketfeed replay: 100 publications of 190 bytes in ")
    await harness.eventually(lambda: entries(master) == [b"%d" % number for number in range(100)])
    bridge.signal("INT")
    assert await bridge.wait() == 0


@pytest_twisted.ensureDeferred
async def test_a_simulated_market_follows_the_master(harness: Harness, trio: SentinelTrio) -> None:
    """Its states and its publications."""
    market = command(harness, trio, "simulate", "--rate=200")
    await market.expect("simulating TATA_INR")

    def forget(server: ServerProcess) -> None:
        with server.connect() as connection:
            connection.command("DEL", "snapshot:depth@TATA_INR")

    def is_kept(server: ServerProcess) -> bool:
        with server.connect() as connection:
            return bool(connection.command("EXISTS", "snapshot:depth@TATA_INR"))

    await harness.eventually(lambda: is_kept(trio.master()))
    after = await deferToThread(trio.failover)
    forget(after)
    await harness.eventually(lambda: is_kept(after))
    market.signal("INT")
    assert await market.wait() == 0


@pytest_twisted.ensureDeferred
async def test_where_no_sentinel_answers(harness: Harness, tmp_path: Path) -> None:
    """A replay says so."""
    path = tmp_path / "market.jsonl"
    path.write_bytes(write_record(Begin(0, 1, ("*",))) + write_record(End(0, 0)))
    url = "redis-sentinel://127.0.0.1:1/feed"
    replay = harness.spawn([sys.executable, "-m", "marketfeed", "replay", "--redis-url", url, str(path)])
    assert await replay.wait() == 1
    assert replay.lines.all == [f"marketfeed replay: cannot reach {url}: connection refused"]
