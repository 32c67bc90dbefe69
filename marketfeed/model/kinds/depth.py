"""Depth messages: levels of an order book that changed, or with `snapshot` all of it
(docs/protocol.md#what-the-engine-publishes).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal as Number
from typing import Any, Literal

import msgspec

from marketfeed.model.kinds.columns import Column, number, word
from marketfeed.model.kinds.fields import Plain, Shape, ShortLevel
from marketfeed.model.kinds.kind import LossPolicy, StreamKind, View
from marketfeed.model.kinds.values import is_good_depth
from marketfeed.model.nesting import MAX_NESTING

__all__ = ["DEPTH", "PlainDepth"]


class PlainDepth(Plain, gc=True):
    """A depth message, and what else is wanted of it, as it comes."""

    e: Literal["depth", "depthUpdate"]
    a: list[ShortLevel]
    b: list[ShortLevel]
    s: Any = msgspec.UNSET
    E: Any = msgspec.UNSET
    T: Any = msgspec.UNSET
    U: Any = msgspec.UNSET
    u: Any = msgspec.UNSET
    snapshot: Any = msgspec.UNSET

    def has_few_lists(self, data: bytes) -> bool:
        return data.count(b"[") - len(self.a) - len(self.b) < MAX_NESTING - 3  # no level is in another one


def _columns(data: Mapping[str, Any]) -> list[Column]:
    """The best bid and ask of those that changed, and how many did."""
    bids, asks = (side if isinstance(side, list) else [] for side in (data.get("b"), data.get("a")))
    whole = ", snapshot" if data.get("snapshot") is True else ""
    return [
        Column(f"{_best(bids, max):<22}", "buy", "bid "),
        Column(f"{_best(asks, min):<22}", "sell", "ask "),
        Column(f"{_count(bids, 'bid')}, {_count(asks, 'ask')}{whole}"),
    ]


def _best(levels: list[Any], best: Callable[..., tuple[Number, Any]]) -> str:
    """The changed level that is nearest to the other side, gone ones too: that is where the price is made."""
    good = [
        (price, level)
        for level in levels
        if isinstance(level, list) and len(level) > 1 and (price := number(level[0])) is not None
    ]
    if not good:
        return "-"
    _, (price, quantity, *_) = best(good, key=lambda item: item[0])
    return f"{word(price)} gone" if number(quantity) == 0 else f"{word(price)} x {word(quantity)}"


def _count(levels: list[Any], noun: str) -> str:
    return f"{len(levels)} {noun}" if len(levels) == 1 else f"{len(levels)} {noun}s"


DEPTH = StreamKind(
    "depth", LossPolicy.MERGE, shape=Shape.of(PlainDepth, is_good_depth), columns=_columns, path_view=View.DEPTH
)
