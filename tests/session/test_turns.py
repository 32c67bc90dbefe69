"""Requests that wait their turn, against a list; and when the client is read from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.session.turns import Readable, Turns
from tests.strategies import property_test

MOST = 16  # that wait while the client is read from


class Reading:
    """A connection that is paused and resumed by turns."""

    def __init__(self) -> None:
        self.reading = True

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True


if TYPE_CHECKING:
    _readable: Readable = Reading()


def filled(connection: Reading, count: int) -> Turns:
    turns = Turns(connection)
    for number in range(count):
        turns.put(b"%d" % number, False)
    return turns


def test_they_are_taken_in_order() -> None:
    """Each with what was said of it; then there are none."""
    turns = Turns(Reading())
    turns.put(b"one", False)
    turns.put(b"two", True)
    assert turns.take() == (b"one", False)
    assert turns.take() == (b"two", True)
    assert turns.take() is None


def test_past_a_few_the_client_is_not_read_from() -> None:
    """Until there are fewer again, however many came with the same bytes."""
    connection = Reading()
    turns = filled(connection, MOST - 1)
    assert connection.reading
    turns.put(b"one more", False)
    turns.put(b"with the same bytes", False)
    assert not connection.reading
    turns.take()
    assert not connection.reading
    turns.take()
    assert connection.reading


@pytest.mark.parametrize("count", [0, 1, MOST - 1, MOST, MOST + 1])
def test_at_the_end_the_client_is_read_from(count: int) -> None:
    """Or its answer to a close would never be; what waited is not taken up."""
    connection = Reading()
    turns = filled(connection, count)
    turns.close()
    assert connection.reading
    assert turns.take() is None


@property_test
@given(st.lists(st.sampled_from(("put", "put", "put", "take")), max_size=100))
def test_any_turns(steps: list[str]) -> None:
    """What a list does; the client is read from exactly while few wait, and nothing is paused or resumed twice."""
    connection = Reading()
    turns = Turns(connection)
    model: list[tuple[bytes, bool]] = []
    for number, step in enumerate(steps):
        if step == "put":
            model.append((b"%d" % number, number % 2 == 0))
            turns.put(*model[-1])
        else:
            assert turns.take() == (model.pop(0) if model else None)
        assert connection.reading is (len(model) < MOST)
