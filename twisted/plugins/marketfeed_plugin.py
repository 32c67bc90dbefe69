"""Tells twistd about the daemon: data only, so that `twistd --help` imports nothing of it."""

from twisted.application.service import ServiceMaker

marketfeed = ServiceMaker(
    "marketfeed",
    "marketfeed.daemon.tap",
    "Live market data from Redis to WebSocket clients.",
    "marketfeed",
)
