"""One candle: what the trades of one period have come to, as it is kept, published, and written down.

Sums are exact, and prices are spelled as the engine spelled them: of equal extremes the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from marketfeed.model.candle_store import Row, is_sum
from marketfeed.model.decimals import is_decimal
from marketfeed.model.intervals import Calendar
from marketfeed.model.trades import EXACT, Trade, plain

__all__ = ["LATEST", "Candle", "flat", "missing"]

_add = EXACT.add
_NOTHING = Decimal(0)
_EARLIEST, LATEST = -(10**13), 10**14
"""Between these times, in ms since 1970, there is a calendar."""


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

    def include(self, later: Candle) -> None:
        """Trades more, in order, which are all in its period: what they came to."""
        if later.highest > self.highest:
            self.high, self.highest = later.high, later.highest
        if later.lowest < self.lowest:
            self.low, self.lowest = later.low, later.lowest
        self.close = later.close
        self.last = later.last
        self.volume = _add(self.volume, later.volume)
        self.quote = _add(self.quote, later.quote)
        self.taker = _add(self.taker, later.taker)
        self.taker_quote = _add(self.taker_quote, later.taker_quote)
        self.trades += later.trades

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
    def read(cls, written: Sequence[Any]) -> Candle:
        """The candle that was `written`. Raises ValueError, or TypeError, where it is none."""
        start, end, first, last, opened, high, low, close, *sums, trades = written
        prices = opened, high, low, close
        if not (_EARLIEST < start < end < LATEST and all(map(is_decimal, prices)) and all(map(is_sum, sums))):
            raise ValueError("it is no candle")
        volume, quote, taker, taker_quote = map(Decimal, sums)
        return cls(
            start, end, first, last, *prices, Decimal(high), Decimal(low), volume, quote, taker, taker_quote, trades
        )


def flat(start: int, end: int, price: str) -> Candle:
    """A candle of a period without trades: ids of -1, sums of 0."""
    at = Decimal(price)
    return Candle(start, end, -1, -1, price, price, price, price, at, at)


def missing(calendar: Calendar, interval: str, after: int, until: int, price: str, most: int) -> Iterable[Candle]:
    """Flat candles of the periods from `after`, where one begins, that end by `until`: the newest `most` of them."""
    end = calendar.start(interval, until)
    first = max(after, calendar.before(interval, end, most))
    while first < end:
        following = calendar.next(interval, first)
        yield flat(first, following, price)
        first = following
