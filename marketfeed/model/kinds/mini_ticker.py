"""The last 24 hours of a market in a few numbers, and those of all markets in one stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from marketfeed.model.kinds.columns import Column, direction, word
from marketfeed.model.kinds.fields import Shape
from marketfeed.model.kinds.kind import LossPolicy, StreamKind
from marketfeed.model.merging import MarketsMessage
from marketfeed.model.state import MarketsState

__all__ = ["ALL_MINI_TICKERS", "MINI_TICKER"]


class _MiniTicker(msgspec.Struct):
    e: Literal["24hrMiniTicker"]
    s: str
    c: str
    o: str
    h: str
    l: str  # noqa: E741
    v: str
    q: str


def _columns(data: Mapping[str, Any]) -> list[Column]:
    """The last price, what it was a day ago, the highest and the lowest, and the volume."""
    side = direction(data.get("o"), data.get("c"))
    rest = "  ".join(
        f"{name} {word(data.get(field)):>10}" for name, field in (("open", "o"), ("high", "h"), ("low", "l"))
    )
    return [Column(f"{word(data.get('c')):>14}", side), Column(rest), Column(f"vol {word(data.get('v'))}")]


MINI_TICKER = StreamKind(
    "miniTicker",
    LossPolicy.LATEST,
    shape=Shape(_MiniTicker, events=("24hrMiniTicker",)),
    columns=_columns,
    from_candles=True,
)

ALL_MINI_TICKERS = StreamKind(
    "!miniTicker",
    LossPolicy.MERGE,
    shape=Shape(list[_MiniTicker]),
    only="arr",
    all_of=MINI_TICKER.name,
    message=MarketsMessage.parse,
    state=MarketsState,
    from_candles=True,
)
"""One stream, whose publications are arrays of what has changed."""
