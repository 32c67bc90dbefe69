"""The candle service: one of those that run is at work, takes all trades, writes candles, and publishes them.

1. Who has the lease leads, and takes the markets over (`markets`). Who is overtaken drops everything, and waits for the
   lease again.
2. Four times a second what is due is closed by the clock, written, and then published; behind it, what is flat. While
   Redis is out of reach nothing is lost: it is written later, once. Who ends writes what has come until then.
3. Which streams somebody wants is asked once a second.
4. Where markets have a past, nothing is done before all of it is written: whoever is told of one market is told of all.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from typing import Any, cast

from twisted.application.service import IService, MultiService
from twisted.internet.defer import CancelledError, Deferred, DeferredList, TimeoutError, succeed
from twisted.internet.task import deferLater

from marketfeed.boundaries import Clock
from marketfeed.candles.days import Days
from marketfeed.candles.demand import Demand
from marketfeed.candles.held import HeldPublications, Publisher
from marketfeed.candles.klines import Publication
from marketfeed.candles.lease import LOOK_SECONDS, Lease
from marketfeed.candles.market import Market
from marketfeed.candles.markets import CandleLimits, KnownMarket, Markets, Past
from marketfeed.candles.store import CandleStore, Overtaken
from marketfeed.candles.trades import Taker, Trades
from marketfeed.model.candle_store import WANTED_SECONDS, CandleKeys
from marketfeed.redis.commands import CommandFault, CommandRefused, KeyedCommands, OutOfReach
from marketfeed.runtime.logs import Log

__all__ = ["CandleService"]

_ROUND_SECONDS = 0.25
_LAST_SECONDS = 2.0
"""For so long the end of the service waits until all is written."""


class CandleService(MultiService):
    """All of it; the `Leader` of its markets. `lead`: makes where trades come from, for a leader; `now`: s since 1970;
    `past`: of markets of which nothing was written yet.
    """

    log = Log()

    def __init__(
        self,
        clock: Clock,
        limits: CandleLimits,
        commands: KeyedCommands,
        store: CandleStore,
        lease: Lease,
        publisher: Publisher,
        lead: Callable[[Taker], Trades],
        now: Callable[[], float] = time.time,
        past: Past | None = None,
    ) -> None:
        MultiService.__init__(self)
        self._clock = clock
        self._prefix = limits.prefix
        self._commands = commands
        self._store = store
        self._lease = lease
        self._held = HeldPublications(clock, publisher)
        self._lead = lead
        self._now = now
        self._keys = CandleKeys(limits.prefix)
        self._markets = Markets(clock, limits, store, self, past, now)
        self._trades: Trades | None = None
        self._has_begun = False
        self._has_another_begun = False
        self._demand = Demand()
        self._days = Days(commands, self._keys, self.publish)
        self._work: list[Deferred[Any]] = []
        self._stepping_down: Deferred[None] = succeed(None)
        self._faults: dict[str, str] = {}  # by what it was that Redis did not do
        self._is_forgetting = False
        self.written = 0
        """Changes that Redis has."""

    @property
    def is_leading(self) -> bool:
        """This one is at work."""
        return self._trades is not None

    @property
    def is_reached(self) -> bool:
        """Trades come, as far as is known."""
        return self._trades is not None and self._trades.is_reached

    @property
    def is_ready(self) -> bool:
        """What is published from now on is in candles; or another one makes them."""
        return self._has_another_begun or (self._has_begun and self.is_reached)

    @property
    def fault(self) -> str:
        """Why Redis was not written to at the last try; empty: it was."""
        return next(iter(self._faults.values()), "")

    @property
    def markets(self) -> int:
        """How many it has."""
        return len(self._markets)

    @property
    def counts(self) -> Counter[str]:
        """Trades that counted, as `taken`, and those that did not, by reason."""
        return self._markets.counts

    @property
    def newest(self) -> int:
        """When the newest trade came, in ms since 1970."""
        return self._markets.newest

    def startService(self) -> None:
        MultiService.startService(self)
        loops = (
            self._again_and_again("the lease", self._hold_lease, LOOK_SECONDS),
            self._again_and_again("the changes", self._round, _ROUND_SECONDS),
        )
        self._work = [Deferred.fromCoroutine(each) for each in loops]

    async def _again_and_again(self, what: str, step: Callable[[], Awaitable[None]], seconds: float) -> None:
        """Whatever goes wrong with a step is said, and it is tried again."""
        while True:
            try:
                await step()
                self.works(what)
            except Overtaken as overtaken:
                self.overtaken(overtaken)
            except CommandFault as fault:
                self.failed(what, fault)
            except CancelledError:
                raise
            except Exception:
                self.log.failure("candles: internal error")
            await deferLater(self._clock, seconds)

    async def _stopped(self) -> None:
        for each in self._work:
            each.cancel()
        await DeferredList(self._work, consumeErrors=True)
        await self._stepping_down
        if self._has_begun:
            await self._write_the_rest()
        self._held.release()
        await self._step_down()
        await self._lease.give_up()
        await MultiService.stopService(self)

    def stopService(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stopped())

    async def _write_the_rest(self) -> None:
        """What has come since the last change: of channels nobody else has heard it."""
        trades, self._trades = self._trades, None
        await cast(Any, trades).disownServiceParent()
        now = self._ms()
        due = [known for known in self._markets if self._is_due(known, now, is_last=True)]
        try:
            fault = await Deferred.fromCoroutine(self._write_all(due)).addTimeout(_LAST_SECONDS, self._clock)
        except TimeoutError:
            fault = OutOfReach(f"no answer within {_LAST_SECONDS:g} s")
        except Overtaken:
            return
        if fault is not None:
            self.log.error("candles: what came last cannot be written: {why}", why=str(fault))

    # Who leads.

    async def _hold_lease(self) -> None:
        has_lease = await self._lease.take()
        self._has_another_begun = not has_lease
        if has_lease and self._trades is None:
            await self._store.lead()
            await self._look_who_wants()
            self._begin()
        elif not has_lease and self._trades is not None:
            self.log.warn("candles: another one leads")
            await self._step_down()
        elif self._has_begun:
            await self._look_who_wants()

    def _begin(self) -> None:
        self.log.info("candles: this one leads, as number {number}", number=self._store.number)
        self._trades = trades = self._lead(self._markets)
        Deferred.fromCoroutine(self._markets.begin(trades)).addCallback(self._begun, trades)
        cast(IService, trades).setServiceParent(self)

    def _begun(self, _: None, trades: Trades) -> None:
        self._has_begun = self._trades is trades

    async def _step_down(self) -> None:
        trades, self._trades = self._trades, None
        self._has_begun = False
        self._faults.clear()
        self._markets.forget()
        self._days.forget()
        self._held.forget()  # who leads next publishes what has closed once more
        if trades is not None:
            await cast(Any, trades).disownServiceParent()

    def overtaken(self, why: Overtaken) -> None:
        """See `Leader`."""
        if self._trades is not None:
            self.log.warn("candles: {why}", why=str(why))
            self._stepping_down = Deferred.fromCoroutine(self._step_down())

    def works(self, what: str) -> None:
        """See `Leader`."""
        self._faults.pop(what, None)

    def failed(self, what: str, fault: CommandFault) -> None:
        """See `Leader`."""
        is_news = str(fault) not in self._faults.values()
        self._faults[what] = str(fault)
        if is_news and not isinstance(fault, OutOfReach):  # whose link that is has said so
            self.log.error("candles: Redis cannot be written to: {why}", why=str(fault))

    # What is due.

    async def _round(self) -> None:
        self._held.look()
        trades = self._trades
        if trades is None or not self._has_begun:
            return
        now = self._ms()
        for known in self._markets:
            if not known.is_closing and known.market.is_over(now, self.wanted(known.market.name)):
                known.is_closing = True
                trades.reached_end(known.market.name).addCallback(self._reached_end, known, now)
        due = [known for known in self._markets if self._is_due(known, now)]
        fault = await self._write_all(due)
        self._say_what_is_forgotten(due)
        if self._trades is not trades:
            return
        self._publish_quiet(now)
        written = [known.market for known in due if known.written is None]
        await self._days.tell(now, written, self._by_name.values(), self._demand)
        if fault is not None:
            raise fault

    def _say_what_is_forgotten(self, due: Sequence[KnownMarket]) -> None:
        """Once, until nothing is any more."""
        forgetting = next(
            (each.market.name for each in due if each.written is not None and each.market.is_forgetting), ""
        )
        if forgetting and not self._is_forgetting:
            line = "candles: as many wait to be written as are kept, the oldest are forgotten: first those of {market}"
            self.log.error(line, market=forgetting)
        self._is_forgetting = bool(forgetting)

    def _publish_quiet(self, now: int) -> None:
        """What is flat; of markets of which all else is written and published, for that comes before."""
        quiet: list[Publication] = []
        for name, intervals in self._demand.intervals.items():
            known = self._markets.get(name)
            if known is not None and known.written is None:
                quiet += known.market.quiet(now, intervals)
        self.publish(quiet)

    def _reached_end(self, has: bool, known: KnownMarket, now: int) -> None:
        known.is_closing = False
        if has and self._markets.get(known.market.name) is known:
            known.market.pass_time(now)

    def _is_due(self, known: KnownMarket, now: int, *, is_last: bool = False) -> bool:
        """Whether something of it is to be written: what is left of the last time, or what has come since. `is_last`:
        there will be no later moment.
        """
        try:
            if known.written is None and (known.market.is_dirty if is_last else known.market.is_due(now)):
                known.written = known.market.change(now, self.wanted(known.market.name))
        except Exception:  # the others go on
            self.log.failure("candles: internal error with {market}", market=known.market.name)
        return known.written is not None

    async def _write_all(self, due: Sequence[KnownMarket]) -> CommandFault | None:
        """What cannot be written is tried again; it is in the way of no other market. Returns the first fault."""
        first: CommandFault | None = None
        for at in range(0, len(due), self._store.most):
            together = due[at : at + self._store.most]
            try:
                await self._write(together)
            except CommandFault as fault:
                first = first or fault
                if isinstance(fault, CommandRefused) and len(together) > 1:  # perhaps of one of them
                    await self._write_apart(together)
        return first

    async def _write_apart(self, due: Sequence[KnownMarket]) -> None:
        for known in due:
            with suppress(CommandFault):
                await self._write([known])

    async def _write(self, due: Sequence[KnownMarket]) -> None:
        await self._store.write([known.written[0] for known in due if known.written is not None])
        publications: list[Publication] = []
        for known in due:
            assert known.written is not None
            publications += known.written[1]
            known.written = None
        self.written += len(due)
        self.publish(publications)

    # What is wanted, and published.

    async def _look_who_wants(self) -> None:
        key = self._keys.wanted
        since = int(self._now() - WANTED_SECONDS)
        names = await self._commands.ask_for(key.encode(), "ZRANGEBYSCORE", key, since, "+inf")
        before, self._demand = self._demand, Demand.of(names)
        now = self._ms()
        self._days.tell_anew(now, self._by_name, before, self._demand)
        for known in self._markets:
            name = known.market.name
            wanted = self._demand.intervals.get(name, set())
            for interval in wanted:
                known.market.want(interval, now)
            if name in before.intervals:
                known.market.unwant(wanted)
        self._days.tell_together(self._demand)

    @property
    def _by_name(self) -> dict[str, Market]:
        """The markets that go on."""
        return {known.market.name: known.market for known in self._markets}

    def wanted(self, market: str) -> Collection[str]:
        """See `Leader`."""
        return self._demand.intervals.get(market, ())

    def publish(self, publications: Sequence[Publication]) -> None:
        """See `Leader`."""
        if publications:
            self._held.publish([(self._prefix + stream, data) for stream, data in publications])

    def _ms(self) -> int:
        return int(self._now() * 1000)
