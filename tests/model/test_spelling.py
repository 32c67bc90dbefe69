"""Prices are written in one way each, and stay as they are where the engine is consistent."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.model.spelling import AMOUNTS, ZERO, PriceSpelling, spelled_levels
from tests.strategies import property_test

numbers = st.decimals("0", "99999", places=4, allow_nan=False) | st.decimals("0", "9", places=2)


@st.composite
def written(draw: st.DrawFn) -> str:
    """A price in any spelling."""
    number = draw(numbers)
    text = format(number, "f")
    return draw(
        st.sampled_from(
            (
                text,
                format(number.normalize(), "f"),
                f"0{text}",
                f"+{text}",
                f"{number:e}",
                text + "00" if "." in text else text + ".00",
                text + "." if "." not in text else text,
            )
        )
    )


@property_test
@given(st.lists(written(), max_size=30))
def test_equal_prices_have_one_spelling_and_others_another(texts: list[str]) -> None:
    prices = PriceSpelling()
    spelled: dict[Decimal, str] = {}
    for text in texts:
        price = prices[text]
        assert Decimal(price) == Decimal(text)
        assert spelled.setdefault(Decimal(text), price) == price
        assert prices[price] == price, "what was given out stays as it is when it comes back"
    assert len(set(spelled.values())) == len(spelled)


@property_test
@given(st.integers(0, 6), st.lists(st.integers(0, 10**7)))
def test_prices_of_a_fixed_number_of_decimals_stay(decimals: int, units: list[int]) -> None:
    prices = PriceSpelling()
    for unit in units:
        text = format(Decimal(unit).scaleb(-decimals), f".{decimals}f")
        assert prices[text] == text


@property_test
@given(st.lists(numbers))
def test_prices_without_superfluous_zeros_stay(values: list[Decimal]) -> None:
    prices = PriceSpelling()
    for value in values:
        text = format(value.normalize(), "f")
        assert prices[text] == text


@pytest.mark.parametrize(
    ("texts", "spelled"),
    [
        (["1000.50", "1000.5", "1e3", "1000", "1000.555"], ["1000.50", "1000.50", "1000.00", "1000.00", "1000.555"]),
        (["1000.5", "1000.50", "1000", "1000.0"], ["1000.5", "1000.5", "1000", "1000"]),
        (["7", "7.10", "-0.00", "-7.10"], ["7", "7.1", "0", "-7.1"]),
        (["0.1000", "1E-1", ".1", "+0.1"], ["0.1000"] * 4),
    ],
)
def test_an_engine_that_changes_its_mind(texts: list[str], spelled: list[str]) -> None:
    prices = PriceSpelling()
    assert [prices[text] for text in texts] == spelled


def test_a_json_number_is_written_as_a_price() -> None:
    prices = PriceSpelling()
    assert prices.spell("1000.25", is_number=True) == "1000.25"
    assert prices.spell("1e3", is_number=True) == "1000"
    assert prices.spell("1e-400", is_number=True) == "0"


@pytest.mark.parametrize("text", ["", "1,5", "nan", "1e400", "٣"])
def test_what_is_no_decimal_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        PriceSpelling()[text]


def test_no_more_texts_are_remembered_than_are_worth_it() -> None:
    prices = PriceSpelling()
    for number in range(20_000):
        prices[f"{number}.50"]
    assert len(prices) <= 16384


@pytest.mark.parametrize("text", ["0", "0.0", "0e5", "-0", "0.00000000", "+.0"])
def test_a_quantity_of_zero_is_one_text(text: str) -> None:
    assert AMOUNTS[text] == ZERO


def test_other_quantities_stay_as_they_are_and_numbers_are_quoted() -> None:
    levels = msgspec.json.decode(
        b'[["1.50","7.10"],[1.5,1e-2],["1.5",0.0]]', type=list[tuple[msgspec.Raw, msgspec.Raw]]
    )
    assert spelled_levels(levels, PriceSpelling()) == [("1.50", "7.10"), ("1.50", "1e-2"), ("1.50", ZERO)]
