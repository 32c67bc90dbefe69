"""A real daemon with `--candles`: its admin port tells of them what that of `marketfeed candles` does."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping

import pytest
import pytest_twisted

from marketfeed.model.candle_store import CandleKeys
from tests.system.admin_port import ADMIN, AdminPort
from tests.system.harness import DaemonProcess, Harness, Redis, trade
from tests.system.workers import make_crew

KEYS = CandleKeys("")
MADE = "A_B"


def of_candles(samples: Mapping[str, float]) -> set[str]:
    """The names of metrics, and the labels of what was dropped."""
    return {name.removesuffix(" parent") for name in samples if name.startswith("candles_")}


async def engine(harness: Harness, redis: Redis, source: str, port: AdminPort, label: str = "") -> None:
    """Until a trade counts, and one does not."""
    number = 0

    async def counts() -> bool:
        nonlocal number
        number += 1
        for each in (trade(MADE, number), trade(MADE, number, p="no price")):
            if source == "streams":
                await redis.command("XADD", f"trade@{MADE}", "*", "d", each)
            else:
                await redis.publish(f"trade@{MADE}", each)
        samples = await port.samples(harness)
        return samples[f"candles_trades_total{label}"] > 0 and samples[f"candles_written_total{label}"] > 0

    await harness.eventually(counts)


async def reasons(harness: Harness, port: AdminPort, path: str) -> tuple[int, list[str]]:
    status, _, body = await port.ask(harness, path)
    return status, json.loads(body)["reasons"]


@pytest.mark.parametrize("source", ["pubsub", "streams"])
@pytest_twisted.ensureDeferred
async def test_of_a_daemon(harness: Harness, source: str) -> None:
    """The same metrics as of the program, its links to Redis, each under a name of its own, and whether it works."""
    server = await harness.redis()
    redis = await server.connect()
    daemon = await harness.daemon("--candles", "--source", source, *ADMIN, redis=server)
    port = await AdminPort.of(daemon)
    await engine(harness, redis, source, port)
    samples = await port.samples(harness)
    assert (samples["candles_leader"], samples["candles_markets"]) == (1, 1)
    assert samples["candles_dropped_total bad"] > 0
    assert time.time() - 300 < samples["candles_newest_trade_seconds"] <= time.time() + 1
    links = {name for name in samples if name.startswith("source_up ")}
    assert {f"source_up redis {what}" for what in ("candle commands", "candle transactions", "trades")} < links
    assert all(samples[link] for link in links)
    assert await reasons(harness, port, "/readyz/candles") == (200, [])

    program = [sys.executable, "-m", "marketfeed", "candles", "--redis-url", server.url, "--source", source, *ADMIN]
    alone = await AdminPort.of(DaemonProcess(harness.spawn(program)))
    assert of_candles(await alone.samples(harness)) == of_candles(samples)

    await server.kill()
    await harness.eventually(lambda: is_down(harness, port))
    assert await reasons(harness, port, "/readyz") == (200, [])
    await server.start()
    await harness.eventually(lambda: is_up(harness, port))
    assert await daemon.stop() == 0


async def is_down(harness: Harness, port: AdminPort) -> bool:
    return (await reasons(harness, port, "/readyz/candles"))[0] == 503


async def is_up(harness: Harness, port: AdminPort) -> bool:
    return await reasons(harness, port, "/readyz/candles") == (200, [])


@pytest_twisted.ensureDeferred
async def test_of_a_daemon_with_workers(harness: Harness) -> None:
    """The parent has it, once; and a daemon without candles tells nothing of any."""
    server = await harness.redis()
    redis = await server.connect()
    crew = await make_crew(harness, "--candles", workers=1, redis=server)
    await engine(harness, redis, "pubsub", crew.admin, " parent")
    samples = await crew.admin.samples(harness)
    assert samples["candles_leader parent"] == 1
    assert [name for name in samples if name.startswith("candles_leader")] == ["candles_leader parent"]
    assert samples["source_up redis trades parent"] == 1
    assert await reasons(harness, crew.admin, "/readyz/candles") == (200, [])
    without = await AdminPort.of(await harness.daemon(*ADMIN, redis=server))
    assert not of_candles(await without.samples(harness))
    assert (await without.ask(harness, "/readyz/candles"))[0] == 404
    assert await crew.daemon.stop() == 0
