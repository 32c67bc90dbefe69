"""The levels of a side: read together, or one by one."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.model import levels
from marketfeed.model.decimals import place_of
from marketfeed.model.levels import read_rows, read_side, write_levels
from tests.strategies import property_test

texts = st.one_of(
    st.integers(-30, 30).map(str),
    st.decimals(-5, 5, places=2).map(str),
    st.sampled_from(["0", "0.00", "-0", "+0.", ".0", "0e5", "0.0E-9", "1e3", "1000", "10000000000000000.1", "1" * 60]),
)


@property_test
@given(st.lists(st.tuples(texts, texts), max_size=40))
def test_both_ways_agree(rows: list[tuple[str, str]]) -> None:
    """Which places there are, in which order, what stands there, and which of them are 0; and so says a plain look."""
    quick, careful = read_rows(rows), read_side(write_levels(rows))
    assert list(quick.levels) == list(careful.levels)
    assert write_levels(quick.levels.values()) == write_levels(careful.levels.values())
    last = {place_of(price, is_number=False): quantity for price, quantity in rows}
    assert quick.zeros == careful.zeros == {place for place, quantity in last.items() if not Decimal(quantity)}
    assert quick.longest() == careful.longest()


@pytest.mark.parametrize("row", [("1x", "1"), ("1", "x"), ("1", ""), ("1", "1e100"), ("", "1")])
@pytest.mark.parametrize("others", [0, 40])
def test_what_is_no_decimal(row: tuple[str, str], others: int) -> None:
    """Among few and among many."""
    rows = [*[(str(number), str(number)) for number in range(others)], row]
    with pytest.raises(ValueError, match=r"decimal|could not convert"):
        read_rows(rows)


def test_what_is_remembered_is_bounded() -> None:
    """What an engine writes once stays nowhere: only what is short is worth a place, and there are so many."""
    before = len(levels._places), len(levels._more_than_zero)
    read_rows([("9" * 50 + str(number), "1" * 60) for number in range(50)])
    assert (len(levels._places), len(levels._more_than_zero)) == before
    for step in range(0, 17_000, 10):
        read_rows([(f"7{number}.5", f"8{number}.5") for number in range(step, step + 10)])
    read_rows([(f"6{number}.5", f"5{number}.5") for number in range(5000)])
    for remembered in (levels._places, levels._more_than_zero):
        assert 0 < len(remembered) <= levels._REMEMBERED
