"""What a subscriber of candles and of the statistics of 24 hours gets first: as the candle service has written it.

1. A candle comes from the state of its market: the open one, or a flat one where there was no trade in its period yet.
2. The statistics come from the hash of all markets, as those of one, or of all.
3. Any other stream has its state where an engine keeps it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from marketfeed.model.candle_store import CANDLE_FIELDS, CandleKeys
from marketfeed.model.candles import newest_of
from marketfeed.model.intervals import Calendar
from marketfeed.model.kinds.kline import INTERVALS, kline_of
from marketfeed.model.kinds.mini_ticker import ALL_MINI_TICKERS, MINI_TICKER
from marketfeed.model.statistics import mini_ticker
from marketfeed.redis.snapshots import StatePlace

__all__ = ["CandlePlaces"]

_KLINES = {kline_of(interval).name: interval for interval in INTERVALS}


class CandlePlaces:
    """Where states are. `others`: where those of other kinds are; `now`: s since 1970."""

    def __init__(
        self,
        keys: CandleKeys,
        calendar: Calendar,
        others: Callable[[str], StatePlace],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._keys = keys
        self._calendar = calendar
        self._others = others
        self._now = now

    def __call__(self, stream: str) -> StatePlace:
        kind, _, market = stream.partition("@")
        tickers = self._keys.tickers.encode()
        if kind in _KLINES:
            key = self._keys.state(market).encode()
            return StatePlace(key, ("HMGET", key, *CANDLE_FIELDS), partial(self._kline, market, _KLINES[kind]))
        if kind == MINI_TICKER.name:
            return StatePlace(tickers, ("HGET", tickers, market), _mini)
        if kind == ALL_MINI_TICKERS.name:
            return StatePlace(tickers, ("HVALS", tickers), _minis)
        return self._others(stream)

    def _kline(self, market: str, interval: str, fields: Sequence[bytes | None]) -> bytes | None:
        now = int(self._now() * 1000)
        candle = newest_of(fields, self._calendar, interval, now)
        return None if candle is None else candle.publication(market, interval, now, is_closed=False)


def _mini(ticker: bytes | None) -> bytes | None:
    if ticker is None:
        return None
    try:
        return msgspec.json.encode(mini_ticker(msgspec.json.decode(ticker, type=dict[str, Any])))
    except (msgspec.MsgspecError, KeyError, RecursionError) as fault:
        raise ValueError(f"it is no ticker: {fault}") from None


def _minis(tickers: list[bytes]) -> bytes:
    found = []
    for ticker in tickers:
        try:
            mini = _mini(ticker)
        except ValueError:  # one that somebody else has put there is in nobody's way
            continue
        if mini is not None:
            found.append(mini)
    return b"[" + b",".join(found) + b"]"
