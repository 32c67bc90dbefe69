"""A publication's whole way, from a real server through the real daemon to real clients."""

from __future__ import annotations

import pytest_twisted

from tests.system.harness import Harness, trade


@pytest_twisted.ensureDeferred
async def test_a_publication_reaches_each_dialect_as_it_speaks(harness: Harness) -> None:
    """The engine's bytes come through unchanged, in the envelope that the path calls for."""
    redis = await harness.redis()
    daemon = await harness.daemon(redis=redis)
    house = await harness.client(daemon)
    combined = await harness.client(daemon, "/stream?streams=trade@TATA_INR")
    raw = await harness.client(daemon, "/ws/trade@TATA_INR")
    assert await house.subscribe("trade@TATA_INR") == {
        "stream": "!reply",
        "data": {"e": "reply", "id": 1, "result": None},
    }
    engine = await redis.connect()
    await engine.publish("trade@TATA_INR", trade())
    envelope = b'{"stream":"trade@TATA_INR","data":' + trade() + b"}"
    assert await house.next_bytes() == envelope
    assert await combined.next_bytes() == envelope
    assert await raw.next_bytes() == trade()
    assert await daemon.stop() == 0
