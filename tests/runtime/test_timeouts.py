"""Time-outs that share a timer, beside one timer for each."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from marketfeed.runtime.timeouts import Deadlines
from tests.conftest import LogCapture
from tests.rooms import turn_of
from tests.strategies import property_test

SECONDS = 10.0

steps = st.lists(
    st.tuples(st.just("add"), st.integers(0, 5))
    | st.tuples(st.just("discard"), st.integers(0, 5))
    | st.tuples(st.just("wait"), st.sampled_from((0.5, 3.0, SECONDS, 2 * SECONDS))),
    max_size=30,
)


@property_test
@given(steps)
def test_each_item_is_late_when_a_timer_of_its_own_would_say_so(script: list[tuple[str, float]]) -> None:
    """To the moment, in the order in which they came; no timer is left when nothing is waited for."""
    clock = Clock()
    late: list[tuple[float, float]] = []
    expected: list[tuple[float, float]] = []
    deadlines = Deadlines[float](clock, SECONDS, lambda item: late.append((clock.seconds(), item)))
    waited: dict[float, float] = {}
    for what, value in script:
        if what == "add" and value not in waited:
            deadlines.add(value)
            waited[value] = clock.seconds() + SECONDS
        elif what == "discard":
            deadlines.discard(value)
            waited.pop(value, None)
        elif what == "wait":
            end = clock.seconds() + value
            for item, time in sorted(waited.items(), key=lambda each: each[1]):
                if time <= end:
                    clock.advance(time - clock.seconds())
                    expected.append((time, item))
                    del waited[item]
            clock.advance(end - clock.seconds())
        assert late == expected
        assert len(deadlines) == len(waited)
        if waited:
            assert deadlines.oldest() == min(waited, key=lambda item: waited[item])
        assert len(clock.getDelayedCalls()) == bool(waited)


def test_the_oldest_is_who_came_first() -> None:
    """As long as it is waited for; who comes a second time is the youngest. Where nobody is, there is none."""
    deadlines = Deadlines[str](Clock(), SECONDS, lambda item: None)
    for item in "abc":
        deadlines.add(item)
    assert deadlines.oldest() == deadlines.oldest() == "a"
    deadlines.discard("a")
    deadlines.add("a")
    assert deadlines.oldest() == "b"
    for item in "abc":
        deadlines.discard(item)
    with pytest.raises(StopIteration):
        deadlines.oldest()


def test_one_that_is_late_may_end_another() -> None:
    """Which is not told any more."""
    clock = Clock()
    late: list[int] = []

    def end_both(item: int) -> None:
        late.append(item)
        deadlines.discard(1)
        deadlines.discard(2)

    deadlines = Deadlines[int](clock, SECONDS, end_both)
    deadlines.add(1)
    deadlines.add(2)
    clock.advance(SECONDS)
    assert late == [1]
    assert not clock.getDelayedCalls()


@pytest.mark.parametrize("count", [1, 3])
def test_one_that_fails_does_not_keep_the_others_from_their_turn(count: int, logged: LogCapture) -> None:
    """It is logged, and the timer goes on."""
    clock = Clock()
    late: list[int] = []

    def tell(item: int) -> None:
        late.append(item)
        raise ZeroDivisionError

    deadlines = Deadlines[int](clock, SECONDS, tell)
    for item in range(count):
        deadlines.add(item)
    clock.advance(1)
    deadlines.add(count)
    clock.pump([SECONDS - 1, 1])
    assert late == list(range(count + 1))
    assert len(logged.flush_failures(ZeroDivisionError)) == count + 1


def test_after_a_standstill_there_is_one_more_turn_before_anybody_is_late() -> None:
    """What has come meanwhile is read in it, and what was waited for has come."""
    clock = Clock()
    late: list[str] = []
    deadlines = Deadlines[str](clock, SECONDS, late.append)
    for item in ("came", "gone"):
        deadlines.add(item)
    clock.rightNow += SECONDS + 1  # and nothing has been called
    turn_of(clock)
    assert late == []
    deadlines.discard("came")
    turn_of(clock)
    assert late == ["gone"]
    assert not clock.getDelayedCalls()
