"""Past candles and trades, page by page, of a server that has them in a list."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from marketfeed_client import Candle, FeedError, Market, Trade
from marketfeed_client import rest as client

BEGIN = 1_790_000_000_000


def row(number: int, time: int) -> dict[str, Any]:
    return {"a": number, "p": "1.50", "q": "2", "T": time, "m": False, "f": number, "l": number, "M": True}


def answer(rows: list[dict[str, Any]], parameters: dict[str, Any]) -> list[dict[str, Any]]:
    """As docs/market-data.md has it."""
    limit = parameters["limit"]
    if "fromId" in parameters:
        return [each for each in rows if each["a"] >= parameters["fromId"]][:limit]
    start, end = parameters.get("startTime"), parameters.get("endTime", 10**16)
    found = [each for each in rows if (start or 0) <= each["T"] <= end]
    return found[:limit] if start is not None else found[-limit:]


def drive(pages: client.Page[Trade], rows: list[dict[str, Any]]) -> list[Trade]:
    try:
        path, parameters = next(pages)
        for _ in range(1000):  # many more than there are
            assert (path, parameters["symbol"]) == ("aggTrades", "A")
            path, parameters = pages.send(answer(rows, parameters))
    except StopIteration as over:
        found: list[Trade] = over.value
        return found
    raise AssertionError("it asks for ever")


@st.composite
def pasts(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Trades of which several may be of one moment."""
    rows, time = [], BEGIN + 1
    for number in range(draw(st.integers(0, 40))):
        time += draw(st.sampled_from([0, 0, 1, 5]))
        rows.append(row(number, time))
    return rows


@given(pasts(), st.integers(3, 7), st.integers(0, 60), st.integers(0, 60), st.integers(1, 50))
def test_pages_make_the_whole(rows: list[dict[str, Any]], page: int, one: int, other: int, limit: int) -> None:
    start, end = sorted((BEGIN + one, BEGIN + other))
    ids = [each["a"] for each in rows if start <= each["T"] <= end]
    until = [each["a"] for each in rows if each["T"] <= end]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "_MOST_OF_A_PAGE", page)
        for pages, expected in (
            (client.trades("A", start, end, None, limit), ids[:limit]),
            (client.trades("A", start, end, None, None), ids),
            (client.trades("A", None, end, None, limit), until[-limit:]),
        ):
            try:
                assert [each.id for each in drive(pages, rows)] == expected
            except FeedError as error:  # as many of one moment as a page has: said, not left out
                times = [each["T"] for each in rows]
                crowd = max(times.count(time) for time in times)
                if "of one moment" not in str(error) or crowd < min(page, limit):
                    raise
        found = drive(client.trades("A", None, None, one, limit), rows)
        assert [each.id for each in found] == [each["a"] for each in rows if each["a"] >= one][:limit]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ((BEGIN + 5, BEGIN + 4, None, None), "start"),
        ((1_790_000_000, None, None, None), "start: expected ms since 1970.* not 1790000000: times are in ms"),
        ((None, 1.79e12, None, None), "end: expected ms since 1970"),
        ((datetime(2026, 9, 21), None, None, None), "start: expected a datetime with a time zone"),
        ((None, None, -1, None), "from_id"),
        ((-1, None, None, None), "start"),
        ((None, True, None, None), "end"),
        ((None, None, None, 0), "limit"),
        ((BEGIN, None, 1, None), "from_id"),
    ],
)
def test_what_cannot_be_names_the_field(options: tuple[Any, ...], named: str) -> None:
    with pytest.raises(TypeError, match=named):
        client.trades("A", *options)


def test_a_moment_may_be_a_datetime() -> None:
    start, end = datetime(2026, 9, 21, 14, 13, 20, tzinfo=UTC), datetime(2026, 9, 21, 16, 13, 20, 1000, tzinfo=UTC)
    _, asked = next(client.klines("A", "1m", start, end, None))
    assert (asked["startTime"], asked["endTime"]) == (1_790_000_000_000, 1_790_007_200_001)


def test_markets() -> None:
    pages = client.markets()
    assert next(pages) == ("exchangeInfo", {})
    steps = [{"filterType": "PRICE_FILTER", "tickSize": "0.05"}, {"filterType": "LOT_SIZE", "stepSize": "1"}]
    symbols = [
        {"symbol": "TATA_INR", "baseAsset": "TATA", "quoteAsset": "INR", "filters": steps},
        {"symbol": "INFY_INR", "baseAsset": "INFY", "quoteAsset": "INR", "filters": []},
    ]
    with pytest.raises(StopIteration) as over:
        pages.send({"timezone": "UTC", "symbols": symbols})
    assert over.value.value == [Market("TATA_INR", "TATA", "INR", "0.05", "1"), Market("INFY_INR", "INFY", "INR")]
    pages = client.markets()
    next(pages)
    with pytest.raises(FeedError, match="exchangeInfo"):
        pages.send([])


def test_what_is_no_answer_is_said() -> None:
    pages = client.klines("A", "1m", None, None, None)
    next(pages)
    with pytest.raises(FeedError) as raised:
        pages.send({"strange": True})
    assert raised.value.kind == "protocol"


def test_tables() -> None:
    pandas = pytest.importorskip("pandas")
    from marketfeed_client.frames import data_frame

    rows = [Trade(1, "1000.50", "2", 1_790_000_000_000, False)]
    table = data_frame(rows)
    assert list(table.columns) == ["id", "price", "quantity", "time", "is_buyer_maker"]
    assert (table["price"][0], table["time"][0]) == ("1000.50", pandas.Timestamp(1_790_000_000, unit="s", tz="UTC"))
    assert data_frame(rows, numbers="decimal")["price"][0] == Decimal("1000.50")
    assert data_frame(rows, numbers="float")["price"][0] == 1000.5
    candle = Candle(0, "1", "2", "1", "2", "3", 59_999, "4", 1, "1", "1")
    assert data_frame([candle], numbers="decimal")["high"][0] == Decimal(2)
    assert len(data_frame([])) == 0
