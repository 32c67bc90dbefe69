"""Candles as they are kept: read back as they were written, and rubbish left out."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.model.candle_store import CandleKeys, Row, is_sum, parse_keep, read_row, row_of, rows_in
from marketfeed.model.trades import EXACT
from tests.strategies import property_test

ROW = Row(60_000, "1.0", "3", "0.5", "2.00", "7.5", 119_999, "11", 4, "5", "8")
decimals = st.decimals(0, 10**9, places=4).map(str)
rows = st.builds(
    Row,
    st.integers(0, 1 << 52),
    *[decimals] * 5,
    st.integers(0, 1 << 52),
    decimals,
    st.integers(0, 99),
    decimals,
    decimals,
)


@property_test
@given(rows)
def test_a_row_is_read_back(row: Row) -> None:
    """To the last digit."""
    assert read_row(row.to_bytes()) == row


def test_how_it_is_kept() -> None:
    """As the answer has it, which is passed on as it is."""
    row = [60_000, "1.0", "3", "0.5", "2.00", "7.5", 119_999, "11", 4, "5", "8", "0"]
    assert json.loads(ROW.to_bytes()) == row
    assert json.loads(ROW.flat(120_000, 179_999).to_bytes()) == [
        120_000, "2.00", "2.00", "2.00", "2.00", "0", 179_999, "0", 0, "0", "0", "0",
    ]  # fmt: skip


def test_the_row_of_a_publication() -> None:
    """The same candle."""
    candle = {"t": 60_000, "T": 119_999, "s": "A", "i": "1m", "f": 1, "L": 4, "o": "1.0", "c": "2.00", "h": "3"}
    candle |= {"l": "0.5", "v": "7.5", "n": 4, "x": False, "q": "11", "V": "5", "Q": "8", "B": "0"}
    assert row_of(json.dumps({"e": "kline", "E": 1, "s": "A", "k": candle}).encode()) == ROW
    assert row_of(b'{"e":"trade"}') is None


RUBBISH = [b"", b"{}", b"[]", b'[1,"2"]', b"[60000.5]", b"\xff", b'["a"' * 5000]
RUBBISH += [ROW.to_bytes()[:-1] + b"," + b"[" * 5000]
RUBBISH += [ROW.to_bytes().replace(b"7.5", volume) for volume in (b"7" * 400, b"0." + b"7" * 400)]
RUBBISH += [ROW.to_bytes().replace(old, new) for old, new in ((b"0.5", b"NaN"), (b"7.5", b"much"), (b",4,", b",-4,"))]


@pytest.mark.parametrize("member", RUBBISH)
def test_what_is_no_candle(member: bytes) -> None:
    """Somebody else has put it there."""
    assert read_row(member) is None
    assert rows_in([member, b"60000", ROW.to_bytes(), b"60000"]) == [ROW]


def test_sums_are_longer_than_what_they_are_made_of() -> None:
    """And a database may write them in its own way."""
    for volume in ("1" * 200 + "." + "1" * 200, "1E+2"):
        row = Row(60_000, "1.0", "3", "0.5", "2.00", volume, 119_999, "11", 4, "5", "8")
        assert read_row(row.to_bytes()) == row


def test_how_many_are_kept() -> None:
    """Of the minutes as many as the last 24 hours are made of."""
    assert parse_keep("1m=527040,1h=8784") == {"1m": 527_040, "1h": 8784}
    for text in ("", "1m", "1m=0", "2m=5", "1m=x", "1m=1439"):
        with pytest.raises(ValueError, match="1m"):
            parse_keep(text)


def test_of_one_time_one_counts() -> None:
    """And none whose score is another time."""
    other = ROW.flat(60_000, 119_999)
    assert rows_in([ROW.to_bytes(), b"60000", other.to_bytes(), b"60000"]) == [ROW]
    assert rows_in([ROW.to_bytes(), b"120000"]) == []


def test_keys() -> None:
    """All of a market are in one slot."""
    keys = CandleKeys("md:")
    assert keys.candles("A_B", "1M") == "md:candles:{A_B}:1M"
    assert keys.state("A_B") == "md:candles:{A_B}:state"
    assert (keys.tickers, keys.lease, keys.wanted) == ("md:candles:tickers", "md:lease:candles", "md:wanted:candles")


def test_sums_of_kept_ones_can_be_counted_with() -> None:
    """Whatever is kept: what was added to the largest are the smallest decimals."""
    large, small = "9" * 350 + "." + "9" * 350, f"0.{'0' * 324}1"
    assert is_sum(large)
    assert is_sum(small)
    total = Decimal(large)
    for _ in range(2000):
        total = EXACT.add(total, Decimal(large))
    assert EXACT.subtract(EXACT.add(total, Decimal(small)), total) == Decimal(small)
