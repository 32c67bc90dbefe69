"""The bot: it says the engine's prices, says when it has none, and ends when it is told to."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest_twisted

from tests.examples.shown import commands, demo, run
from tests.system.harness import DaemonProcess, Harness, Process

LIVE = r"^TATA_INR (\S+) \| (\S+)  spread (\S+)  imbalance ([+-]\d\.\d\d)$"


@pytest_twisted.ensureDeferred
async def test_it_follows_the_book_across_a_restart(harness: Harness) -> None:
    daemon = await demo(harness)
    bot = run(harness, daemon, commands("A bot")[-1])
    await said_well(harness, daemon, bot)
    since = len(bot.lines.all)
    assert await daemon.stop() == 0
    await bot.expect(r"^connection lost, attempt 1 in [\d.]+ s$", since)
    await bot.expect(r"^TATA_INR stale: do not trade on it$", since)
    since = len(bot.lines.all)
    again = await demo(harness, before=daemon)
    await bot.expect(LIVE, since)
    bot.signal("INT")
    assert await bot.wait() == 0
    assert bot.lines.all[-1] == "stopped"
    assert not [line for line in bot.lines.all if "Traceback" in line]
    assert await again.stop() == 0


async def said_well(harness: Harness, daemon: DaemonProcess, bot: Process) -> None:
    """The best prices are the daemon's, at some moment."""
    asked = set()

    async def agrees() -> bool:
        status, _, body = await harness.http(daemon, "GET /api/v3/depth?symbol=TATA_INR&limit=1 HTTP/1.1\nHost: x")
        if status == 503:
            return False
        book = json.loads(body)
        asked.add((book["bids"][0][0], book["asks"][0][0]))
        found = await bot.expect(LIVE)
        assert Decimal(found[2]) - Decimal(found[1]) == Decimal(found[3]) > 0
        return any(f"TATA_INR {bid} | {ask} " in line for bid, ask in asked for line in bot.lines.all)

    await harness.eventually(agrees)


@pytest_twisted.ensureDeferred
async def test_it_ends_while_there_is_nobody_to_connect_to(harness: Harness) -> None:
    daemon = await demo(harness)
    assert await daemon.stop() == 0
    bot = run(harness, daemon, commands("A bot")[-1])
    await bot.expect(r"^connection lost, attempt 2 ")
    bot.signal("INT")
    assert await bot.wait() == 0
    assert bot.lines.all[-1] == "stopped"
