"""A market's order book in one plain answer, as Binance shapes it: `GET /api/v3/depth`.

A client gets what its token covers: the book of a stream that it may have. One that is not complete is not sent: the
answer is 503, with when to ask again. It says so where nothing at all is known of the market.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from marketfeed.api.listing import Listing
from marketfeed.api.market_data import as_json
from marketfeed.api.query import Query
from marketfeed.boundaries import NoBook
from marketfeed.http.response import Response
from marketfeed.model.identity import Identity
from marketfeed.model.ladder import BestLevels
from marketfeed.model.streams import StreamKinds, StreamName

__all__ = ["INCOMPLETE", "UNKNOWN", "Book", "Books", "Depth"]

_USUAL_LEVELS, _MOST_LEVELS = 100, 5000

INCOMPLETE = as_json(Response(503, "the book of this market is not complete yet", (("Retry-After", "1"),)))
UNKNOWN = as_json(
    Response(
        503,
        "nothing is known of this market: nothing has come on its depth stream, and there is no snapshot of it",
        (("Retry-After", "10"),),
    )
)
_NOT_COVERED = as_json(Response(403, "the token does not cover the depth stream of this market"))


class Book(Protocol):
    """A book that the server keeps."""

    def depth(self, limit: int) -> bytes | None:
        """The best `limit` levels of each side as JSON in Binance's shape; None while the book is not complete."""

    def best(self, most: int) -> BestLevels | None:
        """At most so many levels of each side, best first; None while the book is not complete."""

    @property
    def looking_cost(self) -> int:
        """What it takes to find these, in µs, about."""


class Books(Protocol):
    """Where books are to be had."""

    def book(self, stream: StreamName) -> Awaitable[Book | NoBook]:
        """The book of a depth stream, once it is complete; why there is none when that takes too long, or cannot be.

        It is a Deferred, which never fails. Whoever no longer wants the book cancels it.
        """


class Depth:
    """Finds books. `books`: where they are to be had."""

    def __init__(self, books: Books, kinds: StreamKinds, listing: Listing) -> None:
        self._books = books
        self._kinds = kinds
        self._listing = listing

    async def find(self, identity: Identity, query: Query) -> Response:
        """The answer to a request; see `market_data.Find`."""
        market, limit = self._listing.resolve(query.symbol()), query.limit(_USUAL_LEVELS, _MOST_LEVELS)
        stream = self._kinds.parse(f"depth@{market}")
        if not identity.permits(stream):
            return _NOT_COVERED
        book = await self._books.book(stream)
        if isinstance(book, NoBook):
            return UNKNOWN if book is NoBook.UNKNOWN else INCOMPLETE
        depth = book.depth(limit)
        return INCOMPLETE if depth is None else Response(200, "a book", json=depth)
