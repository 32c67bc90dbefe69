"""What can be shown of what others write."""

from __future__ import annotations

from decimal import Decimal

import pytest

from marketfeed.model.kinds.columns import clean, number, word


def test_clean_keeps_what_can_be_printed() -> None:
    """Text in any script stays as it is."""
    assert clean("münchen 東京 ₹") == "münchen 東京 ₹"
    assert clean("a\x1bb") == "a\N{REPLACEMENT CHARACTER}b"
    assert clean("abcdef", 4) == "abc…"


@pytest.mark.parametrize(
    ("value", "shown"), [("712.350", "712.350"), ("", "-"), (None, "-"), ([], "-"), ("x" * 50, "x" * 39 + "…")]
)
def test_a_word(value: object, shown: str) -> None:
    """Is as it was written, where it is a text and there is room."""
    assert word(value) == shown


@pytest.mark.parametrize(
    ("value", "found"), [("1.50", Decimal("1.5")), ("x", None), ("NaN", None), (None, None), ("1" * 65, None)]
)
def test_a_number(value: object, found: Decimal | None) -> None:
    """Is finite, and not of any length."""
    assert number(value) == found
