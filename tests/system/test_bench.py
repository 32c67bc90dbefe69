"""`marketfeed bench` against the real daemon and a real Redis: what it counts is what was sent."""

from __future__ import annotations

import sys
import time

import msgspec
import pytest
import pytest_twisted

from marketfeed.commands import main
from marketfeed.commands.bench import client, load
from marketfeed.commands.bench.load import LoadTest
from marketfeed.commands.bench.report import Report
from tests.system.harness import DEADLINE, DaemonProcess, Harness, RedisServer

CLIENTS = 50


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is given up for being slow."""
    for module, name in (
        (load, "_PATIENCE"),
        (load, "_GRACE"),
        (client, "_CONNECT_SECONDS"),
        (client, "_SEND_SECONDS"),
    ):
        monkeypatch.setattr(module, name, DEADLINE)


def bench(daemon: DaemonProcess, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Report]:
    """Run the command in this process, while the daemon and Redis run in theirs; its status and its report."""
    status = main(["bench", f"ws://127.0.0.1:{daemon.port}", "--clients", str(CLIENTS), "--json", *arguments])
    out, err = capsys.readouterr()
    assert err == ""
    return status, msgspec.json.decode(out, type=Report)


@pytest_twisted.ensureDeferred
async def test_streams_that_are_drawn(harness: Harness, capsys: pytest.CaptureFixture[str]) -> None:
    """Each client has a mix of its own, and gets all of it: over all messages as many as it has streams."""
    redis = await harness.redis()
    daemon = await harness.daemon(redis=redis)
    publishing = ("--redis-url", redis.url, "--stream-count", "10", "--per-client", "3", "--messages", "200")
    status, report = bench(daemon, capsys, *publishing, "--mixed")
    assert (status, report.deliveries) == (0, CLIENTS * 3 * 200 // 10)


@pytest.mark.parametrize("options", [(), ("--raw", "--rate", "1000")])
@pytest_twisted.ensureDeferred
async def test_every_client_gets_everything(
    harness: Harness, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    """Each message of its streams once and in order, in every dialect, in a closed loop and paced."""
    redis = await harness.redis()
    daemon = await harness.daemon(redis=redis)
    publishing = ("--redis-url", redis.url, "--stream-count", "10", "--per-client", "3", "--messages", "200")
    status, report = bench(daemon, capsys, *publishing, *options, "--server-pid", str(daemon.process.pid))
    assert (report.lost, report.duplicated, report.out_of_order, report.unasked) == (0, 0, 0, 0)
    assert (report.events, report.closed, report.merged) == ({}, {}, 0)
    assert (report.opened, report.published, report.deliveries) == (CLIENTS, 200, CLIENTS * 3 * 200 // 10)
    assert status == 0
    assert report.latency_ms is not None
    assert report.server is not None
    assert report.server.resident_after > 0


@pytest_twisted.ensureDeferred
async def test_a_storm(harness: Harness, capsys: pytest.CaptureFixture[str]) -> None:
    """It is published as clients come, and the opening is over when each has had something."""
    redis = await harness.redis()
    daemon = await harness.daemon(redis=redis)
    publishing = ("--redis-url", redis.url, "--stream-count", "10", "--per-client", "3", "--rate", "200", "--storm")
    status, report = bench(daemon, capsys, *publishing, "--seconds", "0.2", "--warm-up", "0")
    assert (status, report.opened) == (0, CLIENTS)
    assert not any("no subscriber" in warning for warning in report.warnings)
    assert report.storm_seconds == report.connect_seconds > 0


@pytest_twisted.ensureDeferred
async def test_order_books(harness: Harness, capsys: pytest.CaptureFixture[str]) -> None:
    """A depth update is counted by its numbers, so that a merged one is no loss."""
    redis = await harness.redis()
    daemon = await harness.daemon(redis=redis)
    options = ("--redis-url", redis.url, "--depth", "5", "--payload-bytes", "2000", "--messages", "100", "--slow", "2")
    status, report = bench(daemon, capsys, *options)
    assert (status, report.lost, report.events) == (0, 0, {})
    assert report.deliveries + report.merged == (CLIENTS - 2) * 100


@pytest_twisted.ensureDeferred
async def test_latency_is_of_all_that_was_published(harness: Harness, capsys: pytest.CaptureFixture[str]) -> None:
    """What is still on its way when the time is over is no exception: it is the slowest."""
    redis = await harness.redis()
    daemon = await harness.daemon(redis=redis)
    options = ("--redis-url", redis.url, "--window", "64", "--seconds", "2", "--warm-up", "0.1")
    status, report = bench(daemon, capsys, *options)
    assert (status, report.lost) == (0, 0)
    assert report.timed == report.published * CLIENTS > 0


@pytest_twisted.ensureDeferred
async def test_a_delay_of_the_load_generator_is_no_secret(
    harness: Harness, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it should have sent meanwhile is late, and is counted as late from when it was due."""
    redis = await harness.redis()
    daemon = await harness.daemon(redis=redis)
    away = 0.0
    publish = load.NumberedEngine.publish

    def publish_and_pause(engine: load.NumberedEngine, *arguments: float) -> list[int]:
        nonlocal away
        away = 5.0 if engine.total >= 10 else 0.0
        return publish(engine, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(load.NumberedEngine, "publish", publish_and_pause)
    monkeypatch.setattr(load, "LoadTest", lambda plan: LoadTest(plan, clock=lambda: time.perf_counter() + away))
    options = ("--redis-url", redis.url, "--rate", "100", "--messages", "400")
    status, report = bench(daemon, capsys, *options)
    assert (status, report.lost, report.timed) == (0, 0, 400 * CLIENTS)
    assert report.latency_ms is not None
    assert report.latency_ms.p90 > 1000


@pytest_twisted.ensureDeferred
async def test_a_slow_client_is_told_of(
    harness: Harness, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection was ended, and its close says why."""
    for name in ("_SLOW_SECONDS", "_SLOW_GRACE"):
        monkeypatch.setattr(load, name, DEADLINE)
    redis = await harness.redis()
    # A reader who gets no turn may hold what is under way to all of them: 47 x 4 x 20 kB. That may wait for it.
    daemon = await harness.daemon("--client-queue", "4194304", "--ping-interval", "0", redis=redis)
    load_options = ("--payload-bytes", "20000", "--window", "4", "--messages", "1000", "--slow", "3")
    status, report = bench(daemon, capsys, "--redis-url", redis.url, *load_options)
    assert (status, report.lost, report.closed) == (0, 0, {})
    assert report.slow_open == 0
    assert sum(report.slow_closed.values()) == 3
    assert set(report.slow_closed) <= {"4008", "1006"}


@pytest_twisted.ensureDeferred
async def test_an_existing_market_is_watched(harness: Harness, capsys: pytest.CaptureFixture[str]) -> None:
    """Without an engine of its own nothing is published; what each client gets is compared with what others get."""
    redis = await harness.redis()
    daemon = await harness.daemon(redis=redis)
    market = [sys.executable, "-m", "marketfeed", "simulate", "--redis-url", redis.url, "--rate", "1000"]
    engine = harness.spawn([*market, "--markets", "TATA_INR"])
    await engine.expect("simulating")
    streams = "trade@TATA_INR,depth@TATA_INR,ticker@TATA_INR"
    status, report = bench(daemon, capsys, "--streams", streams, "--seconds", "0.5", "--warm-up", "0")
    assert (status, report.lost, report.duplicated, report.out_of_order) == (0, 0, 0, 0)
    assert (report.publishes, report.published, report.per_client) == (False, 0, 3)


@pytest_twisted.ensureDeferred
async def test_a_redis_server_that_is_not_the_daemons(
    harness: Harness, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing arrives, all of it is lost, and the report has an idea why."""
    monkeypatch.setattr(load, "_GRACE", 2.0)
    daemon = await harness.daemon(redis=await harness.redis())
    (harness.directory / "other").mkdir()
    other = RedisServer(harness, harness.directory / "other")
    await other.start()
    status, report = bench(daemon, capsys, "--redis-url", other.url, "--window", "3", "--messages", "100")
    assert (status, report.deliveries, report.lost) == (1, 0, 3 * CLIENTS)
    assert "the test was ended because nothing arrived any more" in report.warnings
    unheard = f"3 publications had no subscriber at {other.url}: is it the one that the server reads?"
    assert unheard in report.warnings


@pytest_twisted.ensureDeferred
async def test_a_server_that_asks_for_tokens(harness: Harness, capsys: pytest.CaptureFixture[str]) -> None:
    """All clients show theirs; without one the server's refusal is told."""
    key = harness.directory / "token.key"
    assert main(["token", "--new-key", str(key), "--user", "alice"]) == 0
    token = capsys.readouterr().out.strip()
    redis = await harness.redis()
    daemon = await harness.daemon("--auth", "required", "--auth-key", str(key), redis=redis)
    publishing = ("--redis-url", redis.url, "--messages", "20")
    status, report = bench(daemon, capsys, *publishing, "--token", token)
    assert (status, report.deliveries) == (0, CLIENTS * 20)
    assert main(["bench", f"ws://127.0.0.1:{daemon.port}", *publishing]) == 1
    assert "answers 401 Unauthorized: a token is needed" in capsys.readouterr().err
    assert token not in "".join(daemon.lines)


@pytest_twisted.ensureDeferred
async def test_an_interruption_ends_it_with_a_report(harness: Harness) -> None:
    """Ctrl-C amid the watching of a market: what was seen so far is told, and is no fault."""
    redis = await harness.redis()
    daemon = await harness.daemon(redis=redis)
    command = [sys.executable, "-m", "marketfeed", "bench", f"ws://127.0.0.1:{daemon.port}", "--json"]
    options = ["--streams", "trade@A,ticker@A", "--clients", str(CLIENTS), "--seconds", "3600"]
    process = harness.spawn([*command, *options])
    engine = await redis.connect()

    async def is_watched() -> bool:
        return await engine.channels() == {"trade@A", "ticker@A"}

    await harness.eventually(is_watched)
    process.signal("INT")
    assert await process.wait() == 0
    report = msgspec.json.decode(process.lines.all[-1], type=Report)
    assert report.interrupted
    assert "interrupted: this is the report so far" in report.warnings
    assert report.opened <= CLIENTS
