"""Where two who have heard the same stream have the same publications: the right shift, or none."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from marketfeed.hub.alignment import DIGESTS, MOST_BETWEEN, shift_between
from tests.strategies import property_test


class Observer:
    """Who hears a stream from its `begin` on, and keeps the digests of the last ones."""

    def __init__(self, begin: int, keeps: int) -> None:
        self.begin = begin
        self.keeps = keeps

    def count(self, heard: int) -> int:
        return heard - self.begin

    def digests(self, stream: list[bytes], heard: int, most: int) -> list[bytes]:
        kept = stream[self.begin : heard]
        return kept[max(0, len(kept) - min(self.keeps, most)) :]


def found(stream: list[bytes], asks: Observer, other: Observer, before: int, answered: int, after: int) -> int | None:
    """`before`: how much of the stream the one that asks had heard; `answered`: the other; `after`: the first then."""
    own = asks.digests(stream, after, min(after - before, MOST_BETWEEN) + DIGESTS)
    theirs = other.digests(stream, answered, DIGESTS)
    return shift_between(other.count(answered), theirs, asks.count(before), asks.count(after), own)


@st.composite
def courses(draw: st.DrawFn, alphabet: int) -> tuple[list[bytes], Observer, Observer, int, int, int]:
    """Who caught up with whom as it says, whatever else they keep or have missed at the beginning."""
    size = draw(st.integers(0, 60))
    numbers = draw(st.lists(st.integers(0, alphabet - 1), min_size=size, max_size=size)) if alphabet else range(size)
    stream = [b"%d" % number for number in numbers]
    before = draw(st.integers(0, size))
    asks = Observer(draw(st.integers(0, before)), draw(st.integers(0, 60)))
    answered = draw(st.integers(before, size))
    other = Observer(draw(st.integers(0, answered)), draw(st.integers(0, 60)))
    return stream, asks, other, before, answered, draw(st.integers(answered, size))


@property_test
@given(st.one_of(courses(alphabet=1), courses(alphabet=2), courses(alphabet=3), courses(alphabet=0)))
@example(([b"0", b"1"], Observer(1, 9), Observer(0, 9), 1, 1, 1))  # the one that asks has heard nothing yet
@example(([b"0", b"0"], Observer(0, 9), Observer(0, 9), 1, 2, 2))
def test_what_is_found_is_right(course: tuple[list[bytes], Observer, Observer, int, int, int]) -> None:
    _, asks, other, *_ = course
    assert found(*course) in (None, other.begin - asks.begin)


@property_test
@given(courses(alphabet=0))
def test_of_what_is_never_the_same_it_is_always_found(
    course: tuple[list[bytes], Observer, Observer, int, int, int],
) -> None:
    """Where the two keep anything of what comes meanwhile."""
    stream, asks, other, before, answered, after = course
    asks.keeps = len(stream)
    if other.keeps and other.count(answered) and asks.count(before):
        assert found(stream, asks, other, before, answered, after) == other.begin - asks.begin


@property_test
@given(courses(alphabet=1))
def test_where_nothing_comes_meanwhile_it_is_always_found(
    course: tuple[list[bytes], Observer, Observer, int, int, int],
) -> None:
    """Whatever is kept, and however alike it is."""
    stream, asks, other, before, *_ = course
    other.begin = min(other.begin, before)
    assert found(stream, asks, other, before, before, before) == other.begin - asks.begin


def test_what_differs_though_there_is_no_choice_is_not_believed() -> None:
    assert shift_between(3, [b"a", b"b"], 7, 7, [b"a", b"b"]) == 4
    assert shift_between(3, [b"a", b"b"], 7, 7, [b"a", b"c"]) is None


@pytest.mark.parametrize(("between", "shift"), [(MOST_BETWEEN, 0), (MOST_BETWEEN + 1, None)])
def test_of_very_many_that_come_meanwhile_it_is_not_looked_for(between: int, shift: int | None) -> None:
    stream = [b"%d" % number for number in range(between + 2)]
    assert shift_between(1, stream[:1], 1, between + 1, stream[: between + 1]) == shift
