"""Trades as Binance's clients ask for them: put together by price, as one order takes them; here each by itself
(docs/protocol.md#aggregated-trades).
"""

from __future__ import annotations

from typing import Literal

import msgspec

from marketfeed.model.kinds.fields import Shape
from marketfeed.model.kinds.kind import LossPolicy, StreamKind, View
from marketfeed.model.kinds.trade import TRADE

__all__ = ["AGG_TRADE"]


class _AggTrade(msgspec.Struct):
    e: Literal["aggTrade"]
    s: str
    a: int
    p: str
    q: str
    f: int
    l: int  # noqa: E741
    T: int
    m: bool


AGG_TRADE = StreamKind(
    "aggTrade",
    LossPolicy.KEEP,
    shape=Shape(_AggTrade, events=("aggTrade",)),
    columns=TRADE.columns,
    view=View.AGG_TRADE,
    made_from=TRADE.name,
)
