"""The candles of one market, made of its trades as they come.

1. Order is arrival. The first trade of a period opens its candle. A trade of a later period closes it, or the clock.
2. A trade of a period that is closed is late: it amends that candle in its extremes and sums, never in its open and
   close. What it adds is kept apart until the candle is written once more.
3. An id among the market's last 10,000 counts once. A trade that is older than it may be when it comes, or ahead of the
   time at which it comes, counts for nothing (`Dropped`).
4. Sums are exact, and prices are spelled as the engine spelled them.
5. All of it can be written down between two trades, and goes on from there as if nothing had happened.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import msgspec

from marketfeed.model.candle_store import Row
from marketfeed.model.intervals import Calendar
from marketfeed.model.kinds.kline import INTERVALS
from marketfeed.model.trades import EXACT, RecentIds, Trade, plain

__all__ = ["AHEAD_MS", "Candle", "Dropped", "MarketCandles", "flat", "missing", "newest_of"]

AHEAD_MS = 60_000
"""How far a trade may be ahead of the time at which it comes."""

_add, _multiply = EXACT.add, EXACT.multiply
_NOTHING = Decimal(0)
_SHORTEST = INTERVALS[0]


class Dropped:
    """Why a trade counts for nothing; the names under which such trades are counted."""

    REPEATED = "repeated"
    TOO_LATE = "too-late"
    TOO_FAR_AHEAD = "too-far-ahead"
    BAD = "bad"

    ALL = (REPEATED, TOO_LATE, TOO_FAR_AHEAD, BAD)


class Candle(msgspec.Struct, eq=False):
    """What the trades of one period have come to. `start`, `end`: in ms since 1970, `end` is no part of it."""

    start: int
    end: int
    first: int
    last: int
    open: str
    high: str
    low: str
    close: str
    highest: Decimal
    lowest: Decimal
    volume: Decimal = _NOTHING
    quote: Decimal = _NOTHING
    taker: Decimal = _NOTHING
    taker_quote: Decimal = _NOTHING
    trades: int = 0

    @classmethod
    def begin(cls, start: int, end: int, trade: Trade) -> Candle:
        """One of which `trade` is about to be the first."""
        price, number = trade.price, trade.number
        return cls(start, end, number, number, price, price, price, price, trade.at, trade.at)

    def take(self, trade: Trade, value: Decimal) -> None:
        """One trade more. `value`: its price times its quantity."""
        price, at, amount = trade.price, trade.at, trade.amount
        if at > self.highest:
            self.high, self.highest = price, at
        elif at < self.lowest:
            self.low, self.lowest = price, at
        self.close = price
        self.last = trade.number
        self.volume = _add(self.volume, amount)
        self.quote = _add(self.quote, value)
        if not trade.is_maker:
            self.taker = _add(self.taker, amount)
            self.taker_quote = _add(self.taker_quote, value)
        self.trades += 1

    def amended(self, row: Row) -> Row:
        """A candle that was closed, with what is in this one besides: its late trades."""
        return Row(
            row.open_time,
            row.open,
            self.high if self.highest > Decimal(row.high) else row.high,
            self.low if self.lowest < Decimal(row.low) else row.low,
            row.close,
            plain(_add(Decimal(row.volume), self.volume)),
            row.close_time,
            plain(_add(Decimal(row.quote_volume), self.quote)),
            row.trades + self.trades,
            plain(_add(Decimal(row.taker_volume), self.taker)),
            plain(_add(Decimal(row.taker_quote_volume), self.taker_quote)),
        )

    def row(self) -> Row:
        """The candle as it is kept."""
        return Row(
            self.start,
            self.open,
            self.high,
            self.low,
            self.close,
            plain(self.volume),
            self.end - 1,
            plain(self.quote),
            self.trades,
            plain(self.taker),
            plain(self.taker_quote),
        )

    def publication(self, market: str, interval: str, now: int, *, is_closed: bool) -> bytes:
        """The candle as it is published on `kline_<interval>@<market>`, at `now`, in ms since 1970."""
        return (
            f'{{"e":"kline","E":{now},"s":"{market}","k":{{"t":{self.start},"T":{self.end - 1},"s":"{market}",'
            f'"i":"{interval}","f":{self.first},"L":{self.last},"o":"{self.open}","c":"{self.close}",'
            f'"h":"{self.high}","l":"{self.low}","v":"{plain(self.volume)}","n":{self.trades},'
            f'"x":{"true" if is_closed else "false"},"q":"{plain(self.quote)}","V":"{plain(self.taker)}",'
            f'"Q":"{plain(self.taker_quote)}","B":"0"}}}}'
        ).encode()

    def written(self) -> list[Any]:
        """The candle for `read`."""
        sums = [plain(each) for each in (self.volume, self.quote, self.taker, self.taker_quote)]
        return [
            self.start,
            self.end,
            self.first,
            self.last,
            self.open,
            self.high,
            self.low,
            self.close,
            *sums,
            self.trades,
        ]

    @classmethod
    def read(cls, written: list[Any]) -> Candle:
        """The candle that was `written`."""
        start, end, first, last, opened, high, low, close, *sums, trades = written
        volume, quote, taker, taker_quote = map(Decimal, sums)
        prices = opened, high, low, close
        return cls(
            start, end, first, last, *prices, Decimal(high), Decimal(low), volume, quote, taker, taker_quote, trades
        )


def flat(start: int, end: int, price: str) -> Candle:
    """A candle of a period without trades: ids of -1, sums of 0."""
    at = Decimal(price)
    return Candle(start, end, -1, -1, price, price, price, price, at, at)


class MarketCandles:
    """The candles of one market. `late_ms`: how old a trade may be when it comes.

    `closed`: those that are closed and not written yet, with their intervals, oldest first; `late`: what late trades
    came to that are not written yet, by interval and beginning. Whoever writes them empties both. `last`: the newest
    trade that was not late; `ids`: those of trades that have counted.
    """

    def __init__(self, calendar: Calendar, late_ms: int) -> None:
        self._calendar = calendar
        self._late_ms = late_ms
        self._starts = [(interval, calendar.starts(interval)) for interval in INTERVALS]
        self.ids = RecentIds()
        self.open: dict[str, Candle] = {}
        self.until: dict[str, int] = {}
        """By interval, where the newest candle that is closed has its end, in ms since 1970."""
        self.closed: list[tuple[str, Candle]] = []
        self.late: dict[tuple[str, int], Candle] = {}
        self.last: Trade | None = None

    def take(self, trade: Trade, came: int) -> str | None:
        """One trade, which came at `came`, in ms since 1970. Returns why it is dropped, one of `Dropped`, or None."""
        time = trade.time
        if time > came + AHEAD_MS:
            return Dropped.TOO_FAR_AHEAD
        if time < came - self._late_ms or time < 0:
            return Dropped.TOO_LATE
        if not self.ids.add(trade.number):
            return Dropped.REPEATED
        value = _multiply(trade.at, trade.amount)
        found = self.open
        for interval, start_of in self._starts:
            candle = found.get(interval)
            if candle is not None and candle.start <= time < candle.end:
                candle.take(trade, value)
            else:
                self._take_apart(interval, start_of(time), trade, value)
        shortest = found.get(_SHORTEST)
        if shortest is not None and shortest.start <= time:
            self.last = trade
        return None

    def _take_apart(self, interval: str, start: int, trade: Trade, value: Decimal) -> None:
        """A trade that belongs to no open candle."""
        end = self._calendar.next(interval, start)
        present = self.open.get(interval)
        if start < (self.until.get(interval, start) if present is None else present.start):
            key = interval, start
            candle = self.late.get(key)
            if candle is None:
                candle = self.late[key] = Candle.begin(start, end, trade)
        else:
            if present is not None:
                self._close(interval, present)
            candle = self.open[interval] = Candle.begin(start, end, trade)
        candle.take(trade, value)

    def _close(self, interval: str, candle: Candle) -> None:
        self.closed.append((interval, candle))
        self.until[interval] = candle.end

    def pass_time(self, now: int) -> None:
        """Close what has come to its end at `now`, in ms since 1970."""
        for interval, candle in list(self.open.items()):
            if candle.end <= now:
                del self.open[interval]
                self._close(interval, candle)

    def written(self) -> dict[str, Any]:
        """All of it but `ids` and what is to be written elsewhere, for `read`."""
        last = self.last
        return {
            "open": {interval: candle.written() for interval, candle in self.open.items()},
            "until": self.until,
            "last": None if last is None else [last.number, last.time, last.price, last.quantity, last.is_maker],
        }

    def read(self, written: dict[str, Any], ids: RecentIds) -> None:
        """Go on where `written` says. Raises ValueError, TypeError or KeyError where it says nothing of the kind."""
        self.open = {interval: Candle.read(each) for interval, each in written["open"].items() if interval in INTERVALS}
        self.until = dict(written["until"])
        self.ids = ids
        self.last = _read_last(written["last"])


def _read_last(written: list[Any] | None) -> Trade | None:
    if written is None:
        return None
    number, time, price, quantity, is_maker = written
    return Trade(number, time, price, quantity, is_maker, Decimal(price), Decimal(quantity))


class _OpenOnes(msgspec.Struct):
    open: dict[str, tuple[int, int, int, int, str, str, str, str, str, str, str, str, int]]
    until: dict[str, int]
    last: tuple[int, int, str, str, bool] | None


_open_ones = msgspec.json.Decoder(_OpenOnes)


def newest_of(written: bytes, calendar: Calendar, interval: str, now: int) -> Candle | None:
    """The candle of the period of `now`, of the market whose candles were `written`, as JSON: the open one, or flat.

    None: there has been no trade ever. Raises ValueError where it cannot be read.
    """
    try:
        found = _open_ones.decode(written)
        if interval in found.open:
            return Candle.read(list(found.open[interval]))
        if found.last is None:
            return None
        _, _, price, *_ = found.last
        start = max(calendar.start(interval, now), found.until.get(interval, 0))
        return flat(start, calendar.next(interval, start), price)
    except (msgspec.MsgspecError, ArithmeticError, TypeError) as fault:
        raise ValueError(str(fault)[:80]) from None


def missing(calendar: Calendar, interval: str, after: int, until: int, price: str, most: int) -> Iterable[Candle]:
    """Flat candles of the periods from `after`, where one begins, that end by `until`: the newest `most` of them."""
    end = calendar.start(interval, until)
    first = max(after, calendar.before(interval, end, most))
    while first < end:
        following = calendar.next(interval, first)
        yield flat(first, following, price)
        first = following
