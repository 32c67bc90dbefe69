"""The best bid and ask in one plain answer, as Binance shapes it: `GET /api/v3/ticker/bookTicker`.

Of one market its book is waited for, as `depth` does. Of several, or all, those are told of which the book is kept:
each is written once until it changes, some in a turn of the reactor.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import msgspec

from marketfeed.api.depth import INCOMPLETE, UNKNOWN, Book, Books
from marketfeed.api.listing import Listing
from marketfeed.api.market_data import as_json
from marketfeed.api.query import Query
from marketfeed.boundaries import NoBook
from marketfeed.http.response import Response
from marketfeed.hub.portions import Portions, Work
from marketfeed.model.identity import Identity
from marketfeed.model.kinds.book_ticker import BOOK_TICKER
from marketfeed.model.levels import Row
from marketfeed.model.streams import StreamKinds, StreamName

__all__ = ["BookTicker", "KeptBooks"]

_encode = msgspec.json.encode
_NONE = b'"0.00000000"'
_NOT_COVERED = as_json(Response(403, "the token does not cover the book ticker of this market"))
_BOOK_IN_US = 10


class KeptBooks(Books, Protocol):
    """Where books are to be had, and which are kept."""

    portions: Portions

    @property
    def books(self) -> Iterator[tuple[str, Book]]:
        """Those that are kept, each with its market; some may turn out to be incomplete."""


class BookTicker:
    """Finds the best prices. `books`: where books are to be had."""

    def __init__(self, books: KeptBooks, kinds: StreamKinds, listing: Listing) -> None:
        self._books = books
        self._kinds = kinds
        self._listing = listing

    async def find(self, identity: Identity, query: Query) -> Response:
        """The answer to a request; see `market_data.Find`."""
        asked = query.symbols()
        if isinstance(asked, str):
            return await self._of_one(identity, self._listing.resolve(asked))
        wanted = None if asked is None else {self._listing.resolve(each) for each in asked}
        written: list[bytes] = []
        await self._books.portions.finish(self._write(identity, wanted, written))
        return Response(200, "best prices", json=b"[%b]" % b",".join(written))

    async def _of_one(self, identity: Identity, market: str) -> Response:
        if not self._permits(identity, market):
            return _NOT_COVERED
        book = await self._books.book(self._kinds.parse(f"depth@{market}"))
        if isinstance(book, NoBook):
            return UNKNOWN if book is NoBook.UNKNOWN else INCOMPLETE
        text = _ticker(market, book)
        return INCOMPLETE if text is None else Response(200, "best prices", json=text)

    def _write(self, identity: Identity, wanted: set[str] | None, written: list[bytes]) -> Work:
        for market, book in sorted(self._books.books, key=lambda item: item[0]):
            if wanted is not None and market not in wanted:
                continue
            yield 1 + identity.tried
            if self._permits(identity, market):
                yield _BOOK_IN_US + book.looking_cost
                text = _ticker(market, book)
                if text is not None:
                    written.append(text)

    def _permits(self, identity: Identity, market: str) -> bool:
        return identity.permits(StreamName(self._kinds.of(BOOK_TICKER), market))


def _ticker(market: str, book: Book) -> bytes | None:
    """A book's best prices as JSON; None: it is not complete."""
    best = book.best(1)
    if best is None:
        return None
    (bid, bid_quantity), (ask, ask_quantity) = map(_tokens, (best.bids, best.asks))
    return b'{"symbol":"%b","bidPrice":%b,"bidQty":%b,"askPrice":%b,"askQty":%b}' % (
        market.encode(),
        bid,
        bid_quantity,
        ask,
        ask_quantity,
    )


def _tokens(levels: list[Row]) -> tuple[bytes, bytes]:
    """Price and quantity of the best of these as JSON texts."""
    if not levels:
        return _NONE, _NONE
    price, quantity = map(_encode, levels[0])
    return price, quantity
