"""The demo's candles, as whoever is there from the first moment on gets them."""

from __future__ import annotations

import time
from typing import Any

import pytest
import pytest_twisted

from marketfeed.demo.market import INSTRUMENTS
from tests.system.harness import Harness

MINUTE = 60_000


@pytest.mark.parametrize("source", ["pubsub", "streams"])
@pytest_twisted.ensureDeferred
async def test_nothing_is_missing_from_the_first_moment_on(harness: Harness, source: str) -> None:
    """Each candle has all trades from its first to its last, none is of the hours before, but for those that closed in
    the seconds before, and all markets are told of at once.
    """
    began = int(time.time() * 1000)
    daemon = await harness.daemon("--demo", "--source", source)
    client = await harness.client(daemon, "/stream")
    streams = ["!miniTicker@arr", *[f"{each.market.lower()}@kline_1m" for each in INSTRUMENTS]]
    await client.ask({"method": "SUBSCRIBE", "params": streams, "id": 1})
    first: dict[str, Any] = {}
    candles: list[Any] = []
    while set(first) < set(streams) or len(candles) < 12:
        message = await client.next()
        first.setdefault(message["stream"], message["data"])
        if "kline" in message["stream"]:
            candles.append(message["data"]["k"])
    assert {each["s"] for each in first[streams[0]]} == {each.market for each in INSTRUMENTS}
    assert min(each["T"] for each in candles) >= began - 5000
    assert [each for each in candles if each["n"] != each["L"] - each["f"] + 1] == []
    assert await daemon.stop() == 0
