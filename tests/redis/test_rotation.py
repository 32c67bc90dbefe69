"""Taking turns: who is looked at, how often, and in which order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.redis.rotation import MOST_A_SECOND, ROUND_SECONDS, Rotation, Rounds
from tests.strategies import property_test


@property_test
@given(st.lists(st.integers(0, 9)), st.integers(1, 4))
def test_each_has_one_turn_in_a_round(added: list[int], most: int) -> None:
    """In the order in which they came, whatever the slices."""
    rotation = Rotation[int]()
    for number in added:
        rotation.add(number)
    once = list(dict.fromkeys(added))
    assert list(rotation) == once
    seen: list[int] = []
    while len(seen) < 3 * len(once):
        turn = rotation.next(most)
        assert 0 < len(turn) <= most
        assert len(set(turn)) == len(turn), "twice in one slice"
        seen += turn
    assert seen[: 3 * len(once)] == 3 * once


@property_test
@given(st.lists(st.tuples(st.sampled_from(["add", "discard", "next"]), st.integers(0, 5)), max_size=60))
def test_it_is_a_queue_whose_first_go_to_the_end(steps: list[tuple[str, int]]) -> None:
    """Against a list, through any steps."""
    rotation, model = Rotation[int](), list[int]()
    for step, number in steps:
        if step == "add":
            rotation.add(number)
            if number not in model:
                model.append(number)
        elif step == "discard":
            rotation.discard(number)
            if number in model:
                model.remove(number)
        else:
            assert rotation.next(number) == model[:number]
            model = model[number:] + model[:number]
        assert list(rotation) == model
        assert len(rotation) == len(model)
        assert (number in rotation) == (number in model)
    rotation.clear()
    assert rotation.next(3) == []


@pytest.mark.parametrize("members", [1, 7, 1000, 6000])
def test_everybody_has_one_turn_in_a_round(members: int) -> None:
    """However often it is asked."""
    rounds = Rounds(5.0)
    due = sum(rounds.due(members, 5.0 + 0.25 * step) for step in range(1, int(4 * ROUND_SECONDS) + 1))
    assert members - 1 <= due <= members


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
