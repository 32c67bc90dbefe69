"""Waiting until a stream has been read up to an entry: it comes, it cannot come any more, or it takes too long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from marketfeed.model.entry_ids import EntryId, write_id
from marketfeed.redis.arrivals import ARRIVAL_SECONDS, Arrivals
from marketfeed.redis.stream_reads import Reading


def reading(name: str = "A", at: str = "") -> Reading:
    made = Reading(f"trade@{name}", f"trade@{name}".encode())
    made.at = at.encode()
    return made


def wait(arrivals: Arrivals, stream: Reading, entry: str) -> list[bool]:
    """What it comes to, as soon as that is known."""
    outcome: list[bool] = []
    Deferred.fromCoroutine(arrivals.wait_for(stream, entry)).addCallback(outcome.append)
    return outcome


def move(arrivals: Arrivals, stream: Reading, at: str) -> None:
    stream.at = at.encode()
    arrivals.moved(stream)


ids = st.tuples(st.integers(0, 12), st.integers(0, 3))


@given(st.lists(ids), st.lists(st.tuples(ids, st.integers(0, 12))))
def test_it_is_there_as_soon_as_it_was_read(path: list[EntryId], wishes: list[tuple[EntryId, int]]) -> None:
    """Whoever waits goes on with the first position that is not before the entry, and with none before."""
    clock = Clock()
    arrivals, stream = Arrivals(clock), reading()
    places = sorted(path)
    waiting = []
    for step, place in enumerate([(0, 0), *places]):
        move(arrivals, stream, write_id(place))
        waiting += [(end, wait(arrivals, stream, write_id(end))) for end, at in wishes if at == step]
        assert all(outcome == ([True] if place >= end else []) for end, outcome in waiting)
    arrivals.clear()
    last = places[-1] if places else (0, 0)
    assert all(outcome == [last >= end] for end, outcome in waiting)
    assert clock.getDelayedCalls() == []


def test_a_stream_that_was_not_read_yet_is_waited_for() -> None:
    """Its position is not known before it is checked."""
    clock = Clock()
    arrivals, stream = Arrivals(clock), reading()
    outcome = wait(arrivals, stream, "5-0")
    assert outcome == []
    move(arrivals, stream, "5-0")
    assert outcome == [True]
    assert clock.getDelayedCalls() == []


def test_each_stream_by_itself() -> None:
    """One that is wanted no longer is waited for no longer; the others are."""
    clock = Clock()
    arrivals, a, b = Arrivals(clock), reading("A"), reading("B")
    outcomes = [wait(arrivals, a, "1-0"), wait(arrivals, a, "2-0"), wait(arrivals, b, "1-0")]
    move(arrivals, a, "1-0")
    assert outcomes == [[True], [], []]
    arrivals.forget(a)
    arrivals.forget(a)
    assert outcomes == [[True], [False], []]
    move(arrivals, b, "7-0")
    assert outcomes == [[True], [False], [True]]
    assert clock.getDelayedCalls() == []


def test_nobody_waits_for_ever() -> None:
    """The entry may have been deleted, or belong to another past of the stream."""
    clock = Clock()
    arrivals, stream = Arrivals(clock), reading(at="1-0")
    outcomes = [wait(arrivals, stream, "9-0"), wait(arrivals, stream, "9-1")]
    clock.advance(ARRIVAL_SECONDS)
    assert outcomes == [[False], [False]]
    move(arrivals, stream, "9-1")
    arrivals.clear()
    assert clock.getDelayedCalls() == []
