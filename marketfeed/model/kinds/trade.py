"""Trades: each is one execution, and all of them count (docs/protocol.md#what-the-engine-publishes)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from marketfeed.model.kinds.columns import Column, word
from marketfeed.model.kinds.fields import Plain, Shape, ShortDecimal, ShortMarket
from marketfeed.model.kinds.kind import LossPolicy, StreamKind, View
from marketfeed.model.kinds.values import is_good_trade

__all__ = ["TRADE"]


class _Trade(Plain, gc=False):
    e: Literal["trade"]
    t: int
    m: bool
    p: ShortDecimal
    q: ShortDecimal
    s: ShortMarket


def _columns(data: Mapping[str, Any]) -> list[Column]:
    """Price, quantity, and what the taker has done, who sold where the buyer is the maker."""
    is_maker = data.get("m")
    side = ("sell" if is_maker else "buy") if isinstance(is_maker, bool) else "-"
    return [Column(f"{word(data.get('p')):>14}"), Column(f"{word(data.get('q')):>14}"), Column(side, side)]


TRADE = StreamKind(
    "trade", LossPolicy.KEEP, shape=Shape.of(_Trade, is_good_trade), columns=_columns, path_view=View.TRADE
)
