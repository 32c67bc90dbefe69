"""Ids of entries: one spelling, one order, and one reader of what somebody sends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.model.entry_ids import ORIGIN, before, parse_id, read_id, write_id

NUMBERS = st.integers(0, 2**64 - 1)
MOST = 2**64 - 1


@given(NUMBERS, NUMBERS)
def test_ids_are_written_as_they_are_read(milliseconds: int, sequence: int) -> None:
    """And have one spelling only."""
    text = write_id((milliseconds, sequence))
    assert parse_id(text) == read_id(text) == (milliseconds, sequence)
    assert parse_id(f"0{text}") is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "-",
        "1-",
        "-1",
        "1-1-1",
        "+",
        "$",
        "(1-1",
        " 1-1",
        "1-1\n",
        "1-x",
        "\u0661-1",
        f"{MOST + 1}-0",
        "9" * 99,
    ],
)
def test_whatever_else_a_client_sends_is_none(text: str) -> None:
    """Nothing of it reaches the server."""
    assert parse_id(text) is None


@given(NUMBERS, NUMBERS)
def test_nothing_is_between_an_id_and_the_one_before_it(milliseconds: int, sequence: int) -> None:
    """As numbers of 128 bits they are neighbours; only `0-0` is its own."""
    entry = (milliseconds, sequence)
    left = before(entry)
    assert entry == ORIGIN == left or left[0] * 2**64 + left[1] + 1 == milliseconds * 2**64 + sequence
