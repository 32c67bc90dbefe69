"""The testee of the Autobahn test suite, as the suite meets it: a process of its own, which echoes."""

from __future__ import annotations

import sys

import pytest
import pytest_twisted
from websockets.sync.client import connect

from tests.system.harness import DEADLINE, Harness

FRAMES = 2000
"""More than the read throttle lets through at once."""


@pytest.mark.parametrize("options", [(), ("--no-throttle",)])
@pytest_twisted.ensureDeferred
async def test_it_echoes(harness: Harness, options: tuple[str, ...]) -> None:
    """Every message, in order, however many come at once."""
    process = harness.spawn([sys.executable, "-m", "tests.autobahn", "--port", "0", *options])
    url = (await process.expect(r"ws://127\.0\.0\.1:\d+"))[0]
    numbers = [str(number) for number in range(FRAMES if options else 10)]
    with connect(
        url, open_timeout=DEADLINE, ping_interval=None
    ) as client:  # it blocks, and the testee does not need us
        for number in numbers:
            client.send(number)
        assert [client.recv() for _ in numbers] == numbers
