"""Market data in plain HTTP: who may have it, and what a page can read of the answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.task import Clock

from marketfeed.access.keys import KeySet, VerifyKey
from marketfeed.access.tokens import TokenVerifier
from marketfeed.api.depth import Depth
from marketfeed.api.listing import Listing
from marketfeed.api.market_data import MarketData
from marketfeed.boundaries import NoBook
from marketfeed.http.head import parse_head
from marketfeed.http.response import Response
from marketfeed.http.router import LateResponse
from marketfeed.model.markets import Markets
from marketfeed.model.streams import StreamKinds
from marketfeed.websocket.connections import UserManager
from tests.conftest import LogCapture
from tests.fakes import FakeBook, FakeBooks, FakeMemory, make_admission
from tests.tokens import HOUR, NOW, SECRET, signed

PEER = "192.0.2.7"
PAGE, OTHER = "https://app.example", "https://evil.example"
TOO_LATE = Response(503, "too late", (("Retry-After", "7"),))
READABLE = {
    "Access-Control-Allow-Origin": PAGE,
    "Access-Control-Expose-Headers": "Retry-After",
    "Vary": "Origin",
}


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
        admitting = make_admission(self.clock, self.users, memory=self.memory, **admission)
        depth = Depth(self.books, StreamKinds(), Listing(Markets(), frozenset))
        self.answers = MarketData(admitting, "depth", depth.find, TOO_LATE)

    def ask(self, query: str = "symbol=A", method: str = "GET", **headers: str) -> LateResponse:
        """Somebody asks."""
        lines = [f"{method} /api/v3/depth?{query} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return self.answers(parse_head("\r\n".join(lines).encode()), PEER)

    def answer(self, query: str = "symbol=A", method: str = "GET", **headers: str) -> Response:
        """Somebody asks, and is answered at once."""
        answers: list[Response] = []
        self.ask(query, method, **headers).found.addCallback(answers.append)
        (answer,) = answers
        return answer


class TestAnswer:
    @pytest.mark.parametrize("book", [NoBook.INCOMPLETE, FakeBook()])
    def test_what_takes_its_time(self, book: FakeBook | NoBook) -> None:
        """It is waited for, as long as there may come an answer; what is sent if it takes too long is known by then."""
        desk = Desk()
        desk.books.at_once = None
        answers: list[Response] = []
        late = desk.ask(Origin=PAGE)
        late.found.addCallback(answers.append)
        assert not answers
        assert (late.too_late.status, dict(late.too_late.headers)) == (503, {"Retry-After": "7", **READABLE})
        desk.books.give(book)
        assert [answer.status for answer in answers] == [503 if isinstance(book, NoBook) else 200]

    def test_nobody_waits_any_more(self) -> None:
        """The book is not wanted any longer, then."""
        desk = Desk()
        desk.books.at_once = None
        desk.ask().found.cancel()
        assert desk.books.asked == ["depth@A"]
        assert not desk.books.waiting

    @pytest.mark.parametrize(
        ("headers", "query"), [({"X-MBX-TIME-UNIT": "MICROSECOND"}, "symbol=A"), ({}, "symbol=A&timeUnit=microsecond")]
    )
    def test_times_in_another_unit(self, headers: dict[str, str], query: str) -> None:
        """They are refused, rather than sent in ms."""
        answer = Desk().answer(query, **headers)
        assert (answer.status, json.loads(answer.json)["code"]) == (400, -1100)
        assert Desk().answer("symbol=A&timeUnit=millisecond", **{"X-MBX-TIME-UNIT": "MILLISECOND"}).status == 200

    def test_a_fault_of_ours(self, logged: LogCapture) -> None:
        """It is logged, and answered, so that a page can read it."""
        desk = Desk()
        desk.books.book = lambda stream: 1 / 0  # type: ignore[assignment,return-value]
        answer = desk.answer(Origin=PAGE)
        assert (answer.status, json.loads(answer.json)) == (500, {"code": -1000, "msg": "internal error"})
        assert dict(answer.headers) == READABLE
        assert len(logged.flush_failures(ZeroDivisionError)) == 1


class TestAccess:
    def refused(self, desk: Desk, *asked: str, **headers: str) -> tuple[int, Any, dict[str, str]]:
        answer = desk.answer(*asked, **headers)
        assert not desk.books.asked
        return answer.status, json.loads(answer.json), dict(answer.headers)

    def test_too_many_requests(self) -> None:
        """Told when the next may come. They are no attempts to connect."""
        desk = Desk(connect_rate=1, rest_rate=2)
        assert desk.answer().status == 200
        assert desk.answer().status == 200
        desk.books.asked.clear()
        status, body, headers = self.refused(desk)
        assert (status, headers) == (429, {"Retry-After": "30"})
        assert body == {"code": -1003, "msg": "too many requests from this address"}

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
    def test_an_allowed_page_can_read_the_book(self) -> None:
        """A program is told nothing about pages."""
        assert dict(Desk().answer(Origin=PAGE).headers) == READABLE
        assert Desk().answer().headers == ()

    @pytest.mark.parametrize(
        ("more", "query", "status"),
        [({}, "", 400), ({"auth": "required"}, "symbol=A", 401), ({"book": FakeBook(None)}, "symbol=A", 503)],
    )
    def test_an_allowed_page_can_read_a_refusal(self, more: dict[str, Any], query: str, status: int) -> None:
        """Its status, its reason, and when to come back."""
        answer = Desk(**more).answer(query, Origin=PAGE)
        assert answer.status == status
        assert READABLE.items() <= dict(answer.headers).items()

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
        desk = Desk(auth="required", rest_rate=1)
        for _ in range(2):
            answer = desk.answer("", "OPTIONS", Origin=PAGE, Access_Control_Request_Method="GET")
            assert answer.status == 204
            assert dict(answer.headers) == {
                "Allow": "GET, HEAD, OPTIONS",
                **READABLE,
                "Access-Control-Allow-Methods": "GET, HEAD, OPTIONS",
                "Access-Control-Allow-Headers": "Authorization, Content-Type, X-MBX-APIKEY, X-MBX-TIME-UNIT",
                "Access-Control-Max-Age": "600",
            }
        assert dict(desk.answer("", "OPTIONS", Origin=OTHER).headers) == {"Allow": "GET, HEAD, OPTIONS"}
