"""Candles and the last 24 hours as the candle service keeps them in Redis, for those who ask once.

1. Periods without trades are filled in flat, from the first candle on that there is, up to the period of now.
2. While no service works nothing is told: what is kept would be taken for the present.
3. What was read of a market's last 24 hours, or of those of all, is good for a second, for all who ask. That there is
   nothing is not: whoever is told of a market and asks finds it.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import msgspec

from marketfeed.model.candle_store import CANDLE_FIELDS, CandleKeys, Row, rows_in
from marketfeed.model.candles import newest_of
from marketfeed.model.intervals import Calendar
from marketfeed.redis.commands import CommandFault, KeyedCommands
from marketfeed.runtime.shared_reads import SharedReads

__all__ = ["CandleReader"]

_Day = Mapping[str, bytes]
_FRESH_SECONDS = 1.0
_REMEMBERED = 10_000
_PORTION = 100
_LOOKED_AT = 2000
"""Entries, of which somebody has put there some that are no candles."""
_OF_A_DAY = ("p", "P", "w", "x", "Q", "o", "h", "l", "v", "q", "O", "C", "F", "L", "n")
_tickers = msgspec.json.Decoder(dict[str, msgspec.Raw])


class CandleReader:
    """Reads them. It is the `Statistics` of the hub. `now`: s since 1970."""

    def __init__(
        self, commands: KeyedCommands, keys: CandleKeys, calendar: Calendar, now: Callable[[], float] = time.time
    ) -> None:
        self._commands = commands
        self._keys = keys
        self._calendar = calendar
        self._now = now
        self._all = SharedReads[Mapping[str, _Day]](now, _FRESH_SECONDS, 1)
        self._days = SharedReads[tuple[bool, _Day]](now, _FRESH_SECONDS, _REMEMBERED)

    def of(self, market: str) -> Mapping[str, bytes]:
        """See `Statistics`: as of a moment ago; nothing, until it has been asked for once. It reads this market only,
        for it is asked as tickers come.
        """
        if self._days.is_due(market):
            self._ask(market)
        return self._latest(market)

    def _latest(self, market: str) -> _Day:
        known = self._days.newest(market)
        return {} if known is None else known[1]

    async def day(self, market: str) -> _Day | None:
        """The fields of a `24hrTicker`, as JSON, of one market; none, where it had no trade yet. None: nobody knows at
        the moment.
        """
        known = await self._ask(market)
        if known is None or not (known[0] and known[1]):
            # Since that was read there may be a first trade, or a service. What is read now began after the question.
            self._days.forget(market)
            known = await self._ask(market)
        return known[1] if known is not None and known[0] else None

    def _ask(self, market: str) -> Awaitable[tuple[bool, _Day] | None]:
        return self._days.get(market, partial(self._read_day, market))

    async def _read_day(self, market: str) -> tuple[bool, _Day]:
        """Whether that is known, and what tickers are made whole with."""
        key = self._keys.tickers
        try:
            has_leader, ticker = await self._with_lease(key, "HGET", key, market)
        except CommandFault:
            return False, self._latest(market)
        return has_leader, _fields(ticker) if has_leader and ticker is not None else {}

    async def days(self) -> Mapping[str, _Day] | None:
        """The same of each market that had one; the same object for as long as they are the same."""
        return await self._all.get("", self._read_days)

    async def _read_days(self) -> Mapping[str, _Day] | None:
        try:
            has_leader, reply = await self._with_lease(self._keys.tickers, "HGETALL", self._keys.tickers)
        except CommandFault:
            return None
        if not has_leader:
            return None
        items = iter(reply)
        found = {market.decode("latin-1"): _fields(ticker) for market, ticker in zip(items, items, strict=True)}
        return {market: fields for market, fields in found.items() if fields}

    async def klines(
        self, market: str, interval: str, start: int | None, end: int | None, limit: int
    ) -> list[Row] | None:
        """The candles that begin between `start` and `end`, in ms since 1970, at most `limit`: the first ones if there
        is a `start`, else the last ones. None: nobody knows at the moment.
        """
        try:
            state = self._keys.state(market)
            has_leader, fields = await self._with_lease(state, "HMGET", state, *CANDLE_FIELDS)
            if not has_leader:
                return None
            newest = newest_of(fields, self._calendar, interval, int(self._now() * 1000))
            if newest is None or (start is not None and start > newest.start):
                return []
            last = self._calendar.start(interval, newest.start if end is None else min(end, newest.start))
            return await self._filled(market, interval, newest.row(), start, last, limit)
        except (CommandFault, ValueError):
            return None

    async def _filled(
        self, market: str, interval: str, newest: Row, start: int | None, last: int, limit: int
    ) -> list[Row]:
        calendar, key = self._calendar, self._keys.candles(market, interval)
        first = calendar.before(interval, last, limit - 1) if start is None else self._begins_from(interval, start)
        present = await self._first_row("ZREVRANGEBYSCORE", key, f"({first}", "-inf")
        if present is None:
            following = await self._first_row("ZRANGEBYSCORE", key, first, newest.open_time)
            first = max(first, self._begins_from(interval, (following or newest).open_time))
        until = first
        for _ in range(limit - 1):
            if until >= last:
                break
            until = calendar.next(interval, until)
        kept = {row.open_time: row for row in rows_in(await self._range("ZRANGEBYSCORE", key, first, until, 0, -1))}
        kept[newest.open_time] = newest
        filled: list[Row] = []
        while first <= min(until, last):
            following_start = calendar.next(interval, first)
            row = kept.get(first)
            if row is None and present is not None:
                row = present.flat(first, following_start - 1)
            if row is not None:
                filled.append(row)
                present = row
            first = following_start
        return filled

    def _begins_from(self, interval: str, time: int) -> int:
        """When the first period begins that begins at `time` or later."""
        start = self._calendar.start(interval, time)
        return start if start == time else self._calendar.next(interval, start)

    async def _first_row(self, command: str, key: str, first: int | str, last: int | str) -> Row | None:
        """The first candle of a range, behind whatever is none, as far as it is looked for."""
        at, count = 0, 1
        while at < _LOOKED_AT:
            found = await self._range(command, key, first, last, at, count)
            rows = rows_in(found)
            if rows or len(found) < 2 * count:
                return rows[0] if rows else None
            at, count = at + count, _PORTION
        return None

    async def _range(self, command: str, key: str, first: int | str, last: int | str, at: int, count: int) -> list[Any]:
        words = (command, key, first, last, "WITHSCORES", "LIMIT", at, count)
        found: list[Any] = await self._commands.ask_for(key.encode(), *words)
        return found

    async def _with_lease(self, key: str, *words: str) -> tuple[bool, Any]:
        """Whether a service works, and the reply."""
        lease = self._keys.lease
        asked = self._commands.ask_for(lease.encode(), "EXISTS", lease)
        try:
            reply = await self._commands.ask_for(key.encode(), *words)
        except CommandFault:
            asked.addErrback(lambda _: None)
            raise
        return bool(await asked), reply


def _fields(ticker: bytes) -> dict[str, bytes]:
    """Of a ticker that somebody has written; none, where it is no such thing."""
    try:
        found = _tickers.decode(ticker)
        return {**{name: bytes(found[name]) for name in _OF_A_DAY}, "c": bytes(found["c"])}
    except (msgspec.MsgspecError, KeyError, RecursionError):
        return {}
