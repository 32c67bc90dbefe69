"""What the candle service keeps in Redis: the names of its keys, and what is in them.

| key, behind the prefix   | what                                                                                   |
|---|---|
| `candles:{<market>}:<i>` | sorted set: closed candles of the interval `i`, each a row, by the ms of its opening    |
| `candles:{<market>}:state` | hash: where the service goes on, with the candles that are open |
| `candles:tickers`        | hash: what is known of the last 24 hours, by market, as `24hrTicker`                    |
| `candles:leader`         | string: a number, which each leader makes larger                                        |
| `lease:candles`          | string: who publishes candles; gone, when nobody does                                   |
| `wanted:candles`         | sorted set: streams that somebody holds, by the second in which that was last said      |

A row is a candle as `GET /api/v3/klines` answers it: ``[open time,"o","h","l","c","v",close time,"q",n,"V","Q","0"]``.
Where there are several for one opening time, as while a back-fill is under way, the first one counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from marketfeed.model.decimals import is_decimal
from marketfeed.model.kinds.kline import INTERVALS

__all__ = ["KEEP", "WANTED_SECONDS", "CandleKeys", "Row", "is_sum", "parse_keep", "read_row", "row_of", "rows_in"]

KEEP: Mapping[str, int] = MappingProxyType({**dict.fromkeys(INTERVALS, 1000), "1s": 600, "1m": 1500, "1d": 730})
"""How many candles are kept of each interval, where nothing else is said."""
_LONGEST = 10**9
_DAY_OF_MINUTES = 1440
WANTED_SECONDS = 15.0
"""For so long what was said to be wanted is."""


def parse_keep(text: str) -> dict[str, int]:
    """How many candles are kept, where it is another number than in `KEEP`: of ``1m=527040,1h=8784``, by interval.

    Raises ValueError, with what would be accepted.
    """
    kept = {}
    for part in text.split(","):
        interval, _, count = part.strip().partition("=")
        if interval not in KEEP or not (count.isascii() and count.isdigit()) or not 1 <= int(count) <= _LONGEST:
            raise ValueError(f"an interval and how many of its candles, such as 1m=527040; one of {', '.join(KEEP)}")
        kept[interval] = int(count)
    if kept.get("1m", _DAY_OF_MINUTES) < _DAY_OF_MINUTES:
        raise ValueError(f"1m={_DAY_OF_MINUTES} or more: the last 24 hours are made of minutes")
    return kept


CANDLE_FIELDS = ("candles", "longer")
"""Of the state of a market: its open candles, as `MarketCandles` writes them."""


class CandleKeys(msgspec.Struct, frozen=True):
    """The keys behind a prefix. The braces keep all of a market in one slot of a cluster."""

    prefix: str

    def candles(self, market: str, interval: str) -> str:
        """The closed candles of an interval."""
        return f"{self.prefix}candles:{{{market}}}:{interval}"

    def state(self, market: str) -> str:
        """Where the service is with a market."""
        return f"{self.prefix}candles:{{{market}}}:state"

    @property
    def tickers(self) -> str:
        """What is known of the last 24 hours of all markets."""
        return f"{self.prefix}candles:tickers"

    @property
    def leader(self) -> str:
        """The number of the newest leader."""
        return f"{self.prefix}candles:leader"

    @property
    def lease(self) -> str:
        """Who publishes candles."""
        return f"{self.prefix}lease:candles"

    @property
    def wanted(self) -> str:
        """Which streams of candles somebody holds."""
        return f"{self.prefix}wanted:candles"


class Row(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A candle as it is kept, and answered. Times are in ms since 1970, of the first and the last that are in it."""

    open_time: int
    open: str
    high: str
    low: str
    close: str
    volume: str
    close_time: int
    quote_volume: str
    trades: int
    taker_volume: str
    taker_quote_volume: str
    unused: str = "0"

    def to_bytes(self) -> bytes:
        """As it is kept."""
        return _encode(self)

    def flat(self, open_time: int, close_time: int) -> Row:
        """A candle of a period without trades, behind this one."""
        price = self.close
        return Row(open_time, price, price, price, price, "0", close_time, "0", 0, "0", "0")


_SUM = re.compile(r"-?\d{1,350}(\.\d{1,350})?", re.ASCII)
"""How sums are written: they may be longer than what they are made of, the largest and the smallest decimals. No sum of
sums has more digits than are counted with.
"""
_encode = msgspec.json.encode
_row = msgspec.json.Decoder(Row)


class _Candle(msgspec.Struct):
    t: int
    T: int
    o: str
    h: str
    l: str  # noqa: E741
    c: str
    v: str
    q: str
    n: int
    V: str
    Q: str


class _Kline(msgspec.Struct):
    k: _Candle


_kline = msgspec.json.Decoder(_Kline)


def read_row(member: bytes) -> Row | None:
    """A member of a sorted set; None: it is no candle."""
    try:
        row = _row.decode(member)
    except (msgspec.MsgspecError, RecursionError):
        return None
    prices = row.open, row.high, row.low, row.close
    sums = row.volume, row.quote_volume, row.taker_volume, row.taker_quote_volume
    return row if all(map(is_decimal, prices)) and all(map(is_sum, sums)) and row.trades >= 0 else None


def is_sum(text: str) -> bool:
    """Whether it may be a sum."""
    return is_decimal(text) or _SUM.fullmatch(text) is not None


def row_of(publication: bytes) -> Row | None:
    """The candle that was published; None: it is none."""
    try:
        k = _kline.decode(publication).k
    except msgspec.MsgspecError:
        return None
    return Row(k.t, k.o, k.h, k.l, k.c, k.v, k.T, k.q, k.n, k.V, k.Q)


def rows_in(reply: Iterable[Any]) -> list[Row]:
    """The candles that a range of a sorted set holds, with their scores: members and scores in turn, rising.

    What is no candle, or of another time than its score says, is left out, and of several of one time all but the
    first.
    """
    found: dict[int, Row] = {}
    items = iter(reply)
    for member, score in zip(items, items, strict=True):
        row = read_row(member)
        if row is not None and row.open_time == float(score):
            found.setdefault(row.open_time, row)
    return list(found.values())
