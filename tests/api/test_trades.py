"""Past trades in one plain answer, against a plain reference."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed

from marketfeed.api.listing import Listing
from marketfeed.api.query import BAD_COMBINATION, BadQuery, Query
from marketfeed.api.trades import Trades, row, trade_in
from marketfeed.boundaries import Dated
from marketfeed.http.response import Response
from marketfeed.model.identity import ANONYMOUS, Identity, parse_patterns
from marketfeed.model.markets import Markets
from marketfeed.model.streams import StreamKinds, StreamName
from tests.rooms import trade
from tests.strategies import property_test

HEARD = Listing(Markets(), lambda: frozenset({"A"}))


class FakePast:
    """Publications, in order; at most `most` are given at a time. None: they are out of reach."""

    def __init__(self, *entries: Dated, most: int = 1000) -> None:
        self.entries: list[Dated] | None = list(entries)
        self.most = most
        self.asked = 0

    def first_from(self, name: StreamName, time: int, limit: int, max_bytes: int) -> Deferred[list[Dated] | None]:
        return self._some(lambda entry: entry.at >= time, slice(0, min(limit, self.most)))

    def last_until(self, name: StreamName, time: int, limit: int, max_bytes: int) -> Deferred[list[Dated] | None]:
        return self._some(lambda entry: entry.at <= time, slice(-min(limit, self.most), None))

    def _some(self, when: Any, part: slice) -> Deferred[list[Dated] | None]:
        self.asked += 1
        return succeed(None if self.entries is None else [entry for entry in self.entries if when(entry)][part])


def published(number: int, at: int, **more: object) -> Dated:
    fields = {"e": "trade", "t": number, "m": False, "p": "1.50", "q": "2", "s": "A", **more}
    return Dated(f"{at}-{number}", at, msgspec.json.encode(fields))


def ask(
    past: FakePast,
    query: str = "",
    *,
    aggregates: bool = False,
    identity: Identity = ANONYMOUS,
    listing: Listing | None = None,
) -> Response:
    trades = Trades(past, StreamKinds(), listing or HEARD)
    find = trades.find_aggregates if aggregates else trades.find
    answers: list[Response] = []
    found = Deferred.fromCoroutine(find(identity, Query(f"symbol=A{query}")))
    found.addCallbacks(answers.append, lambda failure: answers.append(Response(400, str(failure.value.code))))
    return answers[0]


def ids(answer: Response) -> list[int]:
    assert answer.status == 200
    return [each.get("id", each.get("a")) for each in json.loads(answer.json)]


class TestShape:
    def test_a_trade(self) -> None:
        """Price and quantity as the engine wrote them."""
        past = FakePast(published(7, 1000, m=True, T=990, E=995))
        assert json.loads(ask(past).json) == [
            {
                "id": 7,
                "price": "1.50",
                "qty": "2",
                "quoteQty": "3.00",
                "time": 990,
                "isBuyerMaker": True,
                "isBestMatch": True,
            }
        ]
        assert json.loads(ask(past, aggregates=True).json) == [
            {"a": 7, "p": "1.50", "q": "2", "f": 7, "l": 7, "T": 990, "m": True, "M": True}
        ]

    @pytest.mark.parametrize(
        ("more", "time"),
        [({}, 1000), ({"E": 5}, 5), ({"T": 4, "E": 5}, 4), ({"T": "x", "E": "y"}, 1000), ({"T": 4.0}, 4)],
    )
    def test_its_time(self, more: dict[str, object], time: int) -> None:
        """The engine's, or when it came."""
        found = trade_in(published(1, 1000, **more))
        assert found is not None
        assert found.time == time

    @property_test
    @given(st.decimals(-(10**40), 10**40, places=12), st.integers(0, 10**40))
    def test_the_product_is_exact(self, price: Decimal, quantity: int) -> None:
        """To the last digit."""
        found = trade_in(published(1, 0, p=f"{price:f}", q=str(quantity)))
        assert found is not None
        assert Fraction(row(found)["quoteQty"]) == Fraction(price) * quantity

    def test_numbers_are_texts(self) -> None:
        """As they are spelled."""
        found = trade_in(Dated("1-0", 1, b'{"e":"trade","t":17.0,"m":false,"p":1.50,"q":2e1,"s":"A"}'))
        assert found is not None
        assert (found.number, found.price, found.quantity, row(found)["quoteQty"]) == (17, "1.50", "2e1", "30.0")

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"{}",
            b'{"t":1,"m":1,"p":"1","q":"1"}',
            b'{"t":1,"m":false,"p":"1","q":"-1"}',
            b'{"t":1,"m":false,"p":"1e400","q":"1"}',
            trade(1).replace(b'"t":1', b'"t":1e999'),
        ],
    )
    def test_what_is_no_trade_is_left_out(self, data: bytes) -> None:
        assert ids(ask(FakePast(published(1, 1), Dated("2-0", 2, data), published(3, 3)))) == [1, 3]


class TestWhich:
    def test_the_newest(self) -> None:
        past = FakePast(*[published(number, number) for number in range(1, 2001)])
        assert ids(ask(past)) == list(range(1501, 2001))
        assert ids(ask(past, "&limit=9999")) == list(range(1001, 2001))
        assert ids(ask(past, "&limit=2", aggregates=True)) == [1999, 2000]

    @pytest.mark.parametrize("query", ["&fromId=1", "&startTime=0", "&endTime=9999", ""])
    def test_behind_more_than_a_page_of_what_is_no_trade(self, query: str) -> None:
        """As at an engine that was repaired."""
        rubbish = [Dated(f"{number}-1", number, b"{}") for number in range(2500)]
        for at in (-1, 1500, 3000):
            past = FakePast(*rubbish[: at + 1], published(1, max(at, 0)), *rubbish[at + 1 :])
            assert ids(ask(past, query, aggregates=bool(query))) == [1]

    @pytest.mark.parametrize("query", ["&fromId=1&startTime=1", "&fromId=1&endTime=1", "&startTime=2&endTime=1"])
    def test_what_does_not_go_together(self, query: str) -> None:
        assert ask(FakePast(), query, aggregates=True).text == str(BAD_COMBINATION)

    def test_an_engine_whose_clock_is_ahead(self) -> None:
        """By a second, of a trade that came before its own time; or that came some seconds late."""
        past = FakePast(published(1, 9100, T=10_000), published(2, 14_900, T=10_001), published(3, 14_901, T=20_000))
        assert ids(ask(past, "&startTime=10000&endTime=10001", aggregates=True)) == [1, 2]
        assert ids(ask(past, "&endTime=10001", aggregates=True)) == [1, 2]

    def test_what_is_out_of_reach(self) -> None:
        past = FakePast()
        past.entries = None
        for query in ("", "&fromId=1", "&startTime=1", "&endTime=1"):
            assert ask(past, query, aggregates=True).status == 503
        assert ask(past).status == 503

    def test_a_token_that_does_not_cover_it(self) -> None:
        """Nobody is asked."""
        past, tickers = FakePast(), Identity("alice", parse_patterns(["ticker@*"], "alice"), 2e9)
        assert [ask(past, aggregates=each, identity=tickers).status for each in (False, True)] == [403, 403]
        assert not past.asked

    @pytest.mark.parametrize("query", ["", "&fromId=9", "&startTime=9000", "&endTime=1"])
    def test_a_market_of_which_nobody_knows(self, query: str) -> None:
        """It may exist all the same. One that was heard of has no trades there, and so has one that has others."""
        unheard = Listing(Markets(), frozenset)
        for past, listing, status in (
            (FakePast(), unheard, 503),
            (FakePast(), HEARD, 200),
            (FakePast(published(1, 8000)), unheard, 200),
        ):
            for aggregates in (True,) if query else (True, False):
                answer = ask(past, query, aggregates=aggregates, listing=listing)
                assert answer.status == status
                assert status == 503 or query == "" or json.loads(answer.json) == []

    def test_the_same_ones_are_written_once(self) -> None:
        """And others are not taken for them."""
        past = FakePast(published(1, 1), published(2, 2))
        trades = Trades(past, StreamKinds(), Listing(Markets(), frozenset))
        bodies: list[bytes] = []
        for _ in range(2):
            Deferred.fromCoroutine(trades.find(ANONYMOUS, Query("symbol=A"))).addCallback(
                lambda answer: bodies.append(answer.json)
            )
        assert bodies[0] is bodies[1]
        assert past.entries is not None
        past.entries.append(published(3, 3))
        Deferred.fromCoroutine(trades.find(ANONYMOUS, Query("symbol=A"))).addCallback(
            lambda answer: bodies.append(answer.json)
        )
        assert [each["id"] for each in json.loads(bodies[2])] == [1, 2, 3]

    @property_test
    @given(
        st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 4), st.integers(-900, 4900)), max_size=60),
        st.sampled_from(("fromId", "startTime", "endTime", "both")),
        st.integers(0, 40_000),
        st.integers(0, 20_000),
        st.integers(1, 30),
    )
    def test_against_a_reference(
        self, steps: list[tuple[int, int, int]], by: str, value: int, length: int, limit: int
    ) -> None:
        """Ids rise, times of arrival do not fall, the engine's time is a little before or behind these, and some are no
        trades.
        """
        at, number, entries, times = 1_000_000, 0, [], {}
        for pause, more, lag in steps:
            at, number = at + pause, number + 1 + more
            entry = published(number, at, T=at - lag)
            if more < 4:
                times[number] = at - lag
            else:
                entry = Dated(entry.offset, at, b"{}")
            entries.append(entry)
        begin = 1_000_000 + value
        if by == "fromId":
            query, wanted = f"&fromId={value // 400}", [each for each in times if each >= value // 400][:limit]
        elif by == "startTime":
            query, wanted = f"&startTime={begin}", [each for each in times if times[each] >= begin][:limit]
        elif by == "endTime":
            query, wanted = f"&endTime={begin}", [each for each in times if times[each] <= begin][-limit:]
        else:
            query = f"&startTime={begin}&endTime={begin + length}"
            wanted = [each for each in times if begin <= times[each] <= begin + length][:limit]
        assert ids(ask(FakePast(*entries), f"{query}&limit={limit}", aggregates=True)) == wanted

    @property_test
    @given(st.integers(1, 5000), st.integers(0, 6000))
    def test_an_id_is_found_in_few_questions(self, count: int, first: int) -> None:
        """However many trades there are before it."""
        past = FakePast(*[published(number, 10 * number) for number in range(1, count + 1)])
        found = ids(ask(past, f"&fromId={first}&limit=3", aggregates=True))
        assert found == [number for number in range(max(first, 1), max(first, 1) + 3) if number <= count]
        assert past.asked < 40


def test_a_bad_query_is_one() -> None:
    trades = Trades(FakePast(), StreamKinds(), Listing(Markets(), frozenset))
    faults: list[object] = []
    found = Deferred.fromCoroutine(trades.find_aggregates(ANONYMOUS, Query("symbol=A&fromId=x")))
    found.addErrback(lambda failure: faults.append(failure.trap(BadQuery)))
    assert faults
