"""The book of a market in one plain answer."""

from __future__ import annotations

import json

import pytest
from twisted.internet.defer import Deferred

from marketfeed.api.depth import INCOMPLETE, UNKNOWN, Depth
from marketfeed.api.listing import Listing
from marketfeed.api.query import BadQuery, Query
from marketfeed.boundaries import NoBook
from marketfeed.http.response import Response
from marketfeed.model.identity import ANONYMOUS, Identity, parse_patterns
from marketfeed.model.markets import Market, Markets
from marketfeed.model.streams import StreamKinds
from tests.fakes import FakeBook, FakeBooks

KINDS = StreamKinds()
NO_MARKETS = Markets()


class TestFind:
    def found(
        self,
        book: FakeBook | NoBook,
        query: str = "symbol=A",
        identity: Identity = ANONYMOUS,
        markets: Markets = NO_MARKETS,
    ) -> tuple[Response, list[str]]:
        """Somebody asks, and is answered at once; and for which books was asked."""
        books = FakeBooks(book)
        answers: list[Response] = []
        depth = Depth(books, KINDS, Listing(markets, frozenset))
        Deferred.fromCoroutine(depth.find(identity, Query(query))).addCallback(answers.append)
        (answer,) = answers
        return answer, books.asked

    def test_a_book(self) -> None:
        """As many levels as were asked for, as JSON."""
        answer, asked = self.found(FakeBook(levels=3), "symbol=TATA_INR&limit=2")
        assert answer == Response(200, "a book", json=FakeBook(2).depth(2) or b"")
        assert asked == ["depth@TATA_INR"]

    @pytest.mark.parametrize(("limit", "levels"), [("", 100), ("&limit=5000", 5000), ("&limit=99999", 5000)])
    def test_no_more_levels_than_there_may_be(self, limit: str, levels: int) -> None:
        """A hundred, if nothing is said."""
        answer, _ = self.found(FakeBook(6000), f"symbol=A{limit}")
        assert len(json.loads(answer.json)["bids"]) == levels

    def test_an_alias(self) -> None:
        """Its market's book."""
        assert self.found(FakeBook(), "symbol=AB", markets=Markets([Market("A_B", alias="AB")]))[1] == ["depth@A_B"]

    def test_a_book_that_is_not_complete(self) -> None:
        """503 with when to ask again, also when it was complete a moment ago."""
        assert self.found(FakeBook(None))[0] == INCOMPLETE

    @pytest.mark.parametrize(("why", "answer"), [(NoBook.INCOMPLETE, INCOMPLETE), (NoBook.UNKNOWN, UNKNOWN)])
    def test_no_book(self, why: NoBook, answer: Response) -> None:
        """503 with when to ask again, which is later where nothing is known of the market."""
        assert self.found(why)[0] == answer
        assert (INCOMPLETE.status, INCOMPLETE.headers) == (503, (("Retry-After", "1"),))
        assert json.loads(INCOMPLETE.json) == {"code": -1008, "msg": "the book of this market is not complete yet"}

    def test_a_token_that_does_not_cover_it(self) -> None:
        """No book is asked for."""
        trades = Identity("alice", parse_patterns(["trade@*"], "alice"), 2e9)
        answer, asked = self.found(FakeBook(), identity=trades)
        assert (answer.status, asked) == (403, [])

    @pytest.mark.parametrize("query", ["", "symbol=A&limit=0", "symbol=B"])
    def test_a_bad_query_asks_for_no_book(self, query: str) -> None:
        """Nor does a market that is not there, where others are declared."""
        books = FakeBooks(FakeBook())
        depth = Depth(books, KINDS, Listing(Markets([Market("A")]), frozenset))
        faults: list[object] = []
        found = Deferred.fromCoroutine(depth.find(ANONYMOUS, Query(query)))
        found.addErrback(lambda failure: faults.append(failure.trap(BadQuery)))
        assert faults
        assert not books.asked
