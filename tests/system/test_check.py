"""`marketfeed check` with real servers: engines that are good, bad, silent, out of reach, forbidden."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.threads import deferToThread

from tests.redis_servers.cluster import RedisCluster
from tests.redis_servers.process import FLAVOURS
from tests.redis_servers.sentinel import SentinelTrio
from tests.system.harness import Harness, Process, trade

NOW_BOOK = '{"e":"depth","s":"TATA_INR","u":%d,"b":[["1000.00","5"]],"a":[["1001.00","2"]]}'


def check(harness: Harness, url: str, *arguments: str) -> Process:
    return harness.spawn([sys.executable, "-m", "marketfeed", "check", "--redis-url", url, *arguments])


async def report_of(process: Process, *, status: int) -> Any:
    """The JSON, once the process has ended, with this status."""
    assert await process.wait() == status, process.lines.all
    return json.loads(next(line for line in process.lines.all if line.startswith("{")))


def trades() -> Callable[[], bytes]:
    """Trades of one market, one after the other."""
    numbers = itertools.count(1)
    return lambda: trade("A_B", next(numbers))


def verdicts(report: Any) -> dict[str, str]:
    return {each["feature"]: each["verdict"] for each in report["features"]}


async def heard_until_interrupted(harness: Harness, process: Process, publish: Callable[[], Awaitable[object]]) -> None:
    """Publish, until it is heard; then let the command end."""

    async def is_heard() -> bool:
        await publish()
        return any("the first publication is here" in line for line in process.lines.all)

    await harness.eventually(is_heard)
    process.signal("INT")


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("source", ["pubsub", "streams"])
async def test_the_simulated_market(source: str, harness: Harness) -> None:
    """It is good, whichever way it publishes, behind a prefix too."""
    server = await harness.redis()
    engine = await server.connect()
    more = ["--streams", "1000"] if source == "streams" else []
    market = [sys.executable, "-m", "marketfeed", "simulate", "--redis-url", server.url, "--channel-prefix", "live:"]
    simulation = harness.spawn([*market, "--rate", "500", *more])
    if source == "streams":
        await harness.eventually(lambda: engine.command("EXISTS", "live:depth@TATA_INR"))
    report = await report_of(
        check(harness, server.url, "--channel-prefix", "live:", "--source", source, "--seconds", "3", "--json"),
        status=0,
    )
    simulation.signal("INT")
    await simulation.wait()
    assert report["faults"] == []
    assert "TATA_INR" in report["markets"]
    found = verdicts(report)
    assert {key: found[key] for key in ("ids", "executed", "updates", "book", "pair", "market")} == dict.fromkeys(
        ("ids", "executed", "updates", "book", "pair", "market"), "yes"
    )
    assert found["streams"] == ("yes" if source == "streams" else "no")


@pytest_twisted.ensureDeferred
async def test_a_bad_engine(harness: Harness) -> None:
    """What is wrong is named, with an example, and the status is 1; a book in a key counts."""
    server = await harness.redis()
    engine = await server.connect()
    await engine.command("SET", "snapshot:depth@TATA_INR", NOW_BOOK % 7)
    process = check(harness, server.url, "--json")

    together = "for at = 1, #ARGV, 2 do redis.call('PUBLISH', ARGV[at], ARGV[at + 1]) end"
    said = {
        "depth@TATA_INR": '{"e":"depth","a":[],"b":[],"U":8,"u":8}',
        "orders@alice": '{"secret":1}',
        "trade@TATA_INR": '{"e":"trade","t":"one"}',
    }
    words = [word for pair in said.items() for word in pair]
    await heard_until_interrupted(harness, process, lambda: engine.command("EVAL", together, "0", *words))
    report = await report_of(process, status=1)
    (fault,) = report["faults"]
    assert fault["fault"].startswith("dropped, bad-field: ")
    assert fault["example"] == {"stream": "trade@TATA_INR", "payload": '{"e":"trade","t":"one"}'}
    assert verdicts(report)["book"] == "yes"
    assert "alice" not in json.dumps(report)


@pytest_twisted.ensureDeferred
async def test_a_book_that_is_in_a_stream(harness: Harness) -> None:
    """The engine's last whole one was before it was listened: a daemon would find it, and so it counts."""
    server = await harness.redis()
    engine = await server.connect()
    book = '{"e":"depth","a":[["2","1"]],"b":[],"U":%d,"u":%d,"s":"A_B"%s}'
    await engine.command("XADD", "depth@A_B", "*", "d", book % (1, 1, ',"snapshot":true'))
    process, numbers = check(harness, server.url, "--source", "streams", "--json"), itertools.count(2)

    def add() -> Awaitable[object]:
        number = next(numbers)
        return engine.command("XADD", "depth@A_B", "*", "d", book % (number, number, ""))

    await heard_until_interrupted(harness, process, add)
    report = await report_of(process, status=0)
    assert verdicts(report)["book"] == verdicts(report)["updates"] == "yes"


@pytest_twisted.ensureDeferred
async def test_nobody_publishes(harness: Harness) -> None:
    """Which is status 1, and is said."""
    server = await harness.redis()
    process = check(harness, server.url, "--seconds", "0.1")
    assert await process.wait() == 1
    assert any(line.startswith("Nothing was published.") for line in process.lines.all)


@pytest_twisted.ensureDeferred
async def test_it_may_not_listen(harness: Harness) -> None:
    """The server's word is repeated, with status 2."""
    server = await harness.redis()
    engine = await server.connect()
    await engine.command("ACL", "SETUSER", "some", "on", ">s3cret", "+@all", "~*", "&trade@*")
    url = server.url.replace("unix://", "unix://some:s3cret@")
    process = check(harness, url)
    assert await process.wait() == 2
    assert any("Redis refuses the subscription to *: NOPERM" in line for line in process.lines.all)
    process, numbered = check(harness, url, "trade@*", "--json"), trades()
    await heard_until_interrupted(harness, process, lambda: engine.command("PUBLISH", "trade@A_B", numbered()))
    assert (await report_of(process, status=0))["publications"] >= 1


@pytest_twisted.ensureDeferred
async def test_no_server(harness: Harness) -> None:
    """It gives up, with status 2."""
    line = "import marketfeed.commands.check.command as it; it.FIND_SECONDS = 0.1; from marketfeed.commands import main"
    command = f"import sys; {line}; sys.exit(main())"
    process = harness.spawn([sys.executable, "-c", command, "check", "--redis-url", f"unix://{harness.directory}/none"])
    assert await process.wait() == 2
    assert any("marketfeed check: cannot listen to unix://" in line for line in process.lines.all)


@pytest_twisted.ensureDeferred
async def test_a_recording(harness: Harness) -> None:
    """Of a recording the same is said; one that cannot be read is status 2, and names the line."""
    server = await harness.redis()
    engine = await server.connect()
    path = harness.directory / "market.jsonl.gz"
    recorder = harness.spawn(
        [sys.executable, "-m", "marketfeed", "record", "--redis-url", server.url, "--output", str(path), "*"]
    )
    numbered, heard = trades(), []

    async def are_recorded() -> bool:
        heard.append(await engine.command("PUBLISH", "trade@A_B", numbered()))
        return sum(heard) > 3

    await harness.eventually(are_recorded)
    recorder.signal("INT")
    assert await recorder.wait() == 0
    report = await report_of(check(harness, server.url, "--recording", str(path), "--json"), status=0)
    assert verdicts(report)["ids"] == "yes"
    assert verdicts(report)["streams"] == "unknown"
    assert report["source"] == str(path)
    path.write_bytes(b"{}\n")
    process = check(harness, server.url, "--recording", str(path))
    assert await process.wait() == 2
    assert any(f"{path}:1: " in line for line in process.lines.all)


@pytest.fixture(params=FLAVOURS)
def trio(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SentinelTrio]:
    with SentinelTrio(tmp_path / "trio", request.param) as trio:
        yield trio


@pytest.fixture(params=FLAVOURS)
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisCluster]:
    with RedisCluster(tmp_path / "cluster", request.param) as cluster:
        yield cluster


@pytest.mark.several_servers
@pytest_twisted.ensureDeferred
async def test_behind_sentinels(harness: Harness, trio: SentinelTrio) -> None:
    """The master is listened to."""
    process, numbered = check(harness, trio.url, "--json"), trades()

    def publish() -> None:
        with trio.master().connect() as connection:
            connection.command("PUBLISH", "trade@A_B", numbered())

    await heard_until_interrupted(harness, process, lambda: deferToThread(publish))
    assert (await report_of(process, status=0))["markets"] == ["A_B"]


@pytest.mark.several_servers
@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("source", ["pubsub", "streams"])
async def test_on_a_cluster(source: str, harness: Harness, cluster: RedisCluster) -> None:
    """Sharded channels that are named, and streams that are found, wherever they are."""
    markets = [f"M{number}_INR" for number in range(6)]
    names = [f"trade@{market}" for market in markets] if source == "pubsub" else []
    numbers = itertools.count(1)

    def publish() -> None:
        number = next(numbers)
        with cluster.client() as client:
            for market in markets:
                if source == "pubsub":
                    client.spublish(f"trade@{market}", trade(market, number))
                else:
                    client.command("XADD", f"trade@{market}", "*", "d", trade(market, number))

    process = check(harness, cluster.url, "--json", "--source", source, *names)
    await heard_until_interrupted(harness, process, lambda: deferToThread(publish))
    report = await report_of(process, status=0)
    assert set(report["markets"]) <= set(markets)
    assert verdicts(report)["ids"] == "yes"


@pytest.mark.several_servers
@pytest_twisted.ensureDeferred
async def test_patterns_on_a_cluster(harness: Harness, cluster: RedisCluster) -> None:
    """Are refused for sharded channels, in a line."""
    process = check(harness, cluster.url)
    assert await process.wait() == 2
    assert any("'*' cannot be used" in line for line in process.lines.all)
