"""The markets of a leader: taken over where they were written, and the trades that come for each.

1. A market is taken over as its first trade is found, and goes on where it was written; what comes meanwhile waits.
2. Of one of which nothing was written yet there may be a past. It is written whole, and nothing of it is published.
3. What is no trade, and a trade that cannot count, is counted by its reason, and the log has a line now and then, for
   each reason by itself. So is what comes for markets that cannot be taken over, where too much of that waits.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Protocol

import msgspec
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.task import deferLater

from marketfeed.boundaries import Clock
from marketfeed.candles.klines import Publication
from marketfeed.candles.lease import LOOK_SECONDS
from marketfeed.candles.market import Market
from marketfeed.candles.store import CandleStore, Change, Overtaken
from marketfeed.candles.trades import Trades
from marketfeed.model.candle_store import KEEP
from marketfeed.model.candles import Dropped
from marketfeed.model.intervals import Calendar
from marketfeed.model.kinds.trade import TRADE
from marketfeed.model.kinds.values import is_market
from marketfeed.model.publications import BadPublication, PublicationReader
from marketfeed.model.rate import TokenBucket
from marketfeed.model.statistics import DAY_MS
from marketfeed.model.streams import StreamName
from marketfeed.model.trades import BadTrade, read_trade
from marketfeed.redis.commands import CommandFault
from marketfeed.runtime.logs import Log

__all__ = ["MOST_MARKETS", "CandleLimits", "KnownMarket", "Leader", "Markets", "Past"]

MOST_MARKETS = 10_000
_LINES = 1 / 10
_PORTION = 500
_MOST_WAITING = 64 * 2**20
_TRADE_BYTES = 200
"""Of memory, besides what was published."""


class CandleLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator says. `late_ms`: how old a trade may be when it comes; `keep`: how many are, by interval."""

    prefix: str
    max_payload: int
    calendar: Calendar
    late_ms: int = 3_600_000
    keep: Mapping[str, int] = KEEP


class Past(Protocol):
    """What was traded before anybody looked. `markets`: where."""

    @property
    def markets(self) -> Sequence[str]: ...

    def past_of(self, market: str, until: int) -> Iterable[tuple[int, bytes]]:
        """The trades before a moment, in ms since 1970: when each came, and what was published, oldest first."""


class Leader(Protocol):
    """Whose markets they are."""

    def wanted(self, market: str) -> Collection[str]:
        """The intervals that somebody wants."""

    def publish(self, publications: Sequence[Publication]) -> None:
        """Publish these, in order."""

    def overtaken(self, why: Overtaken) -> None:
        """Another one leads, or it is to begin anew."""

    def failed(self, what: str, fault: CommandFault) -> None:
        """Redis did not do what it was asked. `what`: what that was about."""

    def works(self, what: str) -> None:
        """It did, since."""


class KnownMarket(msgspec.Struct, eq=False):
    """A market that the leader knows. `waiting`: what came before it was taken over; None: it has been, `taken`.

    `written`: what is being written, with what is to be published then; `is_closing`: it is being asked whether the
    clock may close candles.
    """

    market: Market
    reader: PublicationReader
    waiting: list[tuple[bytes, int, bytes]] | None
    taken: Deferred[None] | None = None
    written: tuple[Change, list[Publication]] | None = None
    is_closing: bool = False


class Markets:
    """All of them; the `Taker` of trades. `past`: what is to be known of those of which nothing was written yet; `now`:
    s since 1970.

    `counts`: trades that counted, as `taken`, and those that did not, by reason; `newest`: when the newest trade came,
    in ms since 1970.
    """

    log = Log()

    def __init__(
        self,
        clock: Clock,
        limits: CandleLimits,
        store: CandleStore,
        leader: Leader,
        past: Past | None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._limits = limits
        self._store = store
        self._leader = leader
        self._past = past
        self._now = now
        self._trades: Trades | None = None
        self._known: dict[str, KnownMarket] = {}
        self._refused: set[tuple[str, str]] = set()
        self._pauses: set[Deferred[None]] = set()
        self._waiting = 0  # bytes of trades that came before their market was taken over
        self._lines = {reason: TokenBucket(_LINES, 3, clock.seconds()) for reason in Dropped.ALL}
        self.counts = Counter(dict.fromkeys(("taken", *Dropped.ALL), 0))
        self.newest = 0

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[KnownMarket]:
        """Those that go on."""
        return iter([known for known in self._known.values() if known.waiting is None])

    def get(self, market: str) -> KnownMarket | None:
        """One that goes on."""
        known = self._known.get(market)
        return known if known is not None and known.waiting is None else None

    async def begin(self, trades: Trades) -> None:
        """Their trades come from here. It is done when all with a past have been taken over."""
        self._trades = trades
        markets = () if self._past is None else self._past.markets
        begun = [self._known.get(market) or self._know(market) for market in markets]
        await DeferredList([known.taken for known in begun if known is not None and known.taken is not None])

    def forget(self) -> None:
        """Somebody else has them now."""
        self._trades = None
        self._known = {}
        self._refused = set()
        self._waiting = 0
        for pause in list(self._pauses):
            pause.cancel()

    # What the trades' source says.

    def found(self, market: str) -> None:
        """See `Taker`."""
        if market not in self._known:
            self._know(market)

    def take(self, market: str, payload: bytes, came: int, position: bytes) -> None:
        """See `Taker`."""
        known = self._known.get(market) or self._know(market)
        if known is None:
            return
        if known.waiting is None:
            self._count(known, payload, came, position)
        elif self._waiting < _MOST_WAITING:
            self._waiting += len(payload) + _TRADE_BYTES
            known.waiting.append((payload, came, position))
        else:
            self._drop(market, Dropped.WAITING, "its market was not taken over yet, and too many wait for that")

    def refused(self, what: str, why: str) -> None:
        """See `Taker`."""
        if (what, why) not in self._refused:
            self._refused.add((what, why))
            self.log.error("candles: {what} is refused: {why}", what=what, why=why)

    # A market is taken over.

    def _know(self, market: str) -> KnownMarket | None:
        if not is_market(market) or len(self._known) >= MOST_MARKETS:
            self._drop(market, Dropped.BAD, f"no market, or one more than {MOST_MARKETS}")
            return None
        name = StreamName(TRADE, market)
        names = (str(name), self._limits.prefix + str(name))
        limits = self._limits
        made = Market(market, limits.calendar, limits.late_ms, limits.keep)
        known = KnownMarket(made, PublicationReader(name, names, self._limits.max_payload), [])
        self._known[market] = known
        known.taken = Deferred.fromCoroutine(self._take_over(known))
        return known

    async def _take_over(self, known: KnownMarket) -> None:
        """Where that fails for no fault of Redis, it is as if nobody had heard of the market."""
        try:
            await self._taken_over(known)
        except CancelledError:
            raise
        except Exception:
            self.log.failure("candles: internal error with {market}", market=known.market.name)
            if self._is_known(known):
                del self._known[known.market.name]
                self._take_waiting(known)

    async def _taken_over(self, known: KnownMarket) -> None:
        try:
            is_new = await self._load(known)
            if is_new and self._past is not None:
                await self._take_past(known, self._past)
        except Overtaken as overtaken:
            self._leader.overtaken(overtaken)
        if not self._is_known(known):
            return
        name = known.market.name
        self._leader.publish(known.market.again(self._ms(), self._leader.wanted(name)))
        assert self._trades is not None
        self._trades.follow(name, known.market.position)
        for each in self._take_waiting(known):
            self._count(known, *each)

    def _take_waiting(self, known: KnownMarket) -> list[tuple[bytes, int, bytes]]:
        waiting, known.waiting = known.waiting or [], None
        self._waiting -= sum(len(payload) + _TRADE_BYTES for payload, _, _ in waiting)
        return waiting

    def _is_known(self, known: KnownMarket) -> bool:
        return self._trades is not None and self._known.get(known.market.name) is known

    async def _pause(self, seconds: float) -> None:
        """Wait, but no longer than until somebody else has the markets."""
        pause: Deferred[None] = deferLater(self._clock, seconds)
        self._pauses.add(pause)
        with suppress(CancelledError):
            await pause
        self._pauses.discard(pause)

    async def _load(self, known: KnownMarket) -> bool:
        """As it was written. Whether nothing was. Raises `Overtaken`."""
        name = known.market.name
        while self._is_known(known):
            try:
                stored = await self._store.load(name, self._ms() - DAY_MS)
            except CommandFault as fault:
                self._leader.failed(name, fault)
                await self._pause(LOOK_SECONDS)
                continue
            self._leader.works(name)
            if stored.left_out:
                line = "candles: {count} entries among the minutes of {market} are left out: no candles of their time"
                self.log.warn(line, market=name, count=stored.left_out)
            try:
                known.market.load(stored)
            except (ValueError, TypeError, KeyError, ArithmeticError) as fault:
                self.log.error(
                    "candles: what was written of {market} cannot be read, its open candles begin anew: {why}",
                    market=name,
                    why=str(fault)[:80],
                )
            return not stored.turn
        return False

    async def _take_past(self, known: KnownMarket, past: Past) -> None:
        """What was traded before anybody looked, as one change. Raises `Overtaken`."""
        name, until = known.market.name, known.waiting[0][1] if known.waiting else self._ms()
        if name not in past.markets:
            return
        trades = iter(past.past_of(name, until))
        while portion := list(islice(trades, _PORTION)):
            for came, payload in portion:
                self._count(known, payload, came, known.market.position)
            known.market.pass_time(portion[-1][0])
            await self._pause(0)
            if not self._is_known(known):
                return
        change, _ = known.market.change(until, ())
        while self._is_known(known):
            try:
                await self._store.write([change])
                self._leader.works(name)
                return
            except CommandFault as fault:
                self._leader.failed(name, fault)
                await self._pause(LOOK_SECONDS)

    # A trade.

    def _count(self, known: KnownMarket, payload: bytes, came: int, position: bytes) -> None:
        market = known.market
        try:
            trade = read_trade(known.reader.read(payload), came)
            why = market.take(trade, came, position)
        except (BadPublication, BadTrade) as bad:
            market.skip(position)
            self._drop(market.name, Dropped.BAD, str(bad))
            return
        except Exception as fault:  # of this trade alone: what follows goes on
            self._drop(market.name, Dropped.BAD, f"internal error: {fault!r}")
            return
        if why is None:
            self.counts["taken"] += 1
            self.newest = came
        else:
            self._drop(market.name, why, f"id {trade.number}, time {trade.time}, came {came}")

    def _drop(self, market: str, reason: str, what: str) -> None:
        self.counts[reason] += 1
        if self._lines[reason].take(self._clock.seconds()):
            line = "candles: a trade of {market} does not count, {reason}: {what}"
            self.log.warn(line, market=market[:64], reason=reason, what=what[:200])

    def _ms(self) -> int:
        return int(self._now() * 1000)
