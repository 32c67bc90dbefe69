"""Thousands of clients who come and go at once, and what the log says of them."""

from __future__ import annotations

import json
import os
import signal
from datetime import datetime
from typing import Any

import pytest_twisted
from twisted.internet.defer import gatherResults

from tests.system.harness import DEADLINE, DaemonProcess, Harness
from tests.system.lean import LeanClient, LeanClients, all_of, within

CLIENTS = 2000


def moment(line: dict[str, Any]) -> float:
    """When it was written, in seconds."""
    return datetime.fromisoformat(line["time"]).timestamp()


async def all_told(harness: Harness, daemon: DaemonProcess, word: str) -> list[dict[str, Any]]:
    """The lines that say that of clients, once they have said it of all."""
    lines: list[dict[str, Any]] = []

    def are_all_told() -> bool:
        events = map(json.loads, daemon.lines)
        lines[:] = [event for event in events if event["message"].startswith("client ") and word in event["message"]]
        return sum(event["count"] for event in lines) == CLIENTS

    await harness.eventually(are_all_told)
    return lines


@pytest_twisted.ensureDeferred
@within(3 * DEADLINE)
async def test_a_storm_of_disconnects_is_a_hundred_lines_and_then_one_a_second(harness: Harness) -> None:
    """And as many of those who come, in any second; all lines together leave nobody out."""
    daemon = await harness.daemon("--log-format", "json", "--max-connections", str(2 * CLIENTS))
    clients = LeanClients[LeanClient](harness, daemon)
    crowd = await all_of(clients.open(LeanClient(), "/ws/trade@A") for _ in range(CLIENTS))
    for word in (" connected from ", " subscribed to "):
        moments = [moment(line) for line in await all_told(harness, daemon, word)]
        # The hundred of one second may be at its end, and those of the next at its beginning.
        assert all(after - before > 0.99 for before, after in zip(moments, moments[202:], strict=False))
    os.kill(daemon.process.pid, signal.SIGSTOP)  # so that it gets to know of all of them at once
    for client in crowd:
        client.abort()
    await gatherResults([client.lost for client in crowd])
    os.kill(daemon.process.pid, signal.SIGCONT)
    lines = await all_told(harness, daemon, " disconnected ")
    assert [each["count"] for each in lines[:100]] == [1] * 100
    assert len(lines) <= 101 + moment(lines[-1]) - moment(lines[0])
    assert await daemon.stop() == 0
