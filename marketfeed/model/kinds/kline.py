"""Candles: what trades came to in one period, of sixteen lengths.

A candle that is closed is final, and each of them is sent. Of an open one the newest counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from marketfeed.model.kinds.columns import Column, direction, word
from marketfeed.model.kinds.fields import Shape
from marketfeed.model.kinds.kind import LossPolicy, StreamKind
from marketfeed.model.merging import CandleMessage
from marketfeed.model.state import LatestState

__all__ = ["INTERVALS", "KLINES", "kline_of"]

INTERVALS = ("1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1M")
"""How long candles are: seconds, minutes, hours, days, weeks, and months, whose letter is the large one."""


class _Candle(msgspec.Struct):
    t: int
    T: int
    i: str
    o: str
    c: str
    h: str
    l: str  # noqa: E741
    v: str
    x: bool


class _Kline(msgspec.Struct):
    e: Literal["kline"]
    s: str
    k: _Candle


def _columns(data: Mapping[str, Any]) -> list[Column]:
    """Open, high, low, close, the volume, and whether it is closed."""
    found = data.get("k")
    candle: Mapping[str, Any] = found if isinstance(found, dict) else {}
    side = direction(candle.get("o"), candle.get("c"))
    prices = "  ".join(f"{name} {word(candle.get(field)):>10}" for name, field in _PRICES)
    state = "closed" if candle.get("x") is True else "open"
    return [
        Column(f"{word(candle.get('i')):>3}"),
        Column(prices, side),
        Column(f"vol {word(candle.get('v'))}, {state}"),
    ]


_PRICES = (("open", "o"), ("high", "h"), ("low", "l"), ("close", "c"))


def _is_closed(data: bytes) -> bool:
    return CandleMessage.parse(data).is_closed


def _kind(interval: str) -> StreamKind:
    return StreamKind(
        f"kline_{interval}",
        LossPolicy.MERGE,
        shape=Shape(_Kline, events=("kline",)),
        columns=_columns,
        message=CandleMessage.parse,
        state=LatestState,
        is_throttled=False,
        from_candles=True,
        is_final=_is_closed,
    )


KLINES = tuple([_kind(interval) for interval in INTERVALS])
"""One kind for each length."""


def kline_of(interval: str) -> StreamKind:
    """The kind of candles of this length, one of `INTERVALS`."""
    return KLINES[INTERVALS.index(interval)]
