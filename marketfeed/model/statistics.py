"""The last 24 hours of one market, of its candles of a minute (docs/market-data.md#statistics-of-24-hours).

1. They cover the minute of now and the 1,439 before it, and say so: `O` is where the first of these begins.
2. Sums are exact, and move with the clock: what a minute has added is taken away again as it leaves. So each minute is
   remembered, as little of it as is needed. Of the ids of trades only the first one of each minute is, which is written
   down by hours: of a day little changes at a time.
3. The highest and the lowest price are found without looking at all minutes: kept are those alone that nothing later
   exceeds.
4. Without a trade in 24 hours the prices are the last one, and the sums are 0.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from decimal import Context, Decimal
from operator import ge, le
from typing import Any

from marketfeed.model.candle import Candle
from marketfeed.model.candle_store import Row
from marketfeed.model.trades import EXACT, Trade, plain

__all__ = ["DAY_MS", "MINUTE_MS", "DayStatistics", "mini_ticker"]

MINUTE_MS = 60_000
DAY_MS = 1440 * MINUTE_MS
_HOUR_MS = 60 * MINUTE_MS

_NOTHING = Decimal(0)
_HUNDRED = Decimal(100)
_PERCENT = Decimal("0.001")
_AVERAGE = Decimal("0.00000001")
_Price = tuple[int, Decimal, str]
"""Which minute had it, its value, its spelling."""


class _Extremes:
    """The prices that nothing later exceeds, oldest first: the first is the extreme of all. `beats`: `ge` or `le`."""

    __slots__ = ("_beats", "_prices")

    def __init__(self, beats: Callable[[Any, Any], bool]) -> None:
        self._beats = beats
        self._prices: list[_Price] = []

    def add(self, minute: int, text: str) -> None:
        """What a minute came to; it may be any of them, and once more."""
        value, beats, prices = Decimal(text), self._beats, self._prices
        place = len(prices)
        while place and prices[place - 1][0] > minute:
            place -= 1
        if place < len(prices) and beats(prices[place][1], value):
            return
        first = place
        while first and beats(value, prices[first - 1][1]):
            first -= 1
        prices[first:place] = [(minute, value, text)]

    def drop(self, before: int) -> None:
        """Forget the minutes before this one."""
        count = bisect_left(self._prices, before, key=lambda price: price[0])
        del self._prices[:count]

    def best(self, candle: Candle | None, of: Callable[[Candle], str]) -> str | None:
        """The extreme of all, and of a candle that is open yet."""
        text = None if candle is None else of(candle)
        if not self._prices:
            return text
        _, value, kept = self._prices[0]
        return kept if text is None or not self._beats(Decimal(text), value) or Decimal(text) == value else text


class DayStatistics:
    """What is known of the minutes that are closed; that which is open is handed in."""

    def __init__(self) -> None:
        self._minutes: deque[int] = deque()  # when each began
        self._kept: deque[bytes] = deque()  # what each came to
        self._highest, self._lowest = _Extremes(ge), _Extremes(le)
        self._volume = self._quote = _NOTHING
        self._trades = 0
        self._hours: dict[int, dict[int, int]] = {}  # the first ids, by minute, by hour
        self._unwritten: set[int] = set()  # hours that have changed since
        self._gone: list[int] = []  # those that were forgotten since
        self.close_before: str | None = None
        """The last price before the 24 hours, as far as it is known."""

    def close(self, row: Row, first: int) -> None:
        """A minute is closed. `first`: the id of its first trade. Later ones may be there that were filled in."""
        if not self._minutes or row.open_time > self._minutes[-1]:
            self._minutes.append(row.open_time)
            self._kept.append(_written(row))
            self._know_first(row.open_time, first)
        else:
            self._put(row, first)
        self._include(row)

    def amend(self, late: Candle) -> None:
        """A minute that is closed has had late trades, which came to `late`; it may have had none before."""
        place = bisect_left(list(self._minutes), late.start)
        if place < len(self._minutes) and self._minutes[place] == late.start:
            old = _read(late.start, self._kept[place])
            row = late.amended(old)
            self._count(old, -1)
            self._kept[place] = _written(row)
            self._include(row)
        else:
            self.close(late.row(), late.first)

    def _put(self, row: Row, first: int) -> None:
        """A minute that is not the newest; it takes the place of what was known of it."""
        minute = row.open_time
        place = bisect_left(list(self._minutes), minute)
        if self._minutes[place] == minute:
            self._count(_read(minute, self._kept[place]), -1)
            self._kept[place] = _written(row)
        else:
            self._minutes.insert(place, minute)
            self._kept.insert(place, _written(row))
        self._know_first(minute, first)

    def _include(self, row: Row) -> None:
        self._count(row, 1)
        self._highest.add(row.open_time, row.high)
        self._lowest.add(row.open_time, row.low)

    def _know_first(self, minute: int, first: int) -> None:
        hour = minute // _HOUR_MS
        self._hours.setdefault(hour, {})[minute] = first
        self._unwritten.add(hour)

    def pass_time(self, now: int) -> None:
        """Forget what is no part of the last 24 hours, at `now`, in ms since 1970."""
        since = _since(now)
        while self._minutes and self._minutes[0] < since:
            row = _read(self._minutes.popleft(), self._kept.popleft())
            self._count(row, -1)
            self.close_before = row.close
            self._forget_first(row.open_time)
        if not self._minutes:
            self._volume = self._quote = _NOTHING  # and not 0.00
        self._highest.drop(since)
        self._lowest.drop(since)

    def _forget_first(self, minute: int) -> None:
        hour = minute // _HOUR_MS
        firsts = self._hours[hour]
        firsts.pop(minute, None)
        if not firsts:
            del self._hours[hour]
            self._unwritten.discard(hour)
            self._gone.append(hour)

    def _count(self, row: Row, sign: int) -> None:
        count = EXACT.add if sign > 0 else EXACT.subtract
        self._volume = count(self._volume, Decimal(row.volume))
        self._quote = count(self._quote, Decimal(row.quote_volume))
        self._trades += sign * row.trades

    def unwritten(self) -> tuple[dict[int, dict[int, int]], list[int]]:
        """What the rows of its minutes do not say and has changed since this was asked: the first ids, by hour and
        minute; and the hours to be forgotten.
        """
        changed = {hour: self._hours[hour] for hour in sorted(self._unwritten)}
        gone, self._gone = self._gone, []
        self._unwritten = set()
        return changed, [hour for hour in gone if hour not in self._hours]

    @classmethod
    def read(
        cls, rows: Iterable[Row], hours: Mapping[int, Mapping[int, int]], close_before: str | None
    ) -> DayStatistics:
        """That of the minutes that are kept, in order, and of what was written down besides."""
        found = cls()
        found.close_before = close_before
        known = {minute: first for firsts in hours.values() for minute, first in firsts.items()}
        for row in rows:
            found.close(row, known.get(row.open_time, -1))
        found._gone = [hour for hour in hours if hour not in found._hours]
        found._unwritten = set()
        return found

    def ticker(self, market: str, now: int, last: Trade, candle: Candle | None) -> dict[str, Any]:
        """A `24hrTicker` without the best prices. `last`: the newest trade; `candle`: the minute that is open, if any.

        `pass_time` comes first.
        """
        volume, quote, trades = self._volume, self._quote, self._trades
        first_id, opened = -1, last.price
        if self._minutes:
            minute = self._minutes[0]
            opened, first_id = _read(minute, self._kept[0]).open, self._hours[minute // _HOUR_MS][minute]
        elif candle is not None:
            first_id, opened = candle.first, candle.open
        if candle is not None:
            volume, quote = EXACT.add(volume, candle.volume), EXACT.add(quote, candle.quote)
            trades += candle.trades
        change = EXACT.subtract(last.at, Decimal(opened))
        return {
            "e": "24hrTicker",
            "E": now,
            "s": market,
            "p": plain(change),
            "P": plain(_ratio(EXACT.multiply(change, _HUNDRED), Decimal(opened), _PERCENT)),
            "w": plain(_ratio(quote, volume, _AVERAGE)) if volume else last.price,
            "x": self.close_before or opened,
            "c": last.price,
            "Q": last.quantity,
            "o": opened,
            "h": self._highest.best(candle, lambda each: each.high) or last.price,
            "l": self._lowest.best(candle, lambda each: each.low) or last.price,
            "v": plain(volume),
            "q": plain(quote),
            "O": _since(now),
            "C": now,
            "F": first_id,
            "L": last.number if trades else -1,
            "n": trades,
        }


def mini_ticker(ticker: Mapping[str, Any]) -> dict[str, Any]:
    """The `24hrMiniTicker` of a `24hrTicker`."""
    return {"e": "24hrMiniTicker", **{field: ticker[field] for field in ("E", "s", "c", "o", "h", "l", "v", "q")}}


def _since(now: int) -> int:
    return now - now % MINUTE_MS - DAY_MS + MINUTE_MS


def _ratio(part: Decimal, whole: Decimal, step: Decimal) -> Decimal:
    """Rounded to a multiple of `step`; 0 of nothing."""
    if not whole:
        return _NOTHING.quantize(step)
    exact = _RATIOS.divide(part, whole)
    return exact.quantize(step, context=_RATIOS) if abs(exact) < _LARGEST else exact


_RATIOS = Context(prec=400, Emax=EXACT.Emax, Emin=EXACT.Emin, traps=[])
_LARGEST = Decimal("1e300")


def _written(row: Row) -> bytes:
    """Little of it, for there are 1,440 of each market."""
    return f"{row.open} {row.high} {row.low} {row.close} {row.volume} {row.quote_volume} {row.trades}".encode()


def _read(minute: int, written: bytes) -> Row:
    opened, high, low, close, volume, quote, trades = written.decode().split(" ")
    return Row(minute, opened, high, low, close, volume, minute + MINUTE_MS - 1, quote, int(trades), "0", "0")
