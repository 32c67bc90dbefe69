"""A state is given once the stream has come as far as it was when the state was read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

from marketfeed.boundaries import Snapshots
from marketfeed.redis.ordered_snapshots import OrderedSnapshots
from tests.fakes import FakeSnapshots

A = "depth@A"


class Stream:
    """What is caught up with when the test says so; `asked` has the streams."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.caught_up: Deferred[bool] = Deferred()

    def catch_up(self, stream: str) -> Deferred[bool]:
        self.asked.append(stream)
        return self.caught_up


def test_it_is_asked_for_what_lies_before_a_state_once_that_was_read() -> None:
    """Asked before, the answer would say nothing of what was published until then."""
    states, stream = FakeSnapshots(), Stream()
    states.states, states.late = {A: b"book"}, True
    given: list[bytes | None] = []
    OrderedSnapshots(states, stream.catch_up).read(A).addCallback(given.append)
    assert stream.asked == []
    states.answer()
    assert (stream.asked, given) == ([A], [])
    stream.caught_up.callback(True)
    assert given == [b"book"]


def test_without_its_place_a_state_is_none() -> None:
    """Nor is anything waited for where there is no state."""
    states, stream = FakeSnapshots(), Stream()
    ordered = OrderedSnapshots(states, stream.catch_up)
    given: list[bytes | None] = []
    ordered.read(A).addCallback(given.append)
    assert (stream.asked, given) == ([], [None])
    states.states = {A: b"book"}
    ordered.read(A).addCallback(given.append)
    stream.caught_up.callback(False)
    assert (stream.asked, given) == ([A], [None, None])


if TYPE_CHECKING:
    _snapshots: Snapshots = OrderedSnapshots(FakeSnapshots(), Stream().catch_up)
