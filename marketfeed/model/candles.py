"""The candles of one market, made of its trades as they come.

1. Order is arrival. The first trade of a period opens its candle. A trade of a later period closes it, or the clock.
2. A trade of a period that is closed is late: it amends that candle in its extremes and sums, never in its open and
   close. What it adds is kept apart until the candle is written once more.
3. An id among the market's last 10,000 counts once. A trade that is older than it may be when it comes, or ahead of the
   time at which it comes, counts for nothing (`Dropped`).
4. Sums are exact, and prices are spelled as the engine spelled them.
5. All of it can be written down between two trades, and goes on from there as if nothing had happened.
6. Trades that follow one another within a minute are summed up once, apart from the candles of a minute and longer ones
   (a run), and join these when the minute is over, or anything else is to happen to one of them: what they come to is
   the same. So of the longer ones little is to be done, and little to be written, but once a minute.
7. While nobody writes them, what is closed waits, as many of each interval as are to be kept, and some more: the oldest
   are forgotten, which would be taken away as soon as they were written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec
from msgspec.structs import replace

from marketfeed.model.candle import LATEST, Candle, flat
from marketfeed.model.candle_store import KEEP
from marketfeed.model.decimals import is_decimal
from marketfeed.model.intervals import Calendar
from marketfeed.model.kinds.kline import INTERVALS
from marketfeed.model.trades import EXACT, RecentIds, Trade

__all__ = ["AHEAD_MS", "Dropped", "MarketCandles", "newest_of"]

AHEAD_MS = 60_000
"""How far a trade may be ahead of the time at which it comes."""

_ROOM = 1000
"""Closed candles, and late ones, that may wait besides those that are to be kept."""
_multiply = EXACT.multiply
_SHORTEST, _MINUTE = INTERVALS[:2]


class Dropped:
    """Why a trade counts for nothing; the names under which such trades are counted."""

    REPEATED = "repeated"
    TOO_LATE = "too-late"
    TOO_FAR_AHEAD = "too-far-ahead"
    BAD = "bad"
    WAITING = "waiting"

    ALL = (REPEATED, TOO_LATE, TOO_FAR_AHEAD, BAD, WAITING)


class MarketCandles:
    """The candles of one market. `late_ms`: how old a trade may be when it comes; `keep`: how many are to be kept, by
    interval.

    `closed`: those that are closed and not written yet, with their intervals, oldest first; `late`: what late trades
    came to that are not written yet, by interval and beginning; `forgotten`: of those that waited too long the end and
    the close of the newest, by interval. Whoever writes them takes all (`take_closed`). `last`: the newest trade that
    was not late; `ids`: those of trades that have counted.
    """

    def __init__(self, calendar: Calendar, late_ms: int, keep: Mapping[str, int] = KEEP) -> None:
        self._calendar = calendar
        self._late_ms = late_ms
        self._keep = keep
        self._starts = [(interval, calendar.starts(interval)) for interval in INTERVALS]
        self._start_of_shortest = calendar.starts(_SHORTEST)
        self.ids = RecentIds()
        self._open: dict[str, Candle] = {}
        self._run: Candle | None = None  # what has not joined the longer ones that are open
        self._run_start = self._run_end = 0  # the minute of the run; the same: trades begin none
        self._has_longer = True  # the longer ones have changed since they were written
        self._looked_until = 0  # no open candle has its end before that
        self.until: dict[str, tuple[int, str]] = {}
        """By interval, where the newest candle that is closed has its end, in ms since 1970, and its close."""
        self.closed: list[tuple[str, Candle]] = []
        self.late: dict[tuple[str, int], Candle] = {}
        self.forgotten: dict[str, tuple[int, str]] = {}
        self._most_closed = self._most_late = _ROOM
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
        if self._run_start <= time < self._run_end:
            run = self._run
            if run is None:
                run = self._run = Candle.begin(self._run_start, self._run_end, trade)
            run.take(trade, value)
            self._take_into(_SHORTEST, self._start_of_shortest, trade, value)
        elif time < LATEST:
            self._begin_run(trade, value)
        else:
            return Dropped.TOO_FAR_AHEAD
        shortest = self._open.get(_SHORTEST)
        if shortest is not None and shortest.start <= time:
            self.last = trade
        return None

    def _begin_run(self, trade: Trade, value: Decimal) -> None:
        """A trade for the candles themselves. Those that follow in its minute are for the same, unless it was late."""
        self._end_run()
        self._has_longer = True
        was_late = False
        for interval, start_of in self._starts:
            is_late = self._take_into(interval, start_of, trade, value)
            was_late |= is_late and interval != _SHORTEST
        if not was_late:
            minute = self._open[_MINUTE]
            self._run_start, self._run_end = minute.start, minute.end

    def _end_run(self) -> None:
        run, self._run = self._run, None
        self._run_start = self._run_end = 0
        if run is None:
            return
        self._has_longer = True
        for interval, candle in self._open.items():
            if interval != _SHORTEST:
                candle.include(run)

    def _take_into(self, interval: str, start_of: Callable[[int], int], trade: Trade, value: Decimal) -> bool:
        """One candle more has it. Whether the trade is late there."""
        time = trade.time
        present = self._open.get(interval)
        if present is not None and present.start <= time < present.end:
            present.take(trade, value)
            return False
        start = start_of(time)
        end = self._calendar.next(interval, start)
        is_late = start < (self.until.get(interval, (start,))[0] if present is None else present.start)
        if is_late:
            key = interval, start
            candle = self.late.get(key)
            if candle is None:
                candle = self.late[key] = Candle.begin(start, end, trade)
                if len(self.late) > self._most_late:
                    self._forget_late()
        else:
            if present is not None:
                self._close(interval, present)
            candle = self._open[interval] = Candle.begin(start, end, trade)
            self._looked_until = min(self._looked_until, end)
        candle.take(trade, value)
        return is_late

    def _close(self, interval: str, candle: Candle) -> None:
        self.closed.append((interval, candle))
        self.until[interval] = candle.end, candle.close
        if len(self.closed) > self._most_closed:
            self._forget_closed()

    def _forget_closed(self) -> None:
        counts: Counter[str] = Counter()
        kept = []
        forgotten: dict[str, tuple[int, str]] = {}
        for interval, candle in reversed(self.closed):
            counts[interval] += 1
            if counts[interval] <= self._keep[interval]:
                kept.append((interval, candle))
            else:
                forgotten.setdefault(interval, (candle.end, candle.close))
        self.closed = kept[::-1]
        self.forgotten |= forgotten
        self._most_closed = len(kept) + _ROOM

    def _forget_late(self) -> None:
        counts: Counter[str] = Counter()
        kept = {}
        for interval, start in sorted(self.late, key=lambda key: key[1], reverse=True):
            counts[interval] += 1
            if counts[interval] <= self._keep[interval]:
                kept[interval, start] = self.late[interval, start]
        self.late = kept
        self._most_late = len(kept) + _ROOM

    def take_closed(self) -> tuple[list[tuple[str, Candle]], dict[tuple[str, int], Candle], dict[str, tuple[int, str]]]:
        """`closed`, `late` and `forgotten`, which are empty then."""
        taken = self.closed, self.late, self.forgotten
        self.closed, self.late, self.forgotten = [], {}, {}
        self._most_closed = self._most_late = _ROOM
        return taken

    def is_over(self, now: int) -> bool:
        """Whether an open candle has come to its end at `now`, in ms since 1970."""
        if self._looked_until <= now:
            self._looked_until = min([candle.end for candle in self._open.values()], default=now + 1)
        return self._looked_until <= now

    def pass_time(self, now: int) -> bool:
        """Close what has come to its end at `now`, in ms since 1970. Whether there was any."""
        over = [interval for interval, candle in self._open.items() if candle.end <= now]
        if over and over != [_SHORTEST]:
            self._end_run()
            self._has_longer = True
        for interval in over:
            self._close(interval, self._open.pop(interval))
        return bool(over)

    def is_open(self, interval: str) -> bool:
        """Whether there is an open candle."""
        return interval in self._open

    def present(self, interval: str) -> Candle | None:
        """The open candle as it is now, to be read at once."""
        candle = self._open.get(interval)
        return candle if candle is None or interval == _SHORTEST else _joined(candle, self._run)

    # What is written down.

    def written(self) -> dict[str, Any]:
        """What changes with each trade, but for `ids` and what is to be written elsewhere; for `read`."""
        last, shortest = self.last, self._open.get(_SHORTEST)
        return {
            "open": None if shortest is None else shortest.written(),
            "until": self.until.get(_SHORTEST),
            "run": None if self._run is None else self._run.written(),
            "last": None if last is None else [last.number, last.time, last.price, last.quantity, last.is_maker],
        }

    def unwritten(self) -> dict[str, Any] | None:
        """The longer candles, if they have changed since this was asked; for `read`."""
        if not self._has_longer:
            return None
        self._has_longer = False
        return {
            "open": {interval: candle.written() for interval, candle in self._open.items() if interval != _SHORTEST},
            "until": {interval: until for interval, until in self.until.items() if interval != _SHORTEST},
        }

    def read(self, written: bytes, longer: bytes, ids: RecentIds) -> None:
        """Go on where these say, as JSON. Raises ValueError, TypeError or ArithmeticError where they say nothing of the
        kind.
        """
        short, long = _decode_short(written), _decode_long(longer)
        opened = {interval: Candle.read(each) for interval, each in long.open.items() if interval in INTERVALS}
        if short.open is not None:
            opened[_SHORTEST] = Candle.read(short.open)
        run = None if short.run is None else Candle.read(short.run)
        last = _read_last(short.last)
        until = long.until | ({} if short.until is None else {_SHORTEST: short.until})
        for end, price in until.values():
            Candle.read([end - 1, end, 0, 0, *[price] * 4, *["0"] * 4, 0])  # or it is refused
        self._open, self._run, self.last, self.ids = opened, run, last, ids
        if run is not None:
            self._run_start, self._run_end = run.start, run.end
        self.until = until


_Row = tuple[int, int, int, int, str, str, str, str, str, str, str, str, int]
"""A candle, as `Candle.read` takes it."""


class _Short(msgspec.Struct):
    """What `MarketCandles.written` says."""

    open: _Row | None
    until: tuple[int, str] | None
    run: _Row | None
    last: tuple[int, int, str, str, bool] | None


class _Long(msgspec.Struct):
    """What `MarketCandles.unwritten` says."""

    open: dict[str, _Row]
    until: dict[str, tuple[int, str]]


_decode_short = msgspec.json.Decoder(_Short).decode
_decode_long = msgspec.json.Decoder(_Long).decode


def _joined(candle: Candle, run: Candle | None) -> Candle:
    if run is None:
        return candle
    whole = replace(candle)
    whole.include(run)
    return whole


def _read_last(written: tuple[int, int, str, str, bool] | None) -> Trade | None:
    if written is None:
        return None
    number, time, price, quantity, is_maker = written
    if not (is_decimal(price) and is_decimal(quantity)):
        raise ValueError("it is no trade")
    return Trade(number, time, price, quantity, is_maker, Decimal(price), Decimal(quantity))


def newest_of(fields: Sequence[bytes | None], calendar: Calendar, interval: str, now: int) -> Candle | None:
    """The candle of the period of `now`, of a market: the open one, or flat. None: there has been no trade ever.

    `fields`: what was `written`, and what was `unwritten` last, as JSON. Raises ValueError where they cannot be read.
    """
    written, longer = fields
    if written is None:
        return None
    try:
        short, long = _decode_short(written), _decode_long(longer or b"")
        opened = short.open if interval == _SHORTEST else long.open.get(interval)
        if opened is not None:
            run = None if short.run is None or interval == _SHORTEST else Candle.read(short.run)
            return _joined(Candle.read(opened), run)
        if short.last is None:
            return None
        until = short.until if interval == _SHORTEST else long.until.get(interval)
        start = max(calendar.start(interval, now), 0 if until is None else until[0])
        return flat(start, calendar.next(interval, start), short.last[2])
    except (msgspec.MsgspecError, ArithmeticError, TypeError, RecursionError) as fault:
        raise ValueError(str(fault)[:80]) from None
