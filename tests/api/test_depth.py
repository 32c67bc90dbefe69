"""The book of a market in one plain answer: what is asked for, and what is found."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from marketfeed.api.depth import INCOMPLETE, UNKNOWN, Depth, DepthQuery, read_query
from marketfeed.boundaries import NoBook
from marketfeed.http.response import Response
from marketfeed.model.identity import ANONYMOUS, Identity, parse_patterns
from marketfeed.model.streams import StreamKinds
from tests.fakes import FakeBook, FakeBooks
from tests.strategies import property_test

KINDS = StreamKinds()
MANDATORY = {"code": -1102, "msg": "symbol is mandatory: a market as in its streams' names, such as TATA_INR"}
BAD_SYMBOL = {"code": -1100, "msg": "symbol: expected one market, 1 to 64 of the characters A-Z a-z 0-9 . _ -"}
BAD_LIMIT = {"code": -1100, "msg": "limit: expected one whole number from 1 to 5000"}


class TestQuery:
    @pytest.mark.parametrize(
        ("query", "stream", "limit"),
        [
            ("symbol=TATA_INR", "depth@TATA_INR", 100),
            ("symbol=TATA%5FINR&limit=1", "depth@TATA_INR", 1),
            ("limit=5000&symbol=tata.inr-x&token=x&other=", "depth@tata.inr-x", 5000),
            ("symbol=A&limit=007", "depth@A", 7),
        ],
    )
    def test_a_market_is_taken_as_it_is_spelled(self, query: str, stream: str, limit: int) -> None:
        """Nothing is guessed; the limit is 100 where there is none, and other parameters mean nothing."""
        assert read_query(query, KINDS) == DepthQuery(KINDS.parse(stream), limit)

    @pytest.mark.parametrize(
        ("query", "body"),
        [
            ("", MANDATORY),
            ("limit=5", MANDATORY),
            ("symbol=", MANDATORY),
            ("symbol", MANDATORY),
            ("Symbol=A", MANDATORY),
            ("symbol=A&symbol=B", BAD_SYMBOL),
            ("symbol=A&symbol=", BAD_SYMBOL),
            ("symbol=depth@A", BAD_SYMBOL),
            ("symbol=A%20B", BAD_SYMBOL),
            ("symbol=%E9", BAD_SYMBOL),
            (f"symbol={'A' * 65}", BAD_SYMBOL),
            ("symbol=A&limit=0", BAD_LIMIT),
            ("symbol=A&limit=5001", BAD_LIMIT),
            ("symbol=A&limit=", BAD_LIMIT),
            ("symbol=A&limit=-1", BAD_LIMIT),
            ("symbol=A&limit=1.5", BAD_LIMIT),
            ("symbol=A&limit=%D9%A1", BAD_LIMIT),
            ("symbol=A&limit=1&limit=1", BAD_LIMIT),
            (f"symbol=A&limit={'9' * 5000}", BAD_LIMIT),
        ],
    )
    def test_what_cannot_be_read_is_named(self, query: str, body: dict[str, Any]) -> None:
        """With what is accepted, in Binance's shape, and nothing of what was sent."""
        refusal = read_query(query, KINDS)
        assert isinstance(refusal, Response)
        assert refusal.status == 400
        assert json.loads(refusal.json) == body

    @property_test
    @given(st.text(max_size=30))
    def test_any_query_is_read_or_refused(self, query: str) -> None:
        """Nothing is raised."""
        for text in (query, f"symbol={query}", f"symbol=A&limit={query}"):
            answer = read_query(text, KINDS)
            assert isinstance(answer, DepthQuery) or answer.status == 400


class TestFind:
    def found(self, book: FakeBook | NoBook, query: str = "symbol=A", identity: Identity = ANONYMOUS) -> Response:
        """Somebody asks, and is answered at once; a book is asked for where there may be one to answer with."""
        books = FakeBooks(book)
        answers: list[Response] = []
        Deferred.fromCoroutine(Depth(books, KINDS).find(identity, query)).addCallback(answers.append)
        (answer,) = answers
        assert bool(books.asked) == (answer.status not in (400, 403))
        return answer

    def test_a_book(self) -> None:
        """As many levels as were asked for, as JSON."""
        answer = self.found(FakeBook(levels=3), "symbol=TATA_INR&limit=2")
        assert answer == Response(200, "a book", json=FakeBook(2).depth(2) or b"")

    def test_a_book_that_is_not_complete(self) -> None:
        """503 with when to ask again, also when it was complete a moment ago."""
        assert self.found(FakeBook(None)) == INCOMPLETE

    @pytest.mark.parametrize(("why", "answer"), [(NoBook.INCOMPLETE, INCOMPLETE), (NoBook.UNKNOWN, UNKNOWN)])
    def test_no_book(self, why: NoBook, answer: Response) -> None:
        """503 with when to ask again, which is later where nothing is known of the market."""
        assert self.found(why) == answer
        assert (INCOMPLETE.status, INCOMPLETE.headers) == (503, (("Retry-After", "1"),))
        assert json.loads(INCOMPLETE.json) == {"code": -1008, "msg": "the book of this market is not complete yet"}

    def test_a_bad_query_asks_for_no_book(self) -> None:
        """Nor does a token that does not cover it."""
        trades = Identity("alice", parse_patterns(["trade@*"], "alice"), 2e9)
        assert self.found(FakeBook(), "").status == 400
        assert self.found(FakeBook(), identity=trades).status == 403
