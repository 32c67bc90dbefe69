"""A trading engine that makes live markets up, for demos, benchmarks and tests, and the service that publishes them.

1. The whole book and the ticker of a market are kept beside its streams, as new as its last step.
2. A market opens when everything that looks at it from its first trade on is there. While the publisher is not ready
   it stands still. What a late tick has missed is made up for over the
   next ones, never in one burst; what is more than a second late is left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from random import Random
from typing import Protocol

from twisted.application.service import Service
from twisted.internet.task import LoopingCall

from marketfeed.boundaries import Clock
from marketfeed.demo.market import INSTRUMENTS, Instrument, Publication, SimulatedMarket
from marketfeed.demo.past import PastTrade, past, trades_in
from marketfeed.model.streams import snapshot_key
from marketfeed.runtime.logs import Log

__all__ = ["MOST_RATE", "Keeper", "MarketSimulation", "Publisher", "SimulatedEngine"]

TICK_SECONDS = 0.05
MOST_RATE = 100_000


class Publisher(Protocol):
    """What takes the publications to Redis."""

    @property
    def ready(self) -> bool:
        """The server answers: what is published now arrives."""

    def publish(self, batch: list[Publication]) -> None:
        """Publish in this order: channel and payload."""


class Keeper(Protocol):
    """What takes the states of streams to Redis."""

    def keep(self, states: list[Publication]) -> None:
        """Keep each for a while: key and payload. What is published afterwards comes later than these."""


class SimulatedEngine:
    """Several markets, which take turns. `markets`: their names; the first of `INSTRUMENTS` is always among them.

    `hours`: how long they have been open already. What was traded then is their `past`.
    """

    def __init__(self, markets: Iterable[str] = (), seed: int = 1, hours: int = 0) -> None:
        names = list(markets) or [instrument.market for instrument in INSTRUMENTS]
        self.markets = tuple(dict.fromkeys([INSTRUMENTS[0].market, *names]))
        # A market's flow depends on the seed and its name, not on which other markets there are.
        self.instruments = tuple([Instrument.named(name) for name in self.markets])
        self._simulated = [
            SimulatedMarket(each, Random(f"{seed} {each.market}"), trades_in(hours)) for each in self.instruments
        ]
        self._seed = seed
        self._hours = hours
        self._turn = 0

    def past_of(self, market: str, until: int) -> Iterator[PastTrade]:
        """What was traded in one of its markets before it opened at `until`, in ms since 1970, oldest first."""
        instrument = self.instruments[self.markets.index(market)]
        return past(instrument, until, self._hours, self._seed)

    def step(self, now_ms: int) -> list[Publication]:
        """One step of the market whose turn it is: stream and payload, in order."""
        market = self._simulated[self._turn]
        self._turn = (self._turn + 1) % len(self._simulated)
        return market.step(now_ms)

    def states(self, markets: Collection[str]) -> list[Publication]:
        """The states of these markets."""
        pairs = zip(self.markets, self._simulated, strict=True)
        return [state for name, market in pairs if name in markets for state in market.states()]

    def restate(self) -> None:
        """Begin every market's next step with a snapshot, for publications may have been lost."""
        for market in self._simulated:
            market.restate()


class MarketSimulation(Service):
    """Publishes the steps of `engine`, `rate` publications per second in all; above 0, at most `MOST_RATE`.

    `keeper`: None where states are not kept beside the streams, for they are found in them. `may_open`: whether what is
    published from now on is missed by nobody; it is asked until it says so.
    """

    log = Log()

    def __init__(
        self,
        clock: Clock,
        publisher: Publisher,
        engine: SimulatedEngine,
        rate: float = 50.0,
        channel_prefix: str = "",
        now: Callable[[], float] = time.time,
        *,
        keeper: Keeper | None = None,
        may_open: Callable[[], bool] = lambda: True,
    ) -> None:
        if not 0 < rate <= MOST_RATE:
            raise ValueError(f"expected a rate above 0, at most {MOST_RATE}")
        self._clock = clock
        self._publisher = publisher
        self._engine = engine
        self._rate = rate
        self._prefix = channel_prefix
        self._now = now
        self._keeper = keeper
        self._may_open = may_open
        self._is_open = False
        self._due = 0.0
        self._stood_still = True
        self._loop: LoopingCall | None = None

    def startService(self) -> None:
        Service.startService(self)
        self._due = 0.0
        self._loop = LoopingCall.withCount(self._tick)
        self._loop.clock = self._clock
        self._loop.start(TICK_SECONDS, now=False)

    def stopService(self) -> None:
        Service.stopService(self)
        if self._loop is not None:
            self._loop.stop()
            self._loop = None

    def _tick(self, passed: int) -> None:
        """`passed`: ticks since the last call, more than one when the process was held up."""
        self._is_open = self._is_open or self._may_open()
        if not (self._is_open and self._publisher.ready):
            self._stood_still = True
            return
        each = self._rate * TICK_SECONDS
        self._due = min(self._due + passed * each, max(self._rate, 1.0))
        try:
            if self._stood_still:
                self._stood_still = False
                self._engine.restate()
                self._keep(self._engine.markets)
            if batch := self._batch(2 * each):
                self._keep({stream.partition("@")[2] for stream, _ in batch})
                self._publisher.publish([(self._prefix + stream, payload) for stream, payload in batch])
        except Exception:
            # Raised further it would end the loop for good. A second of quiet keeps the log short.
            self.log.failure("the simulated market stumbled")
            self._due = -self._rate
            self._stood_still = True

    def _batch(self, most: float) -> list[Publication]:
        """Steps for what is due; no further step once there are `most` publications."""
        now_ms = int(self._now() * 1000)
        batch: list[Publication] = []
        while self._due >= 1 and len(batch) < most:
            step = self._engine.step(now_ms)
            self._due -= len(step)
            batch += step
        return batch

    def _keep(self, markets: Collection[str]) -> None:
        if self._keeper is not None:
            states = self._engine.states(markets)
            self._keeper.keep([(snapshot_key(self._prefix, stream), payload) for stream, payload in states])
