"""One market of the candle service: its candles, its last 24 hours, what is to be written and what to be published.

1. What is written at one moment is a `Change`. What comes while it is under way belongs to the next one.
2. What a change publishes is published when it has been written (`klines`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import msgspec

from marketfeed.candles.klines import SETTLED_MS, Klines, Publication
from marketfeed.candles.store import Change, Stored
from marketfeed.model.candle_store import KEEP
from marketfeed.model.candles import MarketCandles
from marketfeed.model.intervals import Calendar
from marketfeed.model.statistics import DayStatistics, mini_ticker
from marketfeed.model.trades import RecentIds, Trade

__all__ = ["Market"]

_WRITTEN_MS = 1000
"""What has changed is written so often at most, unless a candle has closed."""
_IDS, _HOUR, _BEFORE, _LONGER, _TOLD = b"ids:", b"hour:", b"before", b"longer", b"told"
"""Parts of what is written: ids of trades, the first ids of the minutes of an hour, the price before the day, the open
candles of a minute and longer ones, and the closed ones that the change publishes.
"""
_encode = msgspec.json.encode
_read_ids = msgspec.json.Decoder(list[tuple[int, int]]).decode
_read_hour = msgspec.json.Decoder(dict[int, int]).decode
_read_price = msgspec.json.Decoder(str | None).decode


class Market:
    """The market `name`. `late_ms`: how old a trade may be when it comes; `keep`: how many candles are, by interval."""

    def __init__(self, name: str, calendar: Calendar, late_ms: int, keep: Mapping[str, int] = KEEP) -> None:
        self.name = name
        self._calendar = calendar
        self._late_ms = late_ms
        self._keep = keep
        self.candles = MarketCandles(calendar, late_ms, keep)
        self._day = DayStatistics()
        self._before: str | None = None  # the price before the day, as it was written
        self.position = b""
        self._turn = 0
        self.is_dirty = False
        """Something has come since the last change."""
        self._written_at = 0
        self._passed = 0  # until when all that was published has come
        self._klines = Klines(name, calendar)
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
                self.candles.read(stored.candles, stored.parts[_LONGER], RecentIds.of(ids))
            self._day = DayStatistics.read(stored.minutes, hours, before)
            self._klines.read(stored.parts.get(_TOLD, b"[]"))
        except (ValueError, TypeError, KeyError, ArithmeticError):
            self.candles = MarketCandles(self._calendar, self._late_ms, self._keep)
            self._day = DayStatistics()
            raise

    def take(self, trade: Trade, came: int, position: bytes) -> str | None:
        """One trade; returns why it is dropped, or None. `position`: where it stands in its stream."""
        self.position = position
        self.is_dirty = True  # also by the position of one that is dropped
        return self.candles.take(trade, came)

    def skip(self, position: bytes) -> None:
        """What stands there is no trade."""
        self.position = position
        self.is_dirty = True

    @property
    def is_forgetting(self) -> bool:
        """Too much of it has closed since it was last written; the oldest of that is lost."""
        return bool(self.candles.forgotten)

    def is_due(self, now: int) -> bool:
        """Whether something is to be written now."""
        if not self.is_dirty:
            return False
        if not 0 <= now - self._written_at < _WRITTEN_MS:  # or the clock has been set back
            return True
        return any(interval != "1s" for interval, _ in self.candles.closed)

    def is_over(self, now: int, wanted: Collection[str]) -> bool:
        """Whether the clock is to close a candle, or to say that there was no trade. `wanted`: as for `change`."""
        over = now - SETTLED_MS
        return self.candles.is_over(over) or self._klines.is_quiet(over, self.candles, wanted)

    def pass_time(self, now: int) -> None:
        """All that was published until `now`, in ms since 1970, has come."""
        self._passed = now
        self.is_dirty |= self.candles.pass_time(now - SETTLED_MS)

    def change(self, now: int, wanted: Collection[str]) -> tuple[Change, list[Publication]]:
        """What is to be written, and what to be published when it is. `wanted`: the intervals that somebody wants."""
        closed, late, forgotten = self.candles.take_closed()
        for interval, candle in closed:
            if interval == "1m":
                self._day.close(candle.row(), candle.first)
        for (interval, _), candle in late.items():
            if interval == "1m":
                self._day.amend(candle)
        self._day.pass_time(now)
        self._turn += 1
        self._written_at = now
        parts, gone = self._parts()
        told = self._klines.publishes(closed, wanted)
        if told is not None:
            parts[_TOLD] = told
        self.is_dirty = self._klines.is_written
        candles = _encode(self.candles.written())
        self._klines.skip(forgotten)
        change = Change(self.name, self._turn, self.position, candles, parts, gone, closed, late)
        return change, [
            *self._klines.closed(now, closed, wanted),
            *self._klines.opened(now, self.candles, wanted),
        ]

    def _parts(self) -> tuple[dict[bytes, bytes], list[bytes]]:
        """What has changed of all that is large, and what of it is to be forgotten."""
        ids, old_ids = self.candles.ids.unwritten()
        hours, old_hours = self._day.unwritten()
        parts = {b"%b%d" % (_IDS, number): _encode(runs) for number, runs in ids.items()}
        parts |= {b"%b%d" % (_HOUR, hour): _encode(firsts) for hour, firsts in hours.items()}
        longer = self.candles.unwritten()
        if longer is not None:
            parts[_LONGER] = _encode(longer)
        if self._day.close_before != self._before:
            self._before = self._day.close_before
            parts[_BEFORE] = _encode(self._before)
        gone = [b"%b%d" % (_IDS, number) for number in old_ids] + [b"%b%d" % (_HOUR, hour) for hour in old_hours]
        return parts, gone

    # What is published.

    def want(self, interval: str, now: int) -> None:
        """Somebody wants the candles of this interval: what has just closed and what is open is published next time."""
        self.is_dirty |= self._klines.want(interval, now, self.candles)

    def unwant(self, wanted: AbstractSet[str]) -> None:
        """Nobody wants any others than these."""
        self._klines.unwant(wanted)

    def again(self, now: int, wanted: Collection[str]) -> list[Publication]:
        """The market was taken over: what may not have been published before is, once more."""
        self.is_dirty |= self._klines.is_written
        return [*self._klines.again(now, self.candles, wanted)]

    def quiet(self, now: int, wanted: Collection[str]) -> Iterator[Publication]:
        """What is to be published at `now` of periods without trades."""
        return self._klines.quiet(now, self._passed - SETTLED_MS, self.candles, wanted)

    # The last 24 hours.

    def ticker(self, now: int, *, again: bool = False) -> tuple[bytes, bytes | None] | None:
        """A `24hrTicker`, and a `24hrMiniTicker` if that has changed, or `again`; None: there has been no trade."""
        last = self.candles.last
        if last is None:
            return None
        self._day.pass_time(now)
        ticker = self._day.ticker(self.name, now, last, self.candles.present("1m"))
        mini = mini_ticker(ticker)
        before, self._last_mini = self._last_mini, {**mini, "E": 0}
        is_new = again or self._last_mini != before
        return _encode(ticker), _encode(mini) if is_new else None


def _number(name: bytes) -> int:
    return int(name.partition(b":")[2])
