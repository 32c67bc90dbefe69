"""What of the service's streams somebody wants, as daemons say it in Redis: the rest is not published."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from marketfeed.model.kinds.kline import INTERVALS, kline_of
from marketfeed.model.kinds.mini_ticker import ALL_MINI_TICKERS, MINI_TICKER
from marketfeed.model.streams import StreamName

__all__ = ["ALL_MARKETS", "Demand"]

ALL_MARKETS = str(StreamName(ALL_MINI_TICKERS, ALL_MINI_TICKERS.only))
"""The stream about all markets."""
_INTERVALS = {kline_of(interval).name: interval for interval in INTERVALS}


class Demand(msgspec.Struct, frozen=True):
    """`intervals`: of the candles that are wanted, by market; `days`: markets whose last 24 hours are wanted;
    `all_days`: those of all markets are, in one stream.
    """

    intervals: Mapping[str, set[str]] = {}
    days: frozenset[str] = frozenset()
    all_days: bool = False

    @classmethod
    def of(cls, streams: Iterable[bytes]) -> Demand:
        """What is wanted where these streams are. What is none of ours is left out."""
        intervals: dict[str, set[str]] = {}
        days, all_days = set(), False
        for stream in streams:
            name = stream.decode("latin-1")
            kind, _, market = name.partition("@")
            if kind in _INTERVALS:
                intervals.setdefault(market, set()).add(_INTERVALS[kind])
            elif kind == MINI_TICKER.name:
                days.add(market)
            all_days |= name == ALL_MARKETS
        return cls(intervals, frozenset(days), all_days)
