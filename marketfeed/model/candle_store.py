"""What the candle service keeps in Redis: the names of its keys, and what is in them.

| key, behind the prefix   | what                                                                                   |
|---|---|
| `candles:{<market>}:<i>` | sorted set: closed candles of the interval `i`, each a row, by the ms of its opening    |
| `candles:{<market>}:state` | hash: where the service goes on; `kline:<i>`, what was published of the newest candle |
| `candles:tickers`        | hash: what is known of the last 24 hours, by market, as `24hrTicker`                    |
| `lease:candles`          | string: who publishes candles; gone, when nobody does                                   |
| `wanted:candles`         | sorted set: streams that somebody holds, by the second in which that was last said      |

A row is a candle as `GET /api/v3/klines` answers it: ``[open time,"o","h","l","c","v",close time,"q",n,"V","Q","0"]``.
Where there are several for one opening time, as while a back-fill is under way, the first one counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

__all__ = ["CandleKeys", "Row", "read_row", "row_of", "rows_in"]

KLINE = "kline:"
"""What stands before an interval in the fields of a state."""
WANTED_SECONDS = 15.0
"""For so long what was said to be wanted is."""


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
        return _row.decode(member)
    except msgspec.MsgspecError:
        return None


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
