"""The daemon's clock: what it waits for comes, whatever is done to the time of day."""

from __future__ import annotations

import pytest_twisted

from tests.system.harness import Harness

PROGRAM = """
import os, sys, time
real, mark = time.time, sys.argv.pop(1)
time.time = lambda: real() - (3600 if os.path.exists(mark) else 0)
from twisted.scripts.twistd import run
run()
"""


@pytest_twisted.ensureDeferred
async def test_the_time_of_day_is_put_back_an_hour(harness: Harness) -> None:
    """Timers that run go on: the stream that nobody wants any more is given up, and peers are read as before."""
    mark = harness.directory / "put-back"
    redis = await harness.redis()
    daemon = await harness.daemon("--linger", "3", redis=redis, program=("-c", PROGRAM, str(mark)))
    engine = await redis.connect()
    client = await harness.client(daemon, "/ws")
    await client.subscribe("trade@TATA_INR")
    for number in range(100):
        assert (await client.ask({"method": "PING", "id": number}))["result"] == "PONG"
    assert (await client.ask({"method": "UNSUBSCRIBE", "params": ["trade@TATA_INR"], "id": 1}))["result"] is None
    mark.touch()

    async def is_given_up() -> bool:
        return not await engine.channels()

    await harness.eventually(is_given_up)
    for number in range(50):
        assert (await client.ask({"method": "PING", "id": number}))["result"] == "PONG"
