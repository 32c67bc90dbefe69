"""The testee of the Autobahn test suite, as the suite meets it: a process of its own, which echoes."""

from __future__ import annotations

import sys

import pytest
import pytest_twisted
from websockets.sync.client import connect

from tests.system.harness import DEADLINE, Harness
from tests.system.secure import Secure, also_tls

FRAMES = 2000
"""More than the read throttle lets through at once."""


@also_tls
@pytest.mark.parametrize("options", [(), ("--no-throttle",)])
@pytest_twisted.ensureDeferred
async def test_it_echoes(harness: Harness, options: tuple[str, ...], tls: bool) -> None:
    """Every message, in order, however many come at once."""
    secure = Secure(harness.directory) if tls else None
    files = () if secure is None else ("--tls", *map(str, secure.files))
    process = harness.spawn([sys.executable, "-m", "tests.autobahn", "--port", "0", *options, *files])
    url = (await process.expect(rf"{'wss' if tls else 'ws'}://127\.0\.0\.1:\d+"))[0]
    numbers = [str(number) for number in range(FRAMES if options else 10)]
    trusting = None if secure is None else secure.context()
    # It blocks, and the testee does not need us.
    with connect(url, ssl=trusting, open_timeout=DEADLINE, ping_interval=None) as client:
        for number in numbers:
            client.send(number)
        assert [client.recv() for _ in numbers] == numbers
