"""Whole numbers: what is one, and what only Python takes for one; sizes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.model.numbers import size, whole
from tests.strategies import property_test


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("7", 7), ("007", 7), ("12345", 12345)])
def test_digits(text: str, number: int) -> None:
    """With zeros before them, too, as long as there are not more in all."""
    assert whole(text, 5) == number


@pytest.mark.parametrize(
    "text", ["", "-1", "+1", "1_0", " 1", "1\n", "1.0", "1e3", "\u0661", "\u00b2", "123456", "9" * 5000]
)
def test_anything_else(text: str) -> None:
    """However `int` would have it."""
    assert whole(text, 5) is None


@property_test
@given(st.text(max_size=8), st.integers(0, 10**7))
def test_any_text(text: str, number: int) -> None:
    """None, or the number that has this text but for the zeros before it."""
    found = whole(text, 5)
    assert found is None or str(found) == (text.lstrip("0") or "0")
    assert whole(str(number), 5) == (number if number < 100_000 else None)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1.0 KiB"),
        (512 << 10, "512 KiB"),
        (3 << 20, "3.0 MiB"),
        (5 << 30, "5.0 GiB"),
    ],
)
def test_bytes_as_people_read_them(count: int, text: str) -> None:
    assert size(count) == text
