"""Candles, and the last 24 hours, in plain answers: what is asked for, who may, and what cannot be used."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from marketfeed.api.candle_answers import DayTickers, Klines
from marketfeed.api.listing import Listing
from marketfeed.api.query import BadQuery, Query
from marketfeed.hub.faults import Faults
from marketfeed.hub.portions import Portions
from marketfeed.model.identity import ANONYMOUS, Identity, parse_patterns
from marketfeed.model.markets import Market, Markets
from marketfeed.model.streams import StreamKinds
from tests.fakes import FakeCandles

KINDS = StreamKinds()
LISTING = Listing(Markets([Market("A"), Market("B")]), frozenset)
SOME = Identity("", parse_patterns(["kline_1m@A", "miniTicker@B"], ""), 0.0)


class NoBooks:
    """Knows no best prices. `asked`: how often it was; `cost`: of each look, in µs."""

    def __init__(self, cost: int = 0) -> None:
        self.asked = 0
        self.cost = cost

    def best(self, market: str) -> dict[str, bytes]:
        self.asked += 1
        return {}

    def looking_cost(self, market: str) -> int:
        return self.cost


class Markets200(FakeCandles):
    """Has the same 24 hours of 200 markets."""

    async def days(self) -> dict[str, dict[str, bytes]] | None:
        days = await super().days()
        if days and len(days) == 1:
            days.update({f"M{number}": days["A"] for number in range(199)})
        return days


def new_portions() -> Portions:
    clock = Clock()
    return Portions(clock, Faults(clock))


def klines(stock: FakeCandles, query: str, identity: Identity = ANONYMOUS) -> Any:
    return answered(Klines(stock, KINDS, LISTING, lambda: 0.0).find(identity, Query(query)))


def days(stock: FakeCandles, query: str, identity: Identity = ANONYMOUS) -> Any:
    return answered(DayTickers(stock, NoBooks(), new_portions(), KINDS, LISTING).find(identity, Query(query)))


def answered(found: Any) -> Any:
    answers: list[Any] = []
    Deferred.fromCoroutine(found).addBoth(answers.append)
    (answer,) = answers
    if hasattr(answer, "raiseException"):
        answer.raiseException()
    return answer


def test_what_is_asked_for() -> None:
    """Five hundred of them, or as many as somebody says, a thousand at most."""
    stock = FakeCandles()
    for query in ("", "&limit=3&startTime=0&endTime=9", "&limit=5000"):
        assert klines(stock, f"symbol=A&interval=1m{query}").status == 200
    assert stock.asked == [("A", "1m", None, None, 500), ("A", "1m", 0, 9, 3), ("A", "1m", None, None, 1000)]
    text = klines(stock, "symbol=A&interval=1m&format=csv").text.splitlines()
    assert (text[0].split(",")[0], text[1]) == ("open time", "0,1,1,1,1,5,59999,5,1,0,0")


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("symbol=A", -1102),
        ("symbol=A&interval=", -1102),
        ("interval=1m", -1102),
        ("symbol=A&interval=2m", -1120),
        ("symbol=A&interval=1m&startTime=-1", -1100),
        ("symbol=A&interval=1m&limit=0", -1100),
        ("symbol=A&interval=1m&format=xml", -1100),
        ("symbol=C&interval=1m", -1121),
    ],
)
def test_what_cannot_be_used(query: str, code: int) -> None:
    """The code says which parameter it is, as clients know it."""
    with pytest.raises(BadQuery) as caught:
        klines(FakeCandles(), query)
    assert caught.value.code == code


def test_who_may() -> None:
    """Whose token covers the stream of the same name."""
    stock = FakeCandles()
    assert klines(stock, "symbol=A&interval=1m", SOME).status == 200
    assert klines(stock, "symbol=A&interval=1h", SOME).status == 403
    assert days(stock, "symbol=A", SOME).status == 403
    assert json.loads(days(stock, "", SOME).json) == []


def test_the_last_day() -> None:
    """One, some, or all that are known; of one that nobody knows, that it is not known."""
    stock = FakeCandles()
    assert len(json.loads(days(stock, "symbol=A").json)) == 21
    assert json.loads(days(stock, "symbol=A&type=MINI").json).keys() >= {"symbol", "openPrice", "count"}
    assert [each["symbol"] for each in json.loads(days(stock, "symbols=%5B%22A%22,%22B%22%5D").json)] == ["A"]
    answer = days(stock, "symbol=B")
    assert (answer.status, json.loads(answer.json)["msg"]) == (
        503,
        "nothing is known of this market: it has had no trade yet",
    )
    with pytest.raises(BadQuery):
        days(stock, "type=ALL")


def test_candles_of_a_market_of_which_nobody_knows() -> None:
    """Where no markets are declared it may exist all the same. One that was heard of, or has traded, has none there."""
    heard = Listing(Markets(), lambda: frozenset({"H"}))
    stock = FakeCandles()
    find = Klines(stock, KINDS, heard, lambda: 0.0).find
    status = {
        market: answered(find(ANONYMOUS, Query(f"symbol={market}&interval=1m&startTime=9{form}"))).status
        for market in "AHX"
        for form in ("", "&format=csv")
    }
    assert status == {"A": 200, "H": 200, "X": 503}
    asked = len(stock.asked)
    assert answered(find(ANONYMOUS, Query("symbol=X&interval=1m&startTime=9"))).status == 503
    assert len(stock.asked) == asked + 1, "for it may have a trade now"
    assert answered(find(ANONYMOUS, Query("symbol=H&interval=1m&startTime=9"))).json == b"[]"


def test_how_long_they_may_be_kept() -> None:
    """A second; by its bearer alone, what was found by a token."""
    stock = FakeCandles()
    wide = Identity("alice", None, 0.0)
    for query in ("symbol=A&interval=1m", "symbol=A&interval=1m&format=csv"):
        assert klines(stock, query).cache == "public, max-age=1"
        assert klines(stock, query, wide).cache == "private, max-age=1"
    for query in ("", "symbol=A"):
        assert days(stock, query).cache == "public, max-age=1"
        assert days(stock, query, wide).cache == "private, max-age=1"
    assert days(stock, "symbol=B").cache == "no-store"


def test_candles_are_read_once_a_second() -> None:
    """Whoever asks, for the same; in the one form and in the other."""
    stock, now = FakeCandles(), [0.0]
    find = Klines(stock, KINDS, LISTING, lambda: now[0]).find
    for query in ("symbol=A&interval=1m", "symbol=A&interval=1m&format=csv", "symbol=A&interval=1h"):
        bodies = [
            answered(find(who, Query(query))) for who in (ANONYMOUS, Identity("alice", None, 0.0)) for _ in range(3)
        ]
        assert len({(each.json, each.text) for each in bodies}) == 1
    assert len(stock.asked) == 3
    now[0] = 1.0
    assert answered(find(SOME, Query("symbol=A&interval=1m"))).status == 200
    assert len(stock.asked) == 4
    assert answered(find(SOME, Query("symbol=A&interval=1h"))).status == 403, "whatever is kept"


def test_many_markets_are_written_once() -> None:
    """In each of the three forms, until they change."""
    stock, books = FakeCandles(), NoBooks()
    tickers = DayTickers(stock, books, new_portions(), KINDS, LISTING)

    def ask() -> list[Any]:
        finds = (tickers.find(ANONYMOUS, Query("")), tickers.find(ANONYMOUS, Query("type=MINI")))
        return [json.loads(answered(each).json)[0] for each in (*finds, tickers.find_prices(ANONYMOUS, Query("")))]

    first = ask()
    assert [len(each) for each in first] == [21, 12, 2]
    assert ask() == first
    assert books.asked == 1
    stock.last = "2"
    assert [each.get("lastPrice", each.get("price")) for each in ask()] == ["2", "2", "2"]


def test_a_market_by_two_names_is_told_once() -> None:
    listing = Listing(Markets([Market("A", alias="AA")]), frozenset)
    found = DayTickers(FakeCandles(), NoBooks(), new_portions(), KINDS, listing).find_prices(
        ANONYMOUS, Query('symbols=["AA","A"]')
    )
    assert json.loads(answered(found).json) == [{"symbol": "A", "price": "1"}]


def test_many_markets_take_more_than_a_turn() -> None:
    """To look at their books, and to see which of them a token with many patterns permits."""
    odd = Identity("", parse_patterns([f"miniTicker@M*{number}*x" for number in range(100)], ""), 0.0)
    for books, identity, count in ((NoBooks(100), ANONYMOUS, 200), (NoBooks(), odd, 0)):
        portions = new_portions()
        tickers = DayTickers(Markets200(), books, portions, KINDS, LISTING)
        answers: list[Any] = []
        Deferred.fromCoroutine(tickers.find(identity, Query(""))).addCallback(answers.append)
        turns = 0
        while not answers:
            portions._next_turn()
            turns += 1
        assert turns >= 10
        assert len(json.loads(answers[0].json)) == books.asked == count


def test_while_nobody_makes_candles() -> None:
    """They are not there, which is no fault of who asks."""
    stock = FakeCandles()
    stock.is_away = True
    for answer in (klines(stock, "symbol=A&interval=1m"), days(stock, ""), days(stock, "symbol=A")):
        assert (answer.status, dict(answer.headers)["Retry-After"]) == (503, "5")
