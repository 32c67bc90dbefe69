"""What a request for market data may say: what is accepted is read, anything else is named."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.api.query import BAD_COMBINATION, ILLEGAL, MISSING, BadQuery, Query
from marketfeed.model.kinds.values import is_market
from tests.strategies import markets, property_test

noise = st.text(max_size=30) | st.sampled_from(("", "0", "-1", "1.5", "1_0", "\u0661", "9" * 5000, "[", '["A"', "null"))


def code(read: Callable[[], object]) -> int:
    with pytest.raises(BadQuery) as caught:
        read()
    return caught.value.code


class TestSymbols:
    @property_test
    @given(markets)
    def test_a_market_is_taken_as_it_is_spelled(self, market: str) -> None:
        """Nothing is guessed, and other parameters mean nothing."""
        query = Query(f"x=1&symbol={quote(market, safe='')}&other=")
        assert query.symbol() == query.symbols() == market

    @property_test
    @given(st.lists(markets, min_size=1, max_size=5), st.booleans())
    def test_a_list_is_taken_as_it_is(self, wanted: list[str], is_encoded: bool) -> None:
        """Percent-encoded, or raw, as some clients send it; each of them once."""
        text = msgspec.json.encode(wanted).decode()
        assert Query(f"symbols={quote(text) if is_encoded else text}").symbols() == list(dict.fromkeys(wanted))

    def test_neither_is_all(self) -> None:
        assert Query("").symbols() is None

    @pytest.mark.parametrize("query", ["", "limit=5", "symbol=", "symbol", "Symbol=A"])
    def test_one_that_is_missing(self, query: str) -> None:
        assert code(Query(query).symbol) == MISSING

    @pytest.mark.parametrize(
        "query",
        ["symbol=A&symbol=B", "symbol=A&symbol=", "symbol=depth@A", "symbol=A%20B", "symbol=%E9", f"symbol={'A' * 65}"],
    )
    def test_one_that_is_none(self, query: str) -> None:
        assert code(Query(query).symbol) == ILLEGAL
        assert code(Query(query).symbols) == ILLEGAL

    @pytest.mark.parametrize(
        "text", ["", "A", "[]", "{}", '["A",1]', '["A@B"]', "[" * 5000, str(["A"]), str([f"A{i}" for i in range(201)])]
    )
    def test_a_list_that_is_none(self, text: str) -> None:
        assert code(Query(f"symbols={quote(text)}").symbols) == ILLEGAL

    def test_both(self) -> None:
        assert code(Query('symbol=A&symbols=["A"]').symbols) == BAD_COMBINATION


class TestNumbers:
    @property_test
    @given(st.integers(1, 10**15))
    def test_a_limit_is_no_more_than_there_may_be(self, limit: int) -> None:
        assert Query(f"limit={limit}").limit(500, 1000) == min(limit, 1000)

    def test_a_limit_that_is_missing(self) -> None:
        assert Query("").limit(500, 1000) == 500

    @pytest.mark.parametrize("text", ["0", "", "-1", "1.5", "%D9%A1", "1&limit=1", "9" * 5000])
    def test_a_limit_that_is_none(self, text: str) -> None:
        assert code(lambda: Query(f"limit={text}").limit(500, 1000)) == ILLEGAL

    @property_test
    @given(st.integers(0, 10**15))
    def test_a_number(self, number: int) -> None:
        assert Query(f"startTime={number}").number("startTime") == number
        assert Query(f"startTime={number}").number("endTime") is None

    @property_test
    @given(noise)
    def test_any_query_is_read_or_refused(self, text: str) -> None:
        """Nothing else is raised, and no byte of it is in the refusal."""
        for name in ("symbol", "symbols", "limit", "fromId", "timeUnit", "timeZone"):
            for value in (text, quote(text)):
                fault = ""
                try:
                    query = Query(f"{name}={value}")
                    read = query.symbols()
                    assert read is None or all(map(is_market, [read] if isinstance(read, str) else read))
                    assert 1 <= query.limit(500, 1000) <= 1000
                    assert (query.number("fromId") or 0) >= 0
                except BadQuery as bad:
                    fault = bad.text
                assert len(text) < 20 or text not in fault
        Query(text)


class TestTimes:
    @pytest.mark.parametrize("query", ["timeUnit=MILLISECOND", "timeUnit=millisecond", "timeZone=0", "timeZone=+00:00"])
    def test_what_is_so_anyway_may_be_said(self, query: str) -> None:
        Query(query)

    @pytest.mark.parametrize(
        "query", ["timeUnit=MICROSECOND", "timeUnit=", "timeUnit=MILLISECOND&timeUnit=MILLISECOND", "timeZone=5:30"]
    )
    def test_what_is_not_so_is_refused(self, query: str) -> None:
        assert code(lambda: Query(query)) == ILLEGAL

    def test_the_header(self) -> None:
        Query("", {"x-mbx-time-unit": "MILLISECOND"})
        assert code(lambda: Query("", {"x-mbx-time-unit": "MICROSECOND"})) == ILLEGAL
