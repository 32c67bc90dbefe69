"""A Twisted service that logs the trades of some markets, each with the average price of all that it has seen.

    twistd -no --pidfile= -y tape.py        FEED=ws://… and MARKETS=… in the environment say which; Ctrl-C ends it

1. The client connects by itself, and again whenever the connection is lost; what was missed comes first then.
2. The service has stopped when the connection is closed: twistd waits for the Deferred of `stopService`.
"""

from __future__ import annotations

import os
from decimal import Decimal

from marketfeed_client import Gap, Message, Reconnecting, Recovered
from marketfeed_client.tx import Client
from twisted.application.service import Application, Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger


class Average:
    """The average price of trades, by their quantities."""

    def __init__(self) -> None:
        self._paid = self._quantity = Decimal(0)

    def add(self, price: Decimal, quantity: Decimal) -> Decimal:
        """One more trade; the average with it."""
        self._paid += price * quantity
        self._quantity += quantity
        return self._paid / self._quantity


class Tape(Service):
    """Logs trades while the application runs."""

    log = Logger()

    def __init__(self, address: str, markets: list[str]) -> None:
        self._averages = {market: Average() for market in markets}
        self._feed = Client(address)
        for market in markets:
            self._feed.on(f"trade@{market}", self._traded)
        self._feed.on("reconnecting", self._lost)
        self._feed.on("recovered", self._recovered)
        self._feed.on("gap", self._missed)

    def startService(self) -> None:
        super().startService()
        self._feed.start()

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return self._feed.close()

    def _traded(self, message: Message) -> None:
        trade = message.data
        average = self._averages[trade["s"]].add(Decimal(trade["p"]), Decimal(trade["q"]))
        self.log.info(
            "{s} {t}: {q} at {p}, on average {average}{late}",
            **trade,
            average=average.quantize(Decimal(trade["p"])),
            late=" (it was missed)" if message.past else "",
        )

    def _lost(self, event: Reconnecting) -> None:
        self.log.warn("connection lost, attempt {attempt} in {delay} ms", attempt=event.attempt, delay=event.delay)

    def _recovered(self, event: Recovered) -> None:
        if event.recovered:
            self.log.info("nothing missed: {count} of {stream} came late", count=event.count, stream=event.stream)

    def _missed(self, event: Gap) -> None:
        self.log.warn("trades of {streams} may be missing: {reason}", streams=event.streams, reason=event.reason)


application = Application("tape")
Tape(
    os.environ.get("FEED", "ws://localhost:8080"),
    os.environ.get("MARKETS", "TATA_INR").split(","),
).setServiceParent(application)
