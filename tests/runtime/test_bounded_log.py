"""Lines that may repeat without end: how many there are of them, and that nothing is left out of the count."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent

from marketfeed.runtime.bounded_log import BoundedLog
from marketfeed.runtime.logs import Log


class Part:
    """What has such lines, and what became of them."""

    def __init__(self, at_once: int = 1, most_keys: int = 100) -> None:
        self.clock = Clock()
        self.events: list[LogEvent] = []
        log = Log("marketfeed.part", observer=self.events.append)  # type: ignore[arg-type]
        self.lines = BoundedLog(self.clock, log, at_once, most_keys)

    def happens(self, key: str, times: int = 1, number: int = 0, *, with_late_facts: bool = False) -> None:
        for _ in range(times):
            if with_late_facts:
                self.lines.info_of(key, "{key}: no {number}", lambda: {"key": key, "number": number})
            else:
                self.lines.warn(key, "{key}: no {number}", key=key, number=number)

    def take(self) -> list[tuple[str, str, int]]:
        """Level, text and count of what was logged since the last time."""
        events, self.events[:] = list(self.events), []
        return [(event["log_level"].name, formatEvent(event), event["count"]) for event in events]

    def fails(self, text: str) -> None:
        try:
            raise ZeroDivisionError(text)
        except ZeroDivisionError:
            self.lines.failure("f", "internal error in {part}", part="x")


@pytest.fixture
def part() -> Iterator[Part]:
    yield (part := Part())
    part.lines.close()
    assert not part.clock.getDelayedCalls()


def test_the_first_is_logged_at_once(part: Part) -> None:
    """As it is, with a count of one."""
    part.happens("a")
    part.happens("b", number=7)
    assert part.take() == [("warn", "a: no 0", 1), ("warn", "b: no 7", 1)]
    part.clock.advance(1)
    assert part.take() == []


def test_the_rest_of_a_second_is_told_when_it_is_over(part: Part) -> None:
    """With the facts of the last one, and without waiting for another."""
    part.happens("a", 49)
    part.happens("a", number=50)
    part.take()
    part.clock.advance(0.999)
    assert part.take() == []
    part.clock.advance(0.001)
    assert part.take() == [("warn", "a: no 50 (the last of 49 within 1 s)", 49)]
    assert not part.clock.getDelayedCalls()
    part.clock.advance(1)
    part.happens("a")
    assert part.take() == [("warn", "a: no 0", 1)]


def test_one_that_is_held_back_is_told_as_it_is(part: Part) -> None:
    """There is nothing to count."""
    part.happens("a")
    part.happens("a", number=2)
    part.take()
    part.clock.advance(1)
    assert part.take() == [("warn", "a: no 2", 1)]


def test_what_goes_on_is_one_line_a_second(part: Part) -> None:
    """For as long as it does."""
    for _ in range(40):
        part.happens("a", 10)
        part.clock.advance(0.125)
    assert [count for _, _, count in part.take()] == [1, 79, 80, 80, 80, 80]


def test_a_storm_is_some_lines_and_then_one_that_counts() -> None:
    """Each of its first may matter; when it is over it all begins again."""
    part = Part(at_once=100)
    part.happens("a", 10_000)
    assert [count for _, _, count in part.take()] == [1] * 100
    part.clock.advance(1)
    assert part.take() == [("warn", "a: no 0 (the last of 9900 within 1 s)", 9900)]
    part.happens("a", 5)
    part.clock.advance(1)
    assert [count for _, _, count in part.take()] == [5]
    for _ in range(3):  # as busy as it is at other times: what the storm has taken does not come back
        part.happens("a", 20)
        part.clock.advance(1)
        assert [count for _, _, count in part.take()] == [1] * 20
    part.lines.close()


def test_beyond_so_many_keys_all_others_are_one() -> None:
    """Of a second; those that are known go on by themselves, and quiet ones make room."""
    part = Part(most_keys=2)
    for number, key in enumerate("abcdeab"):
        part.happens(key, number=number)
    part.clock.advance(0.5)
    part.happens("f", number=7)
    assert part.take() == [("warn", "a: no 0", 1), ("warn", "b: no 1", 1), ("warn", "c: no 2", 1)]
    part.clock.advance(0.5)
    assert part.take() == [
        ("warn", "a: no 5", 1),
        ("warn", "b: no 6", 1),
        ("warn", "f: no 7 (the last of 3 within 1 s)", 3),
    ]
    part.clock.advance(1)
    part.happens("g")
    assert part.take() == [("warn", "g: no 0", 1)]
    part.lines.close()


def test_what_is_held_back_first_is_told_first() -> None:
    """Whichever key began to wait first."""
    part = Part()
    part.happens("a")
    part.clock.advance(0.5)
    part.happens("b", 2)
    part.happens("a")
    part.take()
    part.clock.advance(0.5)
    assert part.take() == [("warn", "a: no 0", 1)]
    part.clock.advance(0.5)
    assert part.take() == [("warn", "b: no 0", 1)]
    part.lines.close()


def test_failures_have_their_traceback_once(part: Part) -> None:
    """What is held back keeps no frame alive, and says what it was."""
    for number in range(3):
        part.fails(f"by nothing {number}")
    part.clock.advance(1)
    first, rest = part.events
    assert first["log_failure"].check(ZeroDivisionError)
    assert "log_failure" not in rest
    assert (first["log_level"].name, rest["log_level"].name) == ("critical", "critical")
    assert formatEvent(rest) == "internal error in x: ZeroDivisionError: by nothing 2 (the last of 2 within 1 s)"


def test_the_end_tells_what_is_held_back(part: Part) -> None:
    """No timer is left; what comes later is logged at once, and begins none."""
    part.happens("a", 3)
    part.happens("b")
    part.take()
    part.lines.close()
    assert part.take() == [("warn", "a: no 0 (the last of 2 within 1 s)", 2)]
    assert not part.clock.getDelayedCalls()
    part.happens("a", 2)
    assert [count for _, _, count in part.take()] == [1, 1]
    part.lines.close()
    assert part.take() == []
    assert not part.clock.getDelayedCalls()


@given(
    st.integers(1, 3),
    st.booleans(),
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 9), st.sampled_from([0, 0.3, 1, 2.5]))),
)
def test_everything_is_counted_at_a_bounded_rate(
    at_once: int, with_late_facts: bool, events: list[tuple[Any, int, float]]
) -> None:
    """The counts of all lines are the number of what happened, and in no second are more lines of a key than may be."""
    part = Part(at_once)
    lines: list[tuple[str, float, int]] = []

    def collect() -> None:
        lines.extend((event["key"], part.clock.seconds(), event["count"]) for event in part.events)
        part.events.clear()

    for key, times, pause in events:
        part.happens(key, times, with_late_facts=with_late_facts)
        collect()
        for _ in range(round(pause * 10)):
            part.clock.advance(0.1)
            collect()
    part.lines.close()
    closed = len(lines)
    collect()
    for key in "abc":
        of_key = [(when, count) for each, when, count in lines if each == key]
        assert sum(count for _, count in of_key) == sum(times for each, times, _ in events if each == key)
        at = [when for each, when, _ in lines[:closed] if each == key]
        assert all(later - earlier > 0.99 for earlier, later in zip(at, at[2 * at_once :], strict=False))
    assert not part.clock.getDelayedCalls()


def test_facts_that_are_not_told_are_not_asked_for(part: Part) -> None:
    """Of those that are held back only the last are, when they are told."""
    asked = []

    def facts(number: int) -> dict[str, Any]:
        asked.append(number)
        return {"number": number}

    for number in range(4):
        part.lines.info_of("key", "no {number}", partial(facts, number))
    assert asked == [0]
    part.clock.advance(1)
    assert asked == [0, 3]
    assert part.take() == [("info", "no 0", 1), ("info", "no 3 (the last of 3 within 1 s)", 3)]
    part.lines.close()
    part.lines.info_of("key", "no {number}", partial(facts, 4))
    assert part.take() == [("info", "no 4", 1)]
