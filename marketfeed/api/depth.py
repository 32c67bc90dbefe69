"""A market's order book in one plain answer, as Binance shapes it: `GET /api/v3/depth` (docs/protocol.md).

1. Who asks passes the doors of the admission, and may have the stream of the book; before that no book is asked for.
2. Every answer is JSON, and a refusal `{"code": …, "msg": …}`, which names the parameter and what is accepted. No byte
   of the query is repeated.
3. A page whose origin is allowed can read every answer, refusals too; one of another origin is refused, and reads none.
4. A book that is not complete is not sent: the answer is 503, with when to ask again. It says so where nothing at all
   is known of the market.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol
from urllib.parse import parse_qs

import msgspec
from twisted.internet.defer import Deferred

from marketfeed.access.admission import Admission
from marketfeed.access.origins import is_origin
from marketfeed.boundaries import NoBook
from marketfeed.http.head import Head
from marketfeed.http.response import Response
from marketfeed.model.streams import StreamKinds, StreamName, is_market

__all__ = ["INCOMPLETE", "UNKNOWN", "Book", "Books", "DepthAnswers", "DepthQuery", "read_query"]

_DEFAULT_LIMIT, _MOST_LEVELS = 100, 5000
_MISSING, _ILLEGAL = -1102, -1100
_CODES = {400: _ILLEGAL, 401: -1002, 403: -1002, 429: -1003, 500: -1000, 503: -1008}
"""Binance's code for each status; clients know them as "unknown", "unauthorised", "too many requests" and "busy"."""
_RETRY = (("Retry-After", "1"),)
_METHODS = "GET, HEAD, OPTIONS"
_PREFLIGHT = (
    ("Access-Control-Allow-Methods", _METHODS),
    ("Access-Control-Allow-Headers", "Authorization, Content-Type, X-MBX-APIKEY"),  # the last as Binance's clients do
    ("Access-Control-Max-Age", "600"),
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
        return _bad_query("symbol is mandatory: a market as in its streams' names, such as TATA_INR", _MISSING)
    if len(symbols) > 1 or not is_market(symbols[0]):
        return _bad_query("symbol: expected one market, 1 to 64 of the characters A-Z a-z 0-9 . _ -")
    if len(limits) > 1 or not _is_limit(limits[0]):
        return _bad_query(f"limit: expected one whole number from 1 to {_MOST_LEVELS}")
    return DepthQuery(kinds.parse(f"depth@{symbols[0]}"), int(limits[0]))


def _is_limit(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10 and 1 <= int(text) <= _MOST_LEVELS


class DepthAnswers:
    """Answers the requests of this process."""

    def __init__(self, admission: Admission, books: Books, kinds: StreamKinds) -> None:
        self._admission = admission
        self._books = books
        self._kinds = kinds

    def answer(self, address: str | None, head: Head) -> Deferred[Response]:
        """The answer for a client at `address`. Cancel it when the client is gone."""
        return Deferred.fromCoroutine(self._answer(address, head))

    def in_its_place(self, address: str | None, head: Head) -> tuple[Response, Response]:
        """What is sent in place of an answer that takes too long, and of one that a fault of ours has prevented."""
        for_page = self._for_page(address, head)
        return _with(INCOMPLETE, for_page), _with(_FAULT, for_page)

    async def _answer(self, address: str | None, head: Head) -> Response:
        for_page = self._for_page(address, head)
        if head.method == "OPTIONS":
            return _with(Response(204, "", (("Allow", _METHODS),)), (*for_page, *(_PREFLIGHT if for_page else ())))
        return _with(await self._find(address, head), for_page)

    async def _find(self, address: str | None, head: Head) -> Response:
        identity = self._admission.identify(address, head)
        if isinstance(identity, Response):
            return _as_json(identity)
        query = read_query(head.query, self._kinds)
        if isinstance(query, Response):
            return query
        if not identity.permits(query.stream):
            return _as_json(Response(403, "the token does not cover the depth stream of this market"))
        book = await self._books.book(query.stream)
        if isinstance(book, NoBook):
            return UNKNOWN if book is NoBook.UNKNOWN else INCOMPLETE
        depth = book.depth(query.limit)
        return INCOMPLETE if depth is None else Response(200, "a book", json=depth)

    def _for_page(self, address: str | None, head: Head) -> tuple[tuple[str, str], ...]:
        """The headers with which a browser gives the answer to the page that asked (WHATWG Fetch, CORS protocol)."""
        origin = head.headers.get("origin", "")
        if not is_origin(origin) or not self._admission.permits_origin(address, head):
            return ()
        return (
            ("Access-Control-Allow-Origin", origin),
            ("Access-Control-Expose-Headers", "Retry-After"),
            ("Vary", "Origin"),
        )


def _with(answer: Response, headers: tuple[tuple[str, str], ...]) -> Response:
    return msgspec.structs.replace(answer, headers=(*answer.headers, *headers))


def _bad_query(text: str, code: int = _ILLEGAL) -> Response:
    return _as_json(Response(400, text), code)


def _as_json(refusal: Response, code: int | None = None) -> Response:
    body = {"code": _CODES[refusal.status] if code is None else code, "msg": refusal.text}
    return msgspec.structs.replace(refusal, json=msgspec.json.encode(body))


INCOMPLETE = _as_json(Response(503, "the book of this market is not complete yet", _RETRY))
UNKNOWN = _as_json(
    Response(
        503,
        "nothing is known of this market: nothing has come on its depth stream, and there is no snapshot of it",
        (("Retry-After", "10"),),
    )
)
_FAULT = _as_json(Response(500, "internal error"))
