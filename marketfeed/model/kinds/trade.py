"""Trades: each is one execution, and all of them count (docs/protocol.md#what-the-engine-publishes)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from marketfeed.model.kinds.columns import Column, word
from marketfeed.model.kinds.fields import (
    Plain,
    Shape,
    ShortDecimal,
    ShortMarket,
    good_decimals,
    good_markets,
    is_good_decimal,
    is_good_market,
)
from marketfeed.model.kinds.kind import LossPolicy, StreamKind, View

__all__ = ["TRADE"]


class _Trade(Plain, gc=False):
    e: Literal["trade"]
    t: int
    m: bool
    p: ShortDecimal
    q: ShortDecimal
    s: ShortMarket

    def is_good(self) -> bool:
        return (
            (self.p in good_decimals or is_good_decimal(self.p))
            and (self.q in good_decimals or is_good_decimal(self.q))
            and (self.s in good_markets or is_good_market(self.s))
        )


def _columns(data: Mapping[str, Any]) -> list[Column]:
    """Price, quantity, and what the taker has done, who sold where the buyer is the maker."""
    is_maker = data.get("m")
    side = ("sell" if is_maker else "buy") if isinstance(is_maker, bool) else "-"
    return [Column(f"{word(data.get('p')):>14}"), Column(f"{word(data.get('q')):>14}"), Column(side, side)]


TRADE = StreamKind("trade", LossPolicy.KEEP, shape=Shape.of(_Trade), columns=_columns, path_view=View.TRADE)
