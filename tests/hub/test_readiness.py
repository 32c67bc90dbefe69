"""Waiting until streams flow: who is called, when, and once."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from marketfeed.hub.readiness import CONFIRM_SECONDS, Readiness, Wait
from marketfeed.hub.stream import LiveStream
from tests.conftest import LogCapture
from tests.fakes import make_stream


class Waiting:
    """Readiness with a clock, a few streams, and the names of those that were called."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.readiness = Readiness(self.clock, lambda: self.clock.seconds() + 7)
        self.streams = [make_stream(f"depth@{market}") for market in "ABC"]
        self.called: list[str] = []

    def wait(self, name: str, *streams: LiveStream, with_state: bool = True) -> Wait | None:
        return self.readiness.wait_for(streams, with_state, lambda: self.called.append(name))

    def wait_to_cancel(self, name: str, stream: LiveStream) -> list[Wait]:
        """Who waits so cancels the first of these when it goes on."""
        others: list[Wait] = []

        def done() -> None:
            self.called.append(name)
            self.readiness.cancel(others[0])

        self.readiness.wait_for([stream], True, done)
        return others

    def confirm(self, *streams: LiveStream) -> None:
        for stream in streams:
            stream.confirm(0.0, None)
            self.readiness.settled(stream)

    def assert_nothing_is_left(self) -> None:
        assert not self.clock.getDelayedCalls()
        assert not any(self.readiness.is_awaited(stream) for stream in self.streams)


@pytest.fixture
def waiting() -> Waiting:
    return Waiting()


def test_who_need_not_wait_is_not_called(waiting: Waiting) -> None:
    """What flows and what is known not to flow is settled; so is nothing at all."""
    flows, broken, _ = waiting.streams
    flows.confirm(0.0, None)
    broken.lose(5)
    assert waiting.wait("one", flows, broken) is None
    assert waiting.wait("two") is None
    assert not waiting.called
    waiting.assert_nothing_is_left()


def test_who_waits_is_called_when_the_last_is_settled(waiting: Waiting) -> None:
    """Once, whatever becomes of the streams later; news of a stream that is not settled is none."""
    first, second, other = waiting.streams
    assert waiting.wait("one", first, second, first) is not None
    assert waiting.wait("two", second) is not None
    waiting.readiness.settled(first)
    waiting.confirm(first, other)
    assert not waiting.called
    second.refuse(5)
    waiting.readiness.settled(second)
    assert waiting.called == ["one", "two"]
    waiting.confirm(second)
    waiting.clock.advance(CONFIRM_SECONDS)
    assert waiting.called == ["one", "two"]
    waiting.assert_nothing_is_left()


def test_a_state_that_is_looked_for_is_waited_for(waiting: Waiting) -> None:
    """For as long as for a confirmation: no gap is opened for a stream that flows."""
    stream = waiting.streams[0]
    stream.seek()
    waiting.confirm(stream)
    waiting.wait("one", stream)
    assert waiting.wait("none", stream, with_state=False) is None, "it is nothing to who asks for no state"
    waiting.readiness.settled(stream)
    assert not waiting.called
    stream.found()
    waiting.readiness.settled(stream)
    assert waiting.called == ["one"]
    stream.seek()
    waiting.wait("two", stream)
    waiting.clock.advance(CONFIRM_SECONDS)
    assert waiting.called == ["one", "two"]
    assert stream.gap is None
    waiting.assert_nothing_is_left()


def test_who_has_waited_too_long_is_called_and_the_gap_is_open(waiting: Waiting, logged: LogCapture) -> None:
    """It began when the wait did. A gap that was there keeps its own beginning; what has come is no part of it."""
    late, came, broken = waiting.streams
    waiting.clock.advance(1)
    waiting.wait("one", late, came, broken)
    waiting.confirm(came)
    broken.refuse(5)
    waiting.clock.advance(CONFIRM_SECONDS - 0.1)
    assert not waiting.called
    waiting.clock.advance(0.1)
    assert waiting.called == ["one"]
    assert [stream.gap for stream in waiting.streams] == [("source-down", 8000), None, ("source-refused", 5)]
    (line,) = [event for event in logged.events if str(event.get("log_format")).startswith("no confirmation")]
    assert (line["count"], line["stream"]) == (1, "depth@A")
    waiting.assert_nothing_is_left()


def test_who_waits_no_longer_is_not_called(waiting: Waiting) -> None:
    """Cancelling is complete, may be done twice, and takes nobody else along."""
    first, second, _ = waiting.streams
    gone = waiting.wait("gone", first, second)
    waiting.wait("stays", first)
    assert gone is not None
    waiting.readiness.cancel(gone)
    waiting.readiness.cancel(gone)
    waiting.confirm(first, second)
    assert waiting.called == ["stays"]
    waiting.assert_nothing_is_left()


def test_who_is_cancelled_by_one_who_goes_on_is_not_called(waiting: Waiting) -> None:
    """What a client does as it goes on may be the end of the next one, in the same news."""
    stream = waiting.streams[0]
    others = waiting.wait_to_cancel("one", stream)
    other = waiting.wait("two", stream)
    assert other is not None
    others.append(other)
    waiting.confirm(stream)
    assert waiting.called == ["one"]
    waiting.assert_nothing_is_left()


def test_who_has_waited_too_long_releases_the_others(waiting: Waiting) -> None:
    """The gap is open for all who wait for that stream: nobody has to wait until it is his own turn."""
    late, flows, other = waiting.streams
    waiting.wait("one", late)
    waiting.clock.advance(3)
    waiting.wait("two", late, flows)
    waiting.wait("three", late, other, with_state=False)
    waiting.confirm(flows)
    waiting.clock.advance(CONFIRM_SECONDS - 3)
    assert waiting.called == ["one", "two"]
    waiting.clock.advance(3)
    assert waiting.called == ["one", "two", "three"]
    waiting.assert_nothing_is_left()


def test_who_is_released_by_a_time_out_may_release_further_ones(waiting: Waiting) -> None:
    """Each is called once, whatever the others do as they go on."""
    late = waiting.streams[0]
    others = waiting.wait_to_cancel("one", late)
    waiting.clock.advance(1)
    gone = waiting.wait("gone", late)
    assert gone is not None
    others.append(gone)
    waiting.wait("two", late)
    waiting.clock.advance(CONFIRM_SECONDS - 1)
    assert waiting.called == ["one", "two"]
    waiting.assert_nothing_is_left()
