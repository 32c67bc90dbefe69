"""Drivers reach the daemon and nobody else, whatever their client tries."""

from __future__ import annotations

import pytest
import pytest_twisted

from tests.clients.bots import Bot, needs
from tests.system.harness import Harness

PACKAGE = "binance-connector"
pytestmark = needs(PACKAGE)


@pytest_twisted.ensureDeferred
async def test_the_daemon_is_reached(harness: Harness) -> None:
    """By the address that the driver is given."""
    bot = Bot(harness, PACKAGE, "elsewhere", (await harness.daemon("--demo")).port, to=None)
    await bot.told("reached")
    await bot.ends()


@pytest.mark.parametrize(
    "options", [{"name": "api.example.com"}, {"to": ["198.18.0.1", 443]}, {"to": ["127.0.0.1", 9]}]
)
@pytest_twisted.ensureDeferred
async def test_nobody_else_is(harness: Harness, options: dict[str, object]) -> None:
    """Not even asked for, and a client that takes that for a bad network has failed its test all the same."""
    bot = Bot(harness, PACKAGE, "elsewhere", (await harness.daemon("--demo")).port, **options)
    with pytest.raises(AssertionError, match="refused "):
        await bot.told("reached")
    with pytest.raises(AssertionError, match="refused "):
        await bot.ends()
