"""The Twisted service, run by twistd: no trade is left out, however the connection ends, and it stops in good order."""

from __future__ import annotations

import re

import pytest_twisted

from tests.examples.shown import behind_a_door, commands, run
from tests.system.harness import Harness, Process

TRADE = r"TATA_INR (\d+): \d+ at (\S+), on average (\S+)"


def trades(service: Process) -> list[int]:
    found = (re.search(TRADE, line) for line in service.lines.all)
    return [int(each[1]) for each in found if each]


@pytest_twisted.ensureDeferred
async def test_it_goes_on_where_it_was(harness: Harness) -> None:
    """A connection that is cut costs no trade, and one that stays away is no reason not to stop."""
    daemon, door = await behind_a_door(harness)
    service = run(harness, daemon, commands("A Twisted service")[-1])
    await service.expect(TRADE)
    await service.expect("INFY_INR ")
    door.shut()
    await service.expect(r"connection lost, attempt 1 in \d+ ms")
    door.open()
    await service.expect(r"nothing missed: \d+ of trade@TATA_INR came late")
    since = len(service.lines.all)
    await service.expect(TRADE, since)
    seen = trades(service)
    assert seen == list(range(seen[0], seen[-1] + 1))
    since = len(service.lines.all)
    assert await daemon.stop() == 0
    await service.expect("connection lost", since)
    service.signal("INT")
    assert await service.wait() in (0, -2)  # twistd ends by the signal itself, once all is stopped
    assert service.lines.all[-1].endswith("Server Shut Down.")
    assert not [line for line in service.lines.all if "Traceback" in line or "Unhandled" in line]
