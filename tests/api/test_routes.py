"""The table of plain answers, and what load balancers ask."""

from __future__ import annotations

import json

import pytest
from twisted.internet.task import Clock

from marketfeed.api.listing import Listing
from marketfeed.api.query import Query
from marketfeed.api.routes import alive, plain_answers, readiness, rest_answers
from marketfeed.http.head import Head
from marketfeed.http.response import Response
from marketfeed.http.router import LateResponse, Router
from marketfeed.model.identity import Identity
from marketfeed.model.markets import Market, Markets
from marketfeed.websocket.connections import UserManager
from tests.fakes import FakeCandles, make_admission
from tests.rooms import KINDS, Room, depth, member

HEAD = Head("GET", "/", "", {})


def test_who_answers_lives() -> None:
    """Whatever else is the matter."""
    assert alive(HEAD, None) == Response(200, "ok")


@pytest.mark.parametrize(
    ("ready", "answer"),
    [(True, Response(200, "ready")), (False, Response(503, "not ready", (("Retry-After", "1"),), reason="not-ready"))],
)
def test_readiness(ready: bool, answer: Response) -> None:
    """As it is at this moment; 503 says when to ask again."""
    states = [not ready, ready]
    ask = readiness(lambda: states.pop(0))
    assert ask(HEAD, None) != answer
    assert ask(HEAD, None) == answer


@pytest.mark.parametrize(
    ("path", "query", "text"),
    [
        ("/healthz", "", "ok"),
        ("/readyz", "", "ready"),
        ("/api/v3/ping", "", {}),
        ("/api/v3/time", "", {"serverTime": 1234}),
        ("/api/v3/exchangeInfo", "", {"timezone": "UTC"}),
        ("/api/v3/depth", "symbol=A", {"lastUpdateId": 1}),
        ("/api/v3/trades", "symbol=A", []),
        ("/api/v3/aggTrades", "symbol=A", []),
        ("/api/v3/ticker/bookTicker", "symbol=A", {"symbol": "A"}),
        ("/api/v3/klines", "symbol=A&interval=1m", [[0, "1", "1", "1", "1", "5", 59_999, "5", 1, "0", "0", "0"]]),
        ("/api/v3/uiKlines", "symbol=A&interval=1M", [[0, "1", "1", "1", "1", "5", 59_999, "5", 1, "0", "0", "0"]]),
        ("/api/v3/ticker/24hr", "symbol=A", {"symbol": "A", "lastPrice": "1", "bidPrice": "1"}),
        ("/api/v3/ticker/price", "symbol=A", {"symbol": "A", "price": "1"}),
    ],
)
def test_every_line_of_it_is_found(path: str, query: str, text: object) -> None:
    """By its path as it stands there; each is counted by what stands behind /api/v3/."""
    room = Room()
    client = member(room, "depth@A", "trade@A")
    room.source.publish("depth@A", depth(1, is_snapshot=True))
    listing = Listing(Markets([Market("A")]), frozenset)
    admission = make_admission(room.clock, UserManager(Clock(), 100, 0.0, room.clock.seconds))
    rest = rest_answers(room.hub, FakeCandles(), KINDS, listing, lambda: 1.234, lambda: 1200)
    asked = Router(KINDS, plain_answers(admission, rest, lambda: True)).ask(Head("GET", path, query, {}), None)
    answers: list[Response] = []
    if isinstance(asked, LateResponse):
        assert path == f"/api/v3/{asked.name}"
        asked.found.addCallback(answers.append)
    else:
        assert isinstance(asked, Response)
        answers.append(asked)
    (answer,) = answers
    if isinstance(text, str):
        assert answer.text == text
    else:
        found = json.loads(answer.json)
        assert found == text if isinstance(text, list) else text.items() <= found.items()  # type: ignore[attr-defined]
    client.end()
    room.hub.stopService()


@pytest.mark.parametrize("path", ["/api/v3/depth/", "/api/v3/kline", "/api/v3/ticker/price/24hr", "/api/v3/"])
def test_a_path_of_rest_that_is_none_is_refused_as_rest_refuses(path: str) -> None:
    """In JSON, with all that there are; what was asked for is not repeated."""
    clock = Clock()
    admission = make_admission(clock, UserManager(Clock(), 100, 0.0, clock.seconds))
    router = Router(KINDS, plain_answers(admission, {"ping": never, "depth": never}, lambda: True))
    asked = router.ask(Head("GET", path, "", {}), None)
    assert isinstance(asked, LateResponse)
    assert asked.name == "unknown"
    answers: list[Response] = []
    asked.found.addCallback(answers.append)
    (answer,) = answers
    assert answer.status == 404
    assert json.loads(answer.json) == {
        "code": -1020,
        "msg": "nothing is at this path; expected one of /api/v3/ping, /api/v3/depth",
    }


async def never(identity: Identity, query: Query) -> Response:
    raise AssertionError
