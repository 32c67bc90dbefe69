"""The book of a market in one plain answer: what is asked for, who may have it, and what a page can read of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from marketfeed.access.keys import KeySet, VerifyKey
from marketfeed.access.tokens import TokenVerifier
from marketfeed.api.depth import INCOMPLETE, UNKNOWN, DepthAnswers, DepthQuery, read_query
from marketfeed.boundaries import NoBook
from marketfeed.http.head import parse_head
from marketfeed.http.response import Response
from marketfeed.model.streams import StreamKinds
from marketfeed.websocket.connections import UserManager
from tests.conftest import LogCapture
from tests.fakes import FakeBook, FakeBooks, FakeMemory, make_admission
from tests.strategies import property_test
from tests.tokens import HOUR, NOW, SECRET, signed

KINDS = StreamKinds()
PEER = "192.0.2.7"
PAGE, OTHER = "https://app.example", "https://evil.example"
MANDATORY = {"code": -1102, "msg": "symbol is mandatory: a market as in its streams' names, such as TATA_INR"}
BAD_SYMBOL = {"code": -1100, "msg": "symbol: expected one market, 1 to 64 of the characters A-Z a-z 0-9 . _ -"}
BAD_LIMIT = {"code": -1100, "msg": "limit: expected one whole number from 1 to 5000"}


def token_of(pattern: str) -> str:
    """A good token, for these streams only."""
    return signed(claims={"sub": "alice", "exp": NOW + HOUR, "streams": [pattern]})


class Desk:
    """Answers requests for books, and has all that is needed for it. `auth`: as the option."""

    def __init__(self, *, auth: str = "off", book: FakeBook | NoBook | None = None, **admission: Any) -> None:
        self.clock = Clock()
        self.users = UserManager(self.clock, 100, 0.0, lambda: NOW)
        self.memory = FakeMemory()
        self.books = FakeBooks(book or FakeBook())
        if auth != "off":
            keys = KeySet({}, VerifyKey("HS256", SECRET))
            admission |= {"verifier": TokenVerifier(lambda: keys, lambda: NOW), "needs_token": auth == "required"}
        admission = {"origins": (PAGE,), **admission}
        self.answers = DepthAnswers(
            make_admission(self.clock, self.users, memory=self.memory, **admission), self.books, KINDS
        )

    def ask(self, query: str = "symbol=A", method: str = "GET", **headers: str) -> Deferred[Response]:
        """Somebody asks."""
        lines = [f"{method} /api/v3/depth?{query} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return self.answers.answer(PEER, parse_head("\r\n".join(lines).encode()))

    def answer(self, query: str = "symbol=A", method: str = "GET", **headers: str) -> Response:
        """Somebody asks, and is answered at once."""
        answers: list[Response] = []
        self.ask(query, method, **headers).addCallback(answers.append)
        (answer,) = answers
        return answer


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


class TestAnswer:
    def test_a_book(self) -> None:
        """As many levels as were asked for, as JSON."""
        desk = Desk(book=FakeBook(levels=3))
        answer = desk.answer("symbol=TATA_INR&limit=2")
        assert answer == Response(200, "a book", json=FakeBook(2).depth(2) or b"")
        assert desk.books.asked == ["depth@TATA_INR"]

    def test_a_book_that_is_not_complete(self) -> None:
        """503 with when to ask again, also when it was complete a moment ago."""
        assert Desk(book=FakeBook(None)).answer() == INCOMPLETE

    @pytest.mark.parametrize(("why", "answer"), [(NoBook.INCOMPLETE, INCOMPLETE), (NoBook.UNKNOWN, UNKNOWN)])
    def test_no_book(self, why: NoBook, answer: Response) -> None:
        """503 with when to ask again, which is later where nothing is known of the market."""
        assert Desk(book=why).answer() == answer
        assert (INCOMPLETE.status, INCOMPLETE.headers) == (503, (("Retry-After", "1"),))
        assert json.loads(INCOMPLETE.json) == {"code": -1008, "msg": "the book of this market is not complete yet"}

    @pytest.mark.parametrize("book", [NoBook.INCOMPLETE, FakeBook()])
    def test_a_book_that_takes_its_time(self, book: FakeBook | NoBook) -> None:
        """It is waited for, as long as there may come one."""
        desk = Desk()
        desk.books.at_once = None
        answers: list[Response] = []
        desk.ask().addCallback(answers.append)
        assert not answers
        desk.books.give(book)
        assert [answer.status for answer in answers] == [503 if isinstance(book, NoBook) else 200]

    def test_nobody_waits_any_more(self) -> None:
        """The book is not wanted any longer, then."""
        desk = Desk()
        desk.books.at_once = None
        asking = desk.ask()
        asking.addErrback(lambda _: None)
        asking.cancel()
        assert desk.books.asked == ["depth@A"]
        assert not desk.books.waiting

    def test_a_bad_query_asks_for_no_book(self) -> None:
        """Nor does anybody who is refused."""
        desk = Desk(auth="required")
        for query, headers in (("", {"Authorization": f"Bearer {signed()}"}), ("symbol=A", {})):
            assert desk.answer(query, **headers).status in (400, 401)
        assert not desk.books.asked


class TestAccess:
    def refused(self, desk: Desk, *asked: str, **headers: str) -> tuple[int, Any, dict[str, str]]:
        answer = desk.answer(*asked, **headers)
        assert not desk.books.asked
        return answer.status, json.loads(answer.json), dict(answer.headers)

    def test_too_many_attempts(self) -> None:
        """Each request is one, and told when the next may come."""
        desk = Desk(connect_rate=1)
        assert desk.answer().status == 200
        desk.books.asked.clear()
        status, body, headers = self.refused(desk)
        assert (status, headers) == (429, {"Retry-After": "300"})
        assert body == {"code": -1003, "msg": "too many connections from this address"}

    def test_a_server_that_is_going_or_has_no_memory(self) -> None:
        """503, as a client is told."""
        desk = Desk()
        desk.memory.is_full = True
        assert self.refused(desk)[0] == 503
        desk.memory.is_full = False
        desk.users.draining = True
        assert self.refused(desk) == (
            503,
            {"code": -1008, "msg": "this server is shutting down"},
            {"Retry-After": "5"},
        )

    @pytest.mark.parametrize(
        ("headers", "status", "text"),
        [
            ({}, 401, "a token is needed"),
            ({"Authorization": "Bearer x"}, 401, "the token is no JWT"),
            ({"Authorization": "Bearer x, Bearer y"}, 400, "there are two different tokens in the request"),
            (
                {"Authorization": f"Bearer {token_of('trade@*')}"},
                403,
                "the token does not cover the depth stream of this market",
            ),
        ],
        ids=["none", "bad", "two", "of others"],
    )
    def test_a_token_that_is_not_good_for_it(self, headers: dict[str, str], status: int, text: str) -> None:
        """Refused with why, and with the scheme that is spoken."""
        code, body, more = self.refused(Desk(auth="required"), **headers)
        assert (code, body["msg"]) == (status, text)
        assert ("WWW-Authenticate" in more) == (status == 401)

    @pytest.mark.parametrize("auth", ["optional", "required"])
    def test_a_good_token(self, auth: str) -> None:
        """In the header or in the query."""
        token = token_of("depth@A")
        assert Desk(auth=auth).answer(Authorization=f"Bearer {token}").status == 200
        assert Desk(auth=auth).answer(f"symbol=A&token={token}").status == 200


class TestPages:
    READABLE = {
        "Access-Control-Allow-Origin": PAGE,
        "Access-Control-Expose-Headers": "Retry-After",
        "Vary": "Origin",
    }

    def test_an_allowed_page_can_read_the_book(self) -> None:
        """A program is told nothing about pages."""
        assert dict(Desk().answer(Origin=PAGE).headers) == self.READABLE
        assert Desk().answer().headers == ()

    @pytest.mark.parametrize(
        ("more", "query", "status"),
        [({}, "", 400), ({"auth": "required"}, "symbol=A", 401), ({"book": FakeBook(None)}, "symbol=A", 503)],
    )
    def test_an_allowed_page_can_read_a_refusal(self, more: dict[str, Any], query: str, status: int) -> None:
        """Its status, its reason, and when to come back."""
        answer = Desk(**more).answer(query, Origin=PAGE)
        assert answer.status == status
        assert self.READABLE.items() <= dict(answer.headers).items()

    @pytest.mark.parametrize("origin", [OTHER, "null", "nonsense", ""])
    def test_another_page_is_refused(self, origin: str, logged: LogCapture) -> None:
        """With 403, which it cannot read either; it is logged once."""
        desk = Desk()
        answer = desk.answer(Origin=origin)
        assert (answer.status, answer.headers) == (403, ())
        assert json.loads(answer.json) == {"code": -1002, "msg": "pages of this origin may not connect"}
        assert not desk.books.asked
        assert len(logged.events) == 1

    def test_what_is_no_origin_is_not_repeated(self) -> None:
        """Also where any page may connect."""
        desk = Desk(origins=("*",))
        assert "Access-Control-Allow-Origin" not in dict(desk.answer(Origin="secret, https://a.example").headers)
        assert dict(desk.answer(Origin="null").headers)["Access-Control-Allow-Origin"] == "null"

    def test_a_browser_asks_first(self) -> None:
        """Before it sends a token, say: without one, and without costing an attempt."""
        desk = Desk(auth="required", connect_rate=1)
        for _ in range(2):
            answer = desk.answer("", "OPTIONS", Origin=PAGE, Access_Control_Request_Method="GET")
            assert answer.status == 204
            assert dict(answer.headers) == {
                "Allow": "GET, HEAD, OPTIONS",
                **self.READABLE,
                "Access-Control-Allow-Methods": "GET, HEAD, OPTIONS",
                "Access-Control-Allow-Headers": "Authorization, Content-Type, X-MBX-APIKEY",
                "Access-Control-Max-Age": "600",
            }
        assert dict(desk.answer("", "OPTIONS", Origin=OTHER).headers) == {"Allow": "GET, HEAD, OPTIONS"}
