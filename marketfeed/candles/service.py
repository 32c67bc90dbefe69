"""The candle service: one of those that run is at work, takes all trades, writes candles, and publishes them.

1. Who has the lease leads. It takes each market over as its first trade is found, and goes on where it was written;
   what comes meanwhile waits. Who is overtaken drops everything, and waits for the lease again.
2. Four times a second what is due is closed by the clock, written, and then published. While Redis is out of reach
   nothing is lost: it is written later, once.
3. Which streams somebody wants is asked once a second.
4. What is no trade, and a trade that cannot count, is counted by its reason, and the log has a line now and then.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, Protocol, cast

import msgspec
from twisted.application.service import IService, MultiService
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.task import deferLater

from marketfeed.boundaries import Clock
from marketfeed.candles.days import Days
from marketfeed.candles.demand import Demand
from marketfeed.candles.klines import Publication
from marketfeed.candles.lease import LOOK_SECONDS, Lease
from marketfeed.candles.market import Market
from marketfeed.candles.store import CandleStore, Change, Overtaken
from marketfeed.candles.trades import Taker, Trades
from marketfeed.model.candle_store import WANTED_SECONDS, CandleKeys
from marketfeed.model.candles import Dropped
from marketfeed.model.intervals import Calendar
from marketfeed.model.kinds.fields import is_market
from marketfeed.model.kinds.trade import TRADE
from marketfeed.model.publications import BadPublication, PublicationReader
from marketfeed.model.rate import TokenBucket
from marketfeed.model.statistics import DAY_MS
from marketfeed.model.streams import StreamName
from marketfeed.model.trades import BadTrade, read_trade
from marketfeed.redis.commands import CommandFault, KeyedCommands, OutOfReach
from marketfeed.runtime.logs import Log

__all__ = ["MOST_MARKETS", "CandleLimits", "CandleService", "Past", "Publisher"]

MOST_MARKETS = 10_000
_ROUND_SECONDS = 0.25
_LINES = 1 / 10
_PORTION = 500


class CandleLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator says. `late_ms`: how old a trade may be when it comes."""

    prefix: str
    max_payload: int
    calendar: Calendar
    late_ms: int = 3_600_000


class Publisher(Protocol):
    """What publishes, in order; what cannot be published is dropped."""

    def publish(self, batch: list[tuple[str, bytes]]) -> None:
        """(channel, payload) pairs."""


Past = Callable[[str, int], Iterable[tuple[int, bytes]]]
"""The trades of a market before a moment, in ms since 1970: when each came, and what was published, oldest first."""


class _Known(msgspec.Struct, eq=False):
    """A market that the leader knows. `waiting`: what came before it was taken over; None: it has been."""

    market: Market
    reader: PublicationReader
    waiting: list[tuple[bytes, int, bytes]] | None
    written: tuple[Change, list[Publication]] | None = None
    is_closing: bool = False


class CandleService(MultiService):
    """All of it. `lead`: makes where trades come from, for a leader; `now`: s since 1970; `past`: what is to be known
    of a market of which nothing was written yet.

    `counts`: trades that counted, as `taken`, and those that did not, by reason.
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
        self._limits = limits
        self._commands = commands
        self._store = store
        self._lease = lease
        self._publisher = publisher
        self._lead = lead
        self._past = past
        self._now = now
        self._keys = CandleKeys(limits.prefix)
        self._markets: dict[str, _Known] = {}
        self._trades: Trades | None = None
        self._demand = Demand()
        self._days = Days(commands, self._keys, self._publish)
        self._work: list[Deferred[Any]] = []
        self._lines = TokenBucket(_LINES, 3, clock.seconds())
        self._last_fault = ""
        self.counts = Counter(dict.fromkeys(("taken", *Dropped.ALL), 0))
        self.written = 0
        """Changes that Redis has."""
        self.newest = 0
        """When the newest trade came, in ms since 1970."""

    @property
    def is_leading(self) -> bool:
        """This one is at work."""
        return self._trades is not None

    @property
    def is_reached(self) -> bool:
        """Trades come, as far as is known."""
        return self._trades is not None and self._trades.is_reached

    @property
    def fault(self) -> str:
        """Why Redis was not written to at the last try; empty: it was."""
        return self._last_fault

    @property
    def markets(self) -> int:
        """How many it has."""
        return len(self._markets)

    def startService(self) -> None:
        MultiService.startService(self)
        self._work = [Deferred.fromCoroutine(each) for each in (self._hold_lease(), self._rounds())]

    async def _stopped(self) -> None:
        for each in self._work:
            each.cancel()
        await DeferredList(self._work, consumeErrors=True)
        await self._step_down()
        await self._lease.give_up()
        await MultiService.stopService(self)

    def stopService(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stopped())

    # Who leads.

    async def _hold_lease(self) -> None:
        while True:
            try:
                has_lease = await self._lease.take()
                self._works()
                if has_lease and self._trades is None:
                    await self._store.lead()
                    await self._look_who_wants()
                    self._begin()
                elif not has_lease and self._trades is not None:
                    self.log.warn("candles: another one leads")
                    await self._step_down()
                elif self._trades is not None:
                    await self._look_who_wants()
            except CommandFault as fault:
                self._failed(fault)
            await deferLater(self._clock, LOOK_SECONDS)

    def _begin(self) -> None:
        self.log.info("candles: this one leads, as number {number}", number=self._store.number)
        self._trades = trades = self._lead(self)
        cast(IService, trades).setServiceParent(self)

    async def _step_down(self) -> None:
        trades, self._trades = self._trades, None
        self._markets = {}
        self._days.forget()
        if trades is not None:
            await cast(Any, trades).disownServiceParent()

    def _works(self) -> None:
        self._last_fault = ""

    def _failed(self, fault: CommandFault) -> None:
        before, self._last_fault = self._last_fault, str(fault)
        if self._last_fault != before and not isinstance(fault, OutOfReach):  # whose link that is has said so
            self.log.error("candles: Redis cannot be written to: {why}", why=self._last_fault)

    # What the trades' source says.

    def found(self, market: str) -> None:
        """See `Taker`."""
        if market not in self._markets:
            self._know(market)

    def take(self, market: str, payload: bytes, came: int, position: bytes) -> None:
        """See `Taker`."""
        known = self._markets.get(market) or self._know(market)
        if known is None:
            return
        if known.waiting is not None:
            known.waiting.append((payload, came, position))
        else:
            self._count(known, payload, came, position)

    def refused(self, what: str, why: str) -> None:
        """See `Taker`."""
        self._failed(CommandFault(f"{what} is refused: {why}"))

    def _know(self, market: str) -> _Known | None:
        if not is_market(market) or len(self._markets) >= MOST_MARKETS:
            self._drop(market, Dropped.BAD, f"no market, or one more than {MOST_MARKETS}")
            return None
        name = StreamName(TRADE, market)
        names = (str(name), self._limits.prefix + str(name))
        made = Market(market, self._limits.calendar, self._limits.late_ms)
        known = _Known(made, PublicationReader(name, names, self._limits.max_payload), [])
        self._markets[market] = known
        Deferred.fromCoroutine(self._take_over(known))
        return known

    async def _take_over(self, known: _Known) -> None:
        name = known.market.name
        since = self._ms() - DAY_MS
        while self._markets.get(name) is known:
            try:
                stored = await self._store.load(name, since)
                break
            except Overtaken as overtaken:
                await self._overtaken(overtaken)
                return
            except CommandFault as fault:
                self._failed(fault)
                await deferLater(self._clock, LOOK_SECONDS)
        if self._markets.get(name) is not known or self._trades is None:
            return
        try:
            known.market.load(stored)
        except (ValueError, TypeError, KeyError, ArithmeticError) as fault:
            self.log.error(
                "candles: what was written of {market} cannot be read, its open candles begin anew: {why}",
                market=name,
                why=str(fault)[:80],
            )
        if self._past is not None and not stored.turn:
            await self._take_past(known, self._past(name, known.waiting[0][1] if known.waiting else self._ms()))
        self._publish(known.market.again(self._ms(), self._demand.intervals.get(name, ())))
        if self._markets.get(name) is not known or self._trades is None:
            return
        self._trades.follow(name, known.market.position)
        waiting, known.waiting = known.waiting or [], None
        for each in waiting:
            self._count(known, *each)

    async def _take_past(self, known: _Known, past: Iterable[tuple[int, bytes]]) -> None:
        """What was traded before anybody looked, oldest first; written a portion at a time."""
        trades = iter(past)
        while portion := list(islice(trades, _PORTION)):
            for came, payload in portion:
                self._count(known, payload, came, known.market.position)
            known.market.pass_time(portion[-1][0])
            change, _ = known.market.change(portion[-1][0], ())
            try:
                await self._store.write([change])
            except (CommandFault, Overtaken):
                return  # the rest is a demo's
            await deferLater(self._clock, 0)

    def _count(self, known: _Known, payload: bytes, came: int, position: bytes) -> None:
        market = known.market
        try:
            trade = read_trade(known.reader.read(payload), came)
        except (BadPublication, BadTrade) as bad:
            market.skip(position)
            self._drop(market.name, Dropped.BAD, str(bad))
            return
        why = market.take(trade, came, position)
        if why is None:
            self.counts["taken"] += 1
            self.newest = came
        else:
            self._drop(market.name, why, f"id {trade.number}, time {trade.time}, came {came}")

    def _drop(self, market: str, reason: str, what: str) -> None:
        self.counts[reason] += 1
        if self._lines.take(self._clock.seconds()):
            line = "candles: a trade of {market} does not count, {reason}: {what}"
            self.log.warn(line, market=market[:64], reason=reason, what=what[:200])

    # What is due.

    async def _rounds(self) -> None:
        while True:
            try:
                if self._trades is not None:
                    await self._round(self._trades)
            except Overtaken as overtaken:
                await self._overtaken(overtaken)
            except CommandFault as fault:
                self._failed(fault)
            except CancelledError:
                raise
            except Exception:
                self.log.failure("candles: internal error")
            await deferLater(self._clock, _ROUND_SECONDS)

    async def _overtaken(self, why: Overtaken) -> None:
        if self._trades is not None:
            self.log.warn("candles: {why}", why=str(why))
            await self._step_down()

    async def _round(self, trades: Trades) -> None:
        now = self._ms()
        for known in [*self._markets.values()]:
            if (
                known.waiting is None
                and not known.is_closing
                and known.market.is_over(now, self._demand.intervals.get(known.market.name, ()))
            ):
                known.is_closing = True
                trades.reached_end(known.market.name).addCallback(self._reached_end, known, now)
        quiet: list[Publication] = []
        for name, intervals in self._demand.intervals.items():
            quiet_one = self._markets.get(name)
            if quiet_one is not None and quiet_one.waiting is None:
                quiet += quiet_one.market.quiet(now, intervals)
        self._publish(quiet)
        due = [known for known in self._markets.values() if known.written or known.market.is_due(now)]
        for known in due:
            if known.written is None:
                known.written = known.market.change(now, self._demand.intervals.get(known.market.name, ()))
        if due:
            await self._write(due)
        await self._days.tell(now, [known.market for known in due], self._taken_over.values(), self._demand)

    def _reached_end(self, has: bool, known: _Known, now: int) -> None:
        known.is_closing = False
        if has and self._markets.get(known.market.name) is known:
            known.market.pass_time(now)

    async def _write(self, due: Sequence[_Known]) -> None:
        await self._store.write([known.written[0] for known in due if known.written is not None])
        self._works()
        publications: list[Publication] = []
        for known in due:
            assert known.written is not None
            publications += known.written[1]
            known.written = None
        self.written += len(due)
        self._publish(publications)

    # What is wanted, and published.

    async def _look_who_wants(self) -> None:
        key = self._keys.wanted
        since = int(self._now() - WANTED_SECONDS)
        names = await self._commands.ask_for(key.encode(), "ZRANGEBYSCORE", key, since, "+inf")
        before, self._demand = self._demand, Demand.of(names)
        now, markets = self._ms(), self._taken_over
        self._days.tell_anew(now, markets, before, self._demand)
        for name, known in self._markets.items():
            wanted = self._demand.intervals.get(name, set())
            for interval in wanted:
                known.market.want(interval, now)
            if name in before.intervals:
                known.market.unwant(wanted)
        self._days.tell_together(self._demand)

    @property
    def _taken_over(self) -> dict[str, Market]:
        """The markets that go on, by name."""
        return {name: known.market for name, known in self._markets.items() if known.waiting is None}

    def _publish(self, publications: Sequence[Publication]) -> None:
        if publications:
            self._publisher.publish([(self._limits.prefix + stream, data) for stream, data in publications])

    def _ms(self) -> int:
        return int(self._now() * 1000)
