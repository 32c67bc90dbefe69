"""Trades as Binance's clients ask for them: put together by price, as one order takes them; here each by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from marketfeed.model.kinds.columns import Column, word
from marketfeed.model.kinds.fields import Shape
from marketfeed.model.kinds.kind import LossPolicy, StreamKind

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


def _columns(data: Mapping[str, Any]) -> list[Column]:
    """Price, quantity, and what the taker has done, who sold where the buyer is the maker."""
    is_maker = data.get("m")
    side = ("sell" if is_maker else "buy") if isinstance(is_maker, bool) else "-"
    return [Column(f"{word(data.get('p')):>14}"), Column(f"{word(data.get('q')):>14}"), Column(side, side)]


AGG_TRADE = StreamKind("aggTrade", LossPolicy.KEEP, shape=Shape(_AggTrade, events=("aggTrade",)), columns=_columns)
