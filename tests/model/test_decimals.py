"""The bounds of prices and quantities. Which of them are equal, and their order, is tested with the books."""

from __future__ import annotations

import pytest

from marketfeed.model.decimals import is_decimal, place_of, read_plain


@pytest.mark.parametrize("text", ["1e-400", "-1e-400", "0e999", "0." + "0" * 400 + "1", "1e-0400"])
def test_a_number_too_small_for_a_double_is_zero(text: str) -> None:
    """As it is for the clients: a level with such a quantity is gone."""
    assert place_of(text, is_number=True) == 0


@pytest.mark.parametrize("is_number", [True, False])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("9007199254740993", "9007199254740992"),
        ("0.30000000000000004", "0.3"),
        ("1e22", "10000000000000000000001"),
        ("0.1", "0.1000000000000000055511151231257827021181583404541015625"),
    ],
)
def test_what_a_double_would_not_tell_apart_has_two_places(one: str, other: str, is_number: bool) -> None:
    """And each has one, in whatever spelling."""
    assert place_of(one, is_number=is_number) != place_of(other, is_number=is_number)
    for text in (one, other):
        again = f"{text}e+00" if "e" not in text else text.upper()
        assert place_of(again, is_number=is_number) == place_of(text, is_number=is_number)


@pytest.mark.parametrize(
    ("text", "is_number"), [("1e400", True), ("-1e400", True), ("1e100", False), ("1" * 65, False)]
)
def test_what_is_beyond_the_bounds_has_no_place(text: str, is_number: bool) -> None:
    """A number is bounded by a double, a text by `is_decimal`."""
    with pytest.raises(
        ValueError, match="^expected a number that a double can hold$" if is_number else "^expected a dec"
    ):
        place_of(text, is_number=is_number)


@pytest.mark.parametrize("text", ["1", "-0.5", "1" * 64])
def test_plain_decimals_are_read_together_up_to_the_longest(text: str) -> None:
    """Among many, too, and not one character more."""
    assert is_decimal(text)
    assert read_plain(["2", text, "3"]) == [2, float(text), 3]
    assert read_plain(["2", "1" * 65, "3"]) is None
    assert read_plain(["1"] * 65) == [1] * 65


@pytest.mark.parametrize("texts", [["1e5"], ["+1"], [".5"], ["1,2"], [""], ["1", ""], ["--1"], ["0x1"], ["1 "]])
def test_what_json_would_not_write_so_is_not_plain(texts: list[str]) -> None:
    """A comma in a text does not make two of it."""
    assert read_plain(texts) is None
