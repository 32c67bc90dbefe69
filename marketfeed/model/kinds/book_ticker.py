"""The best bid and the best ask of a market's book; the newest counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from marketfeed.model.kinds.columns import Column, number, spread, word
from marketfeed.model.kinds.fields import Shape
from marketfeed.model.kinds.kind import BookView, FromBook, LossPolicy, StreamKind

__all__ = ["BOOK_TICKER"]

_ZERO = "0.00000000"
"""Price and quantity of a side that is empty, as Binance writes nothing."""
_encode = msgspec.json.encode


class _BookTicker(msgspec.Struct):
    e: Literal["bookTicker"]
    u: int
    s: str
    b: str
    B: str
    a: str
    A: str
    E: int


def _columns(data: Mapping[str, Any]) -> list[Column]:
    """The two, and how far they are apart."""
    return [
        Column(f"{_level(data, 'b', 'B'):<22}", "buy", "bid "),
        Column(f"{_level(data, 'a', 'A'):<22}", "sell", "ask "),
        Column(spread(data.get("b"), data.get("a"))),
    ]


def _level(data: Mapping[str, Any], price: str, quantity: str) -> str:
    """A side that is empty has zeros."""
    if not number(data.get(price)):
        return "-"
    return f"{word(data.get(price))} x {word(data.get(quantity))}"


def _write(book: BookView) -> bytes:
    bid, bids = book.bids[0] if book.bids else (_ZERO, _ZERO)
    ask, asks = book.asks[0] if book.asks else (_ZERO, _ZERO)
    return _encode(_BookTicker("bookTicker", book.number, book.market, bid, bids, ask, asks, book.time))


BOOK_TICKER = StreamKind(
    "bookTicker",
    LossPolicy.LATEST,
    shape=Shape(_BookTicker, events=("bookTicker",)),
    columns=_columns,
    from_book=FromBook("depth", 1, _write),
)
