"""A market's order book in one plain answer, as Binance shapes it: `GET /api/v3/depth`.

A client gets what its token covers: the book of a stream that it may have. One that is not complete is not sent: the
answer is 503, with when to ask again. It says so where nothing at all is known of the market.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol
from urllib.parse import parse_qs

import msgspec

from marketfeed.api.market_data import ILLEGAL, MISSING, as_json
from marketfeed.boundaries import NoBook
from marketfeed.http.response import Response
from marketfeed.model.identity import Identity
from marketfeed.model.kinds.fields import is_market
from marketfeed.model.numbers import whole
from marketfeed.model.streams import StreamKinds, StreamName

__all__ = ["INCOMPLETE", "UNKNOWN", "Book", "Books", "Depth", "DepthQuery", "read_query"]

_DEFAULT_LIMIT, _MOST_LEVELS = 100, 5000

INCOMPLETE = as_json(Response(503, "the book of this market is not complete yet", (("Retry-After", "1"),)))
UNKNOWN = as_json(
    Response(
        503,
        "nothing is known of this market: nothing has come on its depth stream, and there is no snapshot of it",
        (("Retry-After", "10"),),
    )
)


class Book(Protocol):
    """A book that the server keeps."""

    def depth(self, limit: int) -> bytes | None:
        """The best `limit` levels of each side as JSON in Binance's shape; None while the book is not complete."""


class Books(Protocol):
    """Where books are to be had."""

    def book(self, stream: StreamName) -> Awaitable[Book | NoBook]:
        """The book of a depth stream, once it is complete; why there is none when that takes too long, or cannot be.

        It is a Deferred, which never fails. Whoever no longer wants the book cancels it.
        """


class DepthQuery(msgspec.Struct, frozen=True):
    """What a request asks for: a stream of depth, and at most so many levels of each side."""

    stream: StreamName
    limit: int


def read_query(query: str, kinds: StreamKinds) -> DepthQuery | Response:
    """Read the parameters `symbol`, spelled as the market is, and `limit`. Others are nobody's."""
    fields = parse_qs(query, keep_blank_values=True)
    symbols, limits = fields.get("symbol", []), fields.get("limit", [str(_DEFAULT_LIMIT)])
    if not any(symbols):
        return _bad("symbol is mandatory: a market as in its streams' names, such as TATA_INR", MISSING)
    if len(symbols) > 1 or not is_market(symbols[0]):
        return _bad("symbol: expected one market, 1 to 64 of the characters A-Z a-z 0-9 . _ -")
    limit = whole(limits[0], 10) or 0
    if len(limits) > 1 or not 1 <= limit <= _MOST_LEVELS:
        return _bad(f"limit: expected one whole number from 1 to {_MOST_LEVELS}")
    return DepthQuery(kinds.parse(f"depth@{symbols[0]}"), limit)


class Depth:
    """Finds books. `books`: where they are to be had."""

    def __init__(self, books: Books, kinds: StreamKinds) -> None:
        self._books = books
        self._kinds = kinds

    async def find(self, identity: Identity, query: str) -> Response:
        """The answer to a request with this query; see `market_data.Find`."""
        asked = read_query(query, self._kinds)
        if isinstance(asked, Response):
            return asked
        if not identity.permits(asked.stream):
            return as_json(Response(403, "the token does not cover the depth stream of this market"))
        book = await self._books.book(asked.stream)
        if isinstance(book, NoBook):
            return UNKNOWN if book is NoBook.UNKNOWN else INCOMPLETE
        depth = book.depth(asked.limit)
        return INCOMPLETE if depth is None else Response(200, "a book", json=depth)


def _bad(text: str, code: int = ILLEGAL) -> Response:
    return as_json(Response(400, text), code)
