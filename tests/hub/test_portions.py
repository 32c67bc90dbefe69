"""Work that takes long: in order, a little at a time, and nothing of it is left."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from marketfeed.hub.faults import Faults
from marketfeed.hub.portions import AT_ONCE, Portions, Work
from tests.conftest import LogCapture
from tests.rooms import turn_of
from tests.strategies import property_test

TURN = 2000


def work(done: list[object], name: object, *costs: int) -> Iterator[int]:
    for cost in costs:
        yield cost
        done.append((name, cost))


def turns(clock: Clock, done: list[object]) -> list[list[object]]:
    """What was done in each turn, until nothing is left to do."""
    found = []
    while clock.getDelayedCalls():
        done.clear()
        turn_of(clock)
        found.append(list(done))
    return found


def test_what_is_little_is_done_at_once() -> None:
    """And leaves no timer."""
    clock, done = Clock(), list[object]()
    portions = Portions(clock, Faults(clock))
    assert portions.begin(work(done, "a", 100, AT_ONCE - 100)) is None
    assert done == [("a", 100), ("a", AT_ONCE - 100)]
    assert not len(portions)
    assert not clock.getDelayedCalls()


def test_the_rest_is_done_in_later_turns_a_step_of_each_in_turn() -> None:
    """However many there are, a turn costs as much."""
    clock, done = Clock(), list[object]()
    portions = Portions(clock, Faults(clock))
    assert portions.begin(work(done, "a", 200, 900, 900, 900)) is not None
    assert portions.begin(work(done, "b", 5000, 300)) is not None
    assert done == [("a", 200)]
    assert turns(clock, done) == [[("a", 900), ("b", 5000)], [("a", 900), ("b", 300), ("a", 900)]]
    assert not len(portions)


def test_what_is_cancelled_is_not_gone_on_with() -> None:
    """Wherever it stands: in its own step too, and when it is over."""
    clock, done = Clock(), list[object]()
    portions = Portions(clock, Faults(clock))
    first, second = work(done, "a", 900, 900), work(done, "b", 900)
    portions.begin(first)
    portions.begin(second)
    portions.cancel(first)
    assert turns(clock, done) == [[("b", 900)]]
    portions.cancel(first)
    portions.cancel(second)

    def ends_itself() -> Iterator[int]:
        yield 900
        portions.cancel(itself)
        yield 900
        done.append("not this")

    itself: Work = ends_itself()
    portions.begin(itself)
    assert turns(clock, done) == [[]]
    portions.begin(work(done, "c", 900))
    portions.close()
    assert turns(clock, done) == []


def test_what_fails_is_over_and_the_others_go_on(logged: LogCapture) -> None:
    """It is logged; what fails at once is for who began it."""

    def fails(cost: int) -> Iterator[int]:
        yield cost
        raise RuntimeError("no good")

    clock, done = Clock(), list[object]()
    portions = Portions(clock, Faults(clock))
    portions.begin(fails(900))
    portions.begin(work(done, "b", 900))
    assert turns(clock, done) == [[("b", 900)]]
    assert len(logged.flush_failures(RuntimeError)) == 1
    with pytest.raises(RuntimeError):
        portions.begin(fails(1))
    assert not clock.getDelayedCalls()


@property_test
@given(st.lists(st.lists(st.integers(0, 3000), max_size=5), max_size=6))
def test_every_step_is_taken_in_its_order_and_no_turn_takes_much(costs: list[list[int]]) -> None:
    """A turn goes over what it may cost with its last step only."""
    clock, done = Clock(), list[object]()
    portions = Portions(clock, Faults(clock))
    for name, steps in enumerate(costs):
        portions.begin(work(done, name, *steps))
    first = list(done)
    later = turns(clock, done)
    taken = [step for turn in [first, *later] for step in turn]
    for name, steps in enumerate(costs):
        assert [step for step in taken if isinstance(step, tuple) and step[0] == name] == [(name, c) for c in steps]
    for turn in later:
        assert turn
        assert sum(step[1] for step in turn[:-1] if isinstance(step, tuple)) < TURN
