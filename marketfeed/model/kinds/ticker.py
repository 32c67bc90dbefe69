"""Tickers: a market's last price and statistics; the newest counts (docs/protocol.md#what-the-engine-publishes)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from marketfeed.model.kinds.columns import Column, number, word
from marketfeed.model.kinds.fields import Plain, Shape, ShortDecimal, ShortMarket
from marketfeed.model.kinds.kind import LossPolicy, StreamKind, View
from marketfeed.model.kinds.values import is_good_ticker

__all__ = ["TICKER"]


class _Ticker(Plain, gc=False):
    e: Literal["ticker", "24hrTicker"]
    c: ShortDecimal
    s: ShortMarket


def _columns(data: Mapping[str, Any]) -> list[Column]:
    """The last price, and by how much it has changed."""
    changes = [_signed(data.get("p")), _signed(data.get("P"), "%")]
    change = "  ".join(f"{text:>10}" for text in changes if text)
    side = "sell" if change.lstrip().startswith("-") else "buy"
    return [Column(f"{word(data.get('c')):>14}"), Column(change, side)]


def _signed(value: Any, unit: str = "") -> str:
    if number(value) is None:
        return ""
    text = word(value) + unit
    return text if text.startswith(("-", "+")) else f"+{text}"


TICKER = StreamKind(
    "ticker", LossPolicy.LATEST, shape=Shape.of(_Ticker, is_good_ticker), columns=_columns, path_view=View.TICKER
)
