"""The best bid and ask in one plain answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from marketfeed.api.book_ticker import BookTicker
from marketfeed.api.depth import INCOMPLETE, UNKNOWN, Book
from marketfeed.api.listing import Listing
from marketfeed.api.query import Query
from marketfeed.boundaries import NoBook
from marketfeed.http.response import Response
from marketfeed.hub.faults import Faults
from marketfeed.hub.portions import Portions
from marketfeed.model.book_state import BookState
from marketfeed.model.identity import ANONYMOUS, Identity, parse_patterns
from marketfeed.model.markets import Market, Markets
from marketfeed.model.streams import StreamKinds
from tests.fakes import FakeBook, FakeBooks
from tests.strategies import property_test


class Kept(FakeBooks):
    """Books that are kept, besides one that is asked for."""

    def __init__(self, book: FakeBook | NoBook | None = None, **kept: FakeBook) -> None:
        super().__init__(book)
        self.clock = Clock()
        self.portions = Portions(self.clock, Faults(self.clock))
        self.kept: dict[str, Any] = kept

    @property
    def books(self) -> Iterator[tuple[str, Book]]:
        return iter(self.kept.items())


def asking(kept: Kept, query: str = "", identity: Identity = ANONYMOUS, *declared: Market) -> list[Response]:
    """The answer, when it is there."""
    ticker = BookTicker(kept, StreamKinds(), Listing(Markets(declared), frozenset))
    answers: list[Response] = []
    Deferred.fromCoroutine(ticker.find(identity, Query(query))).addCallback(answers.append)
    return answers


def symbols(kept: Kept, query: str = "", identity: Identity = ANONYMOUS) -> list[str]:
    answers = asking(kept, query, identity)
    kept.clock.pump([0] * 100)
    return [each["symbol"] for each in json.loads(answers[0].json)]


def test_one_is_waited_for() -> None:
    """As its depth is."""
    kept = Kept()
    answers = asking(kept, "symbol=AB", ANONYMOUS, Market("A_B", alias="AB"))
    assert not answers
    assert kept.asked == ["depth@A_B"]
    kept.give(FakeBook())
    assert json.loads(answers[0].json) == {
        "symbol": "A_B",
        "bidPrice": "1.0",
        "bidQty": "2",
        "askPrice": "1.0",
        "askQty": "2",
    }


@pytest.mark.parametrize(
    ("book", "answer"), [(NoBook.UNKNOWN, UNKNOWN), (NoBook.INCOMPLETE, INCOMPLETE), (FakeBook(None), INCOMPLETE)]
)
def test_one_without_a_book(book: FakeBook | NoBook, answer: Response) -> None:
    assert asking(Kept(book), "symbol=A") == [answer]


def test_a_side_without_levels() -> None:
    (answer,) = asking(Kept(FakeBook(0)), "symbol=A")
    assert json.loads(answer.json)["bidPrice"] == json.loads(answer.json)["askQty"] == "0.00000000"


def test_all_that_are_kept() -> None:
    """By name; what turns out to be incomplete is left out, and none is asked for."""
    kept = Kept(B=FakeBook(), A=FakeBook(), C=FakeBook(None))
    assert symbols(kept) == ["A", "B"]
    assert symbols(kept, 'symbols=["B","C","D"]') == ["B"]
    assert not kept.asked


def test_only_what_is_permitted() -> None:
    """By the pattern of its own stream, not by that of the depth."""
    alice = Identity("alice", parse_patterns(["bookTicker@A", "depth@*"], "alice"), 2e9)
    kept = Kept(FakeBook(), A=FakeBook(), B=FakeBook())
    assert symbols(kept, identity=alice) == ["A"]
    assert [answer.status for answer in asking(kept, "symbol=B", alice)] == [403]
    assert [answer.status for answer in asking(kept, "symbol=A", alice)] == [200]
    assert kept.asked == ["depth@A"]


def test_many_take_more_than_a_turn() -> None:
    """In between everybody is served; who goes meanwhile is not worked for."""
    kept = Kept(**{f"M{number}": FakeBook() for number in range(500)})
    answers = asking(kept)
    assert not answers
    turns = 0
    while not answers:
        kept.portions._next_turn()
        turns += 1
    assert turns > 5
    dear = Kept(**{f"M{number}": FakeBook(looking_cost=1000) for number in range(20)})
    answers = asking(dear)
    for _ in range(9):
        dear.portions._next_turn()
    assert not answers
    ticker = BookTicker(kept, StreamKinds(), Listing(Markets(), frozenset))
    found = Deferred.fromCoroutine(ticker.find(ANONYMOUS, Query("")))
    found.addErrback(lambda _: None)
    assert len(kept.portions) == 1
    found.cancel()
    assert not len(kept.portions)


levels = st.lists(st.tuples(st.integers(1, 400), st.integers(0, 3)), max_size=8)


@property_test
@given(st.lists(st.tuples(levels, levels), min_size=1, max_size=12), st.booleans())
def test_the_best_of_a_book(updates: list[tuple[Any, Any]], is_long: bool) -> None:
    """As a plain reference has it, also where a price is longer than a double holds."""
    state = BookState()
    sides: list[dict[int, str]] = [{}, {}]
    tail = "0000000000000000001" if is_long else ""
    for number, update in enumerate(updates, 1):
        rows = []
        for side, changes in zip(sides, update, strict=True):
            rows.append([[f"{price / 100:.2f}{tail * (price % 2)}", str(quantity)] for price, quantity in changes])
            for price, quantity in changes:
                side[price] = str(quantity)
        fields = {"e": "depth", "U": number, "u": number, "b": rows[0], "a": rows[1], "snapshot": number == 1}
        state.record(json.dumps(fields).encode())
    best = []
    for side, choose in zip(sides, (max, min), strict=True):
        prices = [price for price, quantity in side.items() if quantity != "0"]
        price = choose(prices, default=None)
        best.append(None if price is None else (f"{price / 100:.2f}{tail * (price % 2)}", side[price]))
    for watches in (False, True):
        if watches:
            state.watch(lambda: None)
        found = state.best(1)
        assert found is not None
        assert [side[0] if side else None for side in (found.bids, found.asks)] == best
