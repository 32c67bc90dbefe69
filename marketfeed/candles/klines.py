"""What is published of one market's candles, on its streams of candles.

1. Of an open candle no more than the newest, every second, or every two from a minute up. A closed one when it has been
   written. Periods without trades come flat, before what follows them, so that candles are equidistant and in order.
   A trade of a period that was told as flat is late: its candle is kept, and not published.
2. Nothing is published of what nobody wants. That somebody does is heard a moment later: what has closed in the last
   seconds is published then, for who got the open candle meanwhile waits for it.
3. The closed candles that a change publishes are written with it, until the next change. Who takes the market over
   publishes them once more, for nobody knows whether they were; and flat ones of the last minute, of which nothing is
   written.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import msgspec

from marketfeed.model.candle import Candle, flat, missing
from marketfeed.model.candles import AHEAD_MS, MarketCandles
from marketfeed.model.intervals import Calendar
from marketfeed.model.kinds.kline import INTERVALS

__all__ = ["SETTLED_MS", "Klines", "Publication"]

Publication = tuple[str, bytes]
"""The name of its stream, and its data."""

SETTLED_MS = 2000
"""After the end of a period the clock closes its candle."""
_FLAT = 60
"""Periods without trades that are published together, at most."""
_AGAIN = 60
"""Closed candles of a change that are remembered to be published once more, at most."""
_HEARD_MS = 5_000
"""For so long somebody may have wanted a stream when the service hears of it, at most."""
_UNTOLD_MS = 60_000
"""For so long there may have been nobody who publishes, at most; flat candles that are told once more are no older."""
_encode = msgspec.json.encode
_decode = msgspec.json.Decoder(list[tuple[str, list[Any]]]).decode


class Klines:
    """Those of the market `name`. `wanted`, of each method: the intervals that somebody wants."""

    def __init__(self, name: str, calendar: Calendar) -> None:
        self._name = name
        self._calendar = calendar
        self._told: dict[str, tuple[int, str | None]] = {}
        # By interval, up to where closed candles have been published, and the price there; None: there was none.
        self._flat: dict[str, int] = {}  # up to where flat ones have been
        self._shown: dict[str, tuple[int, int, int]] = {}  # of the open candle: when, which, and with how many trades
        self._last: list[tuple[str, Candle]] = []  # the closed candles that the last change publishes
        self._recent: dict[str, list[Candle]] = {}  # by interval, those that have closed in the last seconds

    # What is written with a change.

    def read(self, written: bytes) -> None:
        """The closed candles that the last change was to publish. Raises ValueError, TypeError or ArithmeticError."""
        self._last = [(interval, Candle.read(each)) for interval, each in _decode(written) if interval in INTERVALS]

    def publishes(self, closed: Sequence[tuple[str, Candle]], wanted: Collection[str]) -> bytes | None:
        """A change closes these; returns what is to be written of it, for `read`. None: that has not changed."""
        before, self._last = self._last, [each for each in closed if each[0] in wanted][-_AGAIN:]
        if not (before or self._last):
            return None
        return _encode([(interval, candle.written()) for interval, candle in self._last])

    @property
    def is_written(self) -> bool:
        """The last change was to publish closed candles, which the next one forgets."""
        return bool(self._last)

    # Who wants what.

    def want(self, interval: str, now: int, candles: MarketCandles) -> bool:
        """Somebody wants the candles of this interval. Whether something is to be published for that."""
        if interval in self._told:
            return False
        self._begin(interval, now, candles)
        first = next((candle for candle in self._recent.get(interval, ()) if candle.end > now - _HEARD_MS), None)
        if first is not None:
            self._told[interval] = first.start, None
        return candles.is_open(interval) or first is not None

    def _begin(self, interval: str, since: int, candles: MarketCandles) -> None:
        until, price = candles.until.get(interval, (0, None))
        opened = candles.present(interval)
        if price is None and opened is not None:
            until = opened.start
        until = max(self._calendar.start(interval, since), until)
        self._told[interval] = until, price
        self._shown[interval] = 0, until, 0  # what is flat is its state

    def unwant(self, wanted: AbstractSet[str]) -> None:
        """Nobody wants any others than these."""
        for interval in self._told.keys() - wanted:
            del self._told[interval]
            self._shown.pop(interval, None)
            self._flat.pop(interval, None)

    # What is published.

    def again(self, now: int, candles: MarketCandles, wanted: Collection[str]) -> Iterator[Publication]:
        """The market was taken over: what may not have been published before."""
        for interval in wanted:
            if interval not in self._told:
                self._begin(interval, now - _UNTOLD_MS, candles)
        for interval, candle in self._last:
            if interval in wanted:
                yield self._publication(interval, candle, now, is_closed=True)

    def is_quiet(self, now: int, candles: MarketCandles, wanted: Collection[str]) -> bool:
        """Whether a period without trades is over at `now`."""
        for interval in wanted:
            until, price = self._told.get(interval, (0, None))
            if price is not None and not candles.is_open(interval) and self._calendar.next(interval, until) <= now:
                return True
        return False

    def quiet(self, now: int, until: int, candles: MarketCandles, wanted: Collection[str]) -> Iterator[Publication]:
        """What is to be published of periods without trades that ended by `until`."""
        for interval in wanted:
            after, price = self._told.get(interval, (0, None))
            if price is None or candles.is_open(interval):
                continue
            if any(closed == interval for closed, _ in candles.closed):
                continue  # which is to be written first
            for candle in missing(self._calendar, interval, after, until, price, _FLAT):
                yield self._publication(interval, candle, now, is_closed=True)
                after = self._flat[interval] = candle.end
            self._told[interval] = after, price
            if after <= until and self._shown.get(interval, (0, 0, 0))[1] != after:
                self._shown[interval] = now, after, 0
                present = flat(after, self._calendar.next(interval, after), price)
                yield self._publication(interval, present, now, is_closed=False)

    def skip(self, forgotten: Mapping[str, tuple[int, str]]) -> None:
        """Closed candles will not come, which are no periods without trades: up to where, and the price there, by
        interval.
        """
        for interval in forgotten.keys() & self._told.keys():
            self._told[interval] = forgotten[interval]

    def closed(self, now: int, closed: Sequence[tuple[str, Candle]], wanted: Collection[str]) -> Iterator[Publication]:
        """These are, and those between them that are missing."""
        untold = self._untold(wanted)
        self._remember(closed, now)
        for interval, candle in [*untold, *closed]:
            if interval not in wanted:
                continue
            if self._is_told(interval, candle, now):
                self._told[interval] = self._told[interval][0], candle.close
                continue
            yield from self._missing_before(interval, candle, now)
            yield self._publication(interval, candle, now, is_closed=True)
            self._told[interval] = candle.end, candle.close

    def _untold(self, wanted: Collection[str]) -> list[tuple[str, Candle]]:
        """Those that closed before it was heard that somebody wants them."""
        return [
            (interval, candle)
            for interval in self._recent.keys() & self._told.keys() & set(wanted)
            for candle in self._recent[interval]
            if candle.start >= self._told[interval][0]
        ]

    def _remember(self, closed: Sequence[tuple[str, Candle]], now: int) -> None:
        """These have closed; those that did so long ago are forgotten."""
        for interval, candle in closed:
            self._recent.setdefault(interval, []).append(candle)
        for interval, candles in list(self._recent.items()):
            candles[:] = [candle for candle in candles if candle.end > now - _HEARD_MS]
            if not candles:
                del self._recent[interval]

    def _is_told(self, interval: str, candle: Candle, now: int) -> bool:
        """Its period was told as flat, unless the clock has been set back since."""
        return candle.start < self._flat.get(interval, 0) <= now + AHEAD_MS

    def _missing_before(self, interval: str, candle: Candle, now: int) -> Iterator[Publication]:
        after, price = self._told.get(interval, (0, None))
        if price is not None and after < candle.start:
            for each in missing(self._calendar, interval, after, candle.start, price, _FLAT):
                yield self._publication(interval, each, now, is_closed=True)
            self._told[interval] = candle.start, price

    def opened(self, now: int, candles: MarketCandles, wanted: Collection[str]) -> Iterator[Publication]:
        """Those that are open, as far as they have changed."""
        for interval in wanted:
            candle = candles.present(interval)
            if candle is None or self._is_told(interval, candle, now):
                continue
            at, start, trades = self._shown.get(interval, (0, 0, 0))
            pause = 1000 if interval == "1s" else 2000
            if start == candle.start and (trades == candle.trades or 0 <= now - at < pause):
                continue
            self._shown[interval] = now, candle.start, candle.trades
            yield from self._missing_before(interval, candle, now)
            yield self._publication(interval, candle, now, is_closed=False)

    def _publication(self, interval: str, candle: Candle, now: int, *, is_closed: bool) -> Publication:
        data = candle.publication(self._name, interval, now, is_closed=is_closed)
        return f"kline_{interval}@{self._name}", data
