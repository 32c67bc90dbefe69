"""One market of the candle service: its candles, its last 24 hours, what is to be written and what to be published.

1. What is written at one moment is a `Change`. What comes while it is under way belongs to the next one.
2. A closed candle is published when it has been written, and of the open one no more than the newest, every second, or
   every two from a minute up. Periods without trades are published flat, so that candles are equidistant.
3. Nothing is published of what nobody wants. Who begins to want a stream gets what comes from then on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import msgspec

from marketfeed.candles.store import Change, Stored
from marketfeed.model.candles import Candle, MarketCandles, flat, missing
from marketfeed.model.intervals import Calendar
from marketfeed.model.kinds.kline import INTERVALS
from marketfeed.model.statistics import DayStatistics, mini_ticker
from marketfeed.model.trades import RecentIds, Trade

__all__ = ["SETTLED_MS", "Market", "Publication"]

Publication = tuple[str, bytes]
"""The name of its stream, and its data."""

SETTLED_MS = 2000
"""After the end of a period the clock closes its candle."""
_WRITTEN_MS = 1000
"""What has changed is written so often at most, unless a candle has closed."""
_FLAT = 60
"""Periods without trades that are published together, at most."""
_IDS, _HOUR, _BEFORE = b"ids:", b"hour:", b"before"
"""Parts of what is written: ids of trades, the first ids of the minutes of an hour, the price before the day."""
_encode = msgspec.json.encode
_read_ids = msgspec.json.Decoder(list[tuple[int, int]]).decode
_read_hour = msgspec.json.Decoder(dict[int, int]).decode
_read_price = msgspec.json.Decoder(str | None).decode


class Market:
    """The market `name`. `late_ms`: how old a trade may be when it comes."""

    def __init__(self, name: str, calendar: Calendar, late_ms: int) -> None:
        self.name = name
        self._calendar = calendar
        self._late_ms = late_ms
        self.candles = MarketCandles(calendar, late_ms)
        self._day = DayStatistics()
        self._before: str | None = None  # the price before the day, as it was written
        self.position = b""
        self._turn = 0
        self._is_dirty = False
        self._written_at = 0
        self._announced: dict[str, int] = {}  # up to where closed candles have been published, by interval
        self._shown: dict[str, tuple[int, int, int]] = {}  # of the open candle: when, which, and with how many trades
        self._last_mini: dict[str, Any] = {}

    def load(self, stored: Stored) -> None:
        """Go on where it was written. Raises ValueError, TypeError, KeyError or ArithmeticError where that cannot be
        read: then it goes on there with candles that are new.
        """
        self._turn = stored.turn
        self.position = stored.position
        try:
            ids = {_number(name): _read_ids(part) for name, part in stored.parts.items() if name.startswith(_IDS)}
            hours = {_number(name): _read_hour(part) for name, part in stored.parts.items() if name.startswith(_HOUR)}
            before = _read_price(stored.parts.get(_BEFORE, b"null"))
            if stored.candles is not None:
                self.candles.read(msgspec.json.decode(stored.candles), RecentIds.of(ids))
            self._day = DayStatistics.read(stored.minutes, hours, before)
        except (ValueError, TypeError, KeyError, ArithmeticError):
            self.candles = MarketCandles(self._calendar, self._late_ms)
            self._day = DayStatistics()
            raise

    def take(self, trade: Trade, came: int, position: bytes) -> str | None:
        """One trade; returns why it is dropped, or None. `position`: where it stands in its stream."""
        self.position = position
        self._is_dirty = True  # also by the position of one that is dropped
        return self.candles.take(trade, came)

    def skip(self, position: bytes) -> None:
        """What stands there is no trade."""
        self.position = position
        self._is_dirty = True

    def is_due(self, now: int) -> bool:
        """Whether something is to be written now."""
        if not self._is_dirty:
            return False
        return now - self._written_at >= _WRITTEN_MS or any(interval != "1s" for interval, _ in self.candles.closed)

    def is_over(self, now: int) -> bool:
        """Whether the clock is to close a candle."""
        return any(candle.end + SETTLED_MS <= now for candle in self.candles.open.values())

    def pass_time(self, now: int) -> None:
        """All that was published until `now`, in ms since 1970, has come."""
        before = len(self.candles.closed)
        self.candles.pass_time(now - SETTLED_MS)
        self._is_dirty |= len(self.candles.closed) > before

    def change(self, now: int, wanted: Collection[str]) -> tuple[Change, list[Publication]]:
        """What is to be written, and what to be published when it is. `wanted`: the intervals that somebody wants."""
        closed, self.candles.closed = self.candles.closed, []
        late, self.candles.late = self.candles.late, {}
        for interval, candle in closed:
            if interval == "1m":
                self._day.close(candle.row(), candle.first)
        for (interval, _), candle in late.items():
            if interval == "1m":
                self._day.amend(candle)
        self._day.pass_time(now)
        self._turn += 1
        self._is_dirty = False
        self._written_at = now
        parts, gone = self._parts()
        candles = _encode(self.candles.written())
        change = Change(self.name, self._turn, self.position, candles, parts, gone, closed, late)
        return change, [*self._closed(now, closed, wanted), *self._open(now, wanted)]

    def _parts(self) -> tuple[dict[bytes, bytes], list[bytes]]:
        """What has changed of all that is large, and what of it is to be forgotten."""
        ids, old_ids = self.candles.ids.unwritten()
        hours, old_hours = self._day.unwritten()
        parts = {b"%b%d" % (_IDS, number): _encode(runs) for number, runs in ids.items()}
        parts |= {b"%b%d" % (_HOUR, hour): _encode(firsts) for hour, firsts in hours.items()}
        if self._day.close_before != self._before:
            self._before = self._day.close_before
            parts[_BEFORE] = _encode(self._before)
        gone = [b"%b%d" % (_IDS, number) for number in old_ids] + [b"%b%d" % (_HOUR, hour) for hour in old_hours]
        return parts, gone

    # What is published.

    def want(self, interval: str, now: int) -> None:
        """Somebody wants the candles of this interval: what is open is published next time."""
        if interval not in self._announced:
            self._announced[interval] = self._calendar.start(interval, now)
            self._is_dirty |= interval in self.candles.open

    def unwant(self, wanted: Collection[str]) -> None:
        """Nobody wants any others than these."""
        for interval in INTERVALS:
            if interval not in wanted:
                self._announced.pop(interval, None)
                self._shown.pop(interval, None)

    def quiet(self, now: int, wanted: Collection[str]) -> Iterator[Publication]:
        """What is to be published of periods without trades that are over at `now`."""
        last = self.candles.last
        for interval in wanted if last is not None else ():
            assert last is not None
            until = self._announced.get(interval)
            if interval in self.candles.open or until is None:
                continue
            if any(closed == interval for closed, _ in self.candles.closed):
                continue  # which is to be written first
            for candle in missing(self._calendar, interval, until, now - SETTLED_MS, last.price, _FLAT):
                yield self._published(interval, candle, now, is_closed=True)
                self._announced[interval] = until = candle.end
                if candle.end > now - SETTLED_MS - (candle.end - candle.start):
                    following = flat(candle.end, self._calendar.next(interval, candle.end), last.price)
                    yield self._published(interval, following, now, is_closed=False)

    def _closed(self, now: int, closed: list[tuple[str, Candle]], wanted: Collection[str]) -> Iterator[Publication]:
        for interval, candle in closed:
            if interval not in wanted:
                continue
            until = self._announced.get(interval, candle.start)
            for each in missing(self._calendar, interval, until, candle.start, candle.open, _FLAT):
                yield self._published(interval, each, now, is_closed=True)
            yield self._published(interval, candle, now, is_closed=True)
            self._announced[interval] = candle.end

    def _open(self, now: int, wanted: Collection[str]) -> Iterator[Publication]:
        for interval in wanted:
            candle = self.candles.open.get(interval)
            if candle is None:
                continue
            at, start, trades = self._shown.get(interval, (0, 0, 0))
            if start == candle.start and (trades == candle.trades or now - at < (1000 if interval == "1s" else 2000)):
                continue
            self._shown[interval] = now, candle.start, candle.trades
            yield self._published(interval, candle, now, is_closed=False)

    def _published(self, interval: str, candle: Candle, now: int, *, is_closed: bool) -> Publication:
        return f"kline_{interval}@{self.name}", candle.publication(self.name, interval, now, is_closed=is_closed)

    # The last 24 hours.

    def ticker(self, now: int, *, again: bool = False) -> tuple[bytes, bytes | None] | None:
        """A `24hrTicker`, and a `24hrMiniTicker` if that has changed, or `again`; None: there has been no trade."""
        last = self.candles.last
        if last is None:
            return None
        self._day.pass_time(now)
        ticker = self._day.ticker(self.name, now, last, self.candles.open.get("1m"))
        mini = mini_ticker(ticker)
        before, self._last_mini = self._last_mini, {**mini, "E": 0}
        is_new = again or self._last_mini != before
        return _encode(ticker), _encode(mini) if is_new else None


def _number(name: bytes) -> int:
    return int(name.partition(b":")[2])
