"""Trades: each is one execution, and all of them count (docs/protocol.md#what-the-engine-publishes)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from marketfeed.model.kinds.columns import Column, word
from marketfeed.model.kinds.fields import (
    Decimal,
    Plain,
    Shape,
    Short,
    ShortDecimal,
    bad_decimal,
    bad_market,
    good_decimals,
    good_markets,
    is_good_decimal,
    is_good_market,
)
from marketfeed.model.kinds.kind import LossPolicy, StreamKind

__all__ = ["TRADE"]


class _Trade(msgspec.Struct, gc=False):
    e: Literal["trade"]
    t: int | float
    m: bool
    p: Decimal
    q: Decimal
    s: str


class _PlainTrade(Plain, gc=False):
    e: Literal["trade"]
    t: int
    m: bool
    p: ShortDecimal
    q: ShortDecimal
    s: Short

    def is_good(self) -> bool:
        return (
            (self.p in good_decimals or is_good_decimal(self.p))
            and (self.q in good_decimals or is_good_decimal(self.q))
            and (self.s in good_markets or is_good_market(self.s))
        )


def _fault(trade: _Trade) -> str | None:
    if type(trade.t) is float and not trade.t.is_integer():  # some encoders write 17.0
        return "expected an integer - at `$.t`"
    return bad_decimal("p", trade.p) or bad_decimal("q", trade.q) or bad_market(trade.s)


def _columns(data: Mapping[str, Any]) -> list[Column]:
    """Price, quantity, and what the taker has done, who sold where the buyer is the maker."""
    is_maker = data.get("m")
    side = ("sell" if is_maker else "buy") if isinstance(is_maker, bool) else "-"
    return [Column(f"{word(data.get('p')):>14}"), Column(f"{word(data.get('q')):>14}"), Column(side, side)]


TRADE = StreamKind(
    "trade", LossPolicy.KEEP, shape=Shape(_Trade, _fault, _PlainTrade), events=("trade",), columns=_columns
)
