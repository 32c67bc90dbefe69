"""Whose turn it is on a link that lives: everybody's once in a round, and not more of them than may be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.redis.stream_reads import Reading
from marketfeed.redis.verification import (
    LOOK_SECONDS,
    MOST_A_SECOND,
    ROUND_SECONDS,
    TURN_SECONDS,
    Rounds,
    Verification,
)
from tests.strategies import property_test


@pytest.mark.parametrize("members", [1, 7, 1000, 6000])
def test_everybody_has_one_turn_in_a_round(members: int) -> None:
    """However often it is asked."""
    rounds = Rounds(5.0)
    due = sum(rounds.due(members, 5.0 + 0.25 * step) for step in range(1, int(4 * ROUND_SECONDS) + 1))
    assert members - 1 <= due <= members


@pytest.mark.parametrize(("members", "seconds"), [(1, 1), (100, TURN_SECONDS), (1000, TURN_SECONDS), (3000, 15)])
def test_what_is_read_has_its_turn_soon(members: int, seconds: float) -> None:
    """A book may be wrong until then."""
    verification = Verification(0.0)
    readings = [Reading(f"depth@{number}", b"") for number in range(members)]
    for reading in readings:
        verification.flows(reading)
    due = [
        reading
        for step in range(1, int(seconds / LOOK_SECONDS) + 1)
        for reading in verification.due(step * LOOK_SECONDS)
    ]
    assert set(due) == set(readings)


@property_test
@given(st.lists(st.tuples(st.integers(0, 100_000), st.floats(0, 100)), max_size=30))
def test_no_more_than_may_be(steps: list[tuple[int, float]]) -> None:
    """However many there are, and however long nobody has asked."""
    rounds = Rounds(0.0)
    now = 0.0
    due = 0
    for members, passed in steps:
        now += passed
        count = rounds.due(members, now)
        assert 0 <= count <= min(members, MOST_A_SECOND)
        due += count
    assert due <= MOST_A_SECOND * now + 1


def test_who_is_read_and_who_is_refused() -> None:
    """Each has its turn; a refusal is news once, and again on another link, or when it is another."""
    verification = Verification(0.0)
    one, other = Reading("trade@A", b"trade@A"), Reading("trade@B", b"trade@B")
    verification.flows(one)
    verification.flows(other)
    assert verification.due(ROUND_SECONDS) == [one, other]
    assert verification.refuse(other, "NOPERM")
    assert not verification.refuse(other, "NOPERM")
    assert verification.refuse(other, "WRONGTYPE")
    assert verification.is_refused(other)
    assert verification.due(2 * ROUND_SECONDS) == [one, other]
    verification.forget(one)
    verification.flows(other)
    assert not verification.is_refused(other)
    assert verification.due(3 * ROUND_SECONDS) == [other]
    verification.begin(3 * ROUND_SECONDS)
    assert verification.due(4 * ROUND_SECONDS) == []
    assert verification.refuse(other, "WRONGTYPE")
    verification.forget(other)
    assert verification.due(9 * ROUND_SECONDS) == []
