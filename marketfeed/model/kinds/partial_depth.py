"""The best levels of a market's book, whole each time; the newest counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from marketfeed.model.kinds.columns import Column, word
from marketfeed.model.kinds.fields import Shape
from marketfeed.model.kinds.kind import BookView, FromBook, LossPolicy, StreamKind

__all__ = ["LEVELS", "PARTIAL_DEPTHS", "level_texts"]

_encode = msgspec.json.encode

LEVELS = (5, 10, 20)
"""How many of each side."""


class _PartialDepth(msgspec.Struct):
    e: str
    s: str
    lastUpdateId: int
    bids: list[tuple[str, str]]
    asks: list[tuple[str, str]]
    E: int


def level_texts(data: Mapping[str, Any], side: str) -> list[tuple[str, str]]:
    """Price and quantity of the levels of `bids` or `asks`, best first, as words; what is none is left out."""
    found = data.get(side)
    levels = found if isinstance(found, list) else []
    return [(word(level[0]), word(level[1])) for level in levels if isinstance(level, list) and len(level) > 1]


def _columns(data: Mapping[str, Any]) -> list[Column]:
    """The best bid and ask, and how many levels there are."""
    bids, asks = level_texts(data, "bids"), level_texts(data, "asks")
    return [
        Column(f"{_best(bids):<22}", "buy", "bid "),
        Column(f"{_best(asks):<22}", "sell", "ask "),
        Column(f"{_count(bids, 'bid')}, {_count(asks, 'ask')}"),
    ]


def _best(levels: list[tuple[str, str]]) -> str:
    return " x ".join(levels[0]) if levels else "-"


def _count(levels: list[tuple[str, str]], noun: str) -> str:
    return f"{len(levels)} {noun}" if len(levels) == 1 else f"{len(levels)} {noun}s"


def _kind(levels: int) -> StreamKind:
    name = f"depth{levels}"

    def write(book: BookView) -> bytes:
        return _encode(_PartialDepth(name, book.market, book.number, list(book.bids), list(book.asks), book.time))

    shape = Shape(_PartialDepth, events=(name,))
    made = FromBook("depth", levels, write)
    return StreamKind(name, LossPolicy.LATEST, shape=shape, columns=_columns, rate=100, from_book=made)


PARTIAL_DEPTHS = tuple([_kind(levels) for levels in LEVELS])
"""One kind for each number of levels."""
