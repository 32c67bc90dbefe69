"""An engine that adds trades to a Redis stream, for a real daemon that a client of either event loop watches."""

from __future__ import annotations

from tests.system.harness import DaemonProcess, Redis, trade

__all__ = ["TRADE", "add", "url_of"]

TRADE = "trade@TATA_INR"


async def add(engine: Redis, *numbers: int) -> None:
    """Trades with these numbers."""
    for number in numbers:
        await engine.command("XADD", TRADE, "*", "d", trade(number=number))


def url_of(daemon: DaemonProcess) -> str:
    """Where clients find it."""
    return f"ws://127.0.0.1:{daemon.port}/"
