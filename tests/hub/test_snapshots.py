"""States from beside the streams: when they are looked for, and whose the answer is."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from marketfeed.hub.snapshots import SnapshotFinder
from marketfeed.hub.stream import LiveStream
from tests.conftest import LogCapture
from tests.fakes import FakeSnapshots, make_stream


def book(last: int) -> bytes:
    return b'{"e":"depth","a":[],"b":[["1","2"]],"U":%d,"u":%d}' % (last, last)


def ticker(price: int) -> bytes:
    return b'{"e":"ticker","c":"%d","s":"A"}' % price


class Looking:
    """A seeding with snapshots and a clock; `tried` has what was said, by stream."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.snapshots = FakeSnapshots()
        self.tried: list[tuple[str, bool]] = []
        self.finder = SnapshotFinder(self.clock, self.snapshots, self)
        self.depth, self.ticker = make_stream("depth@A"), make_stream("ticker@A")

    def has_sought(self, stream: LiveStream, is_found: bool) -> None:
        assert not stream.is_sought
        self.tried.append((stream.name, is_found))

    def take(self) -> list[tuple[str, bool]]:
        tried, self.tried = self.tried, []
        return tried

    def wait(self, seconds: float) -> list[float]:
        """Let time pass, as the hub's sweep does; returns when somebody was asked."""
        asked = []
        for _ in range(int(seconds)):
            self.clock.advance(1)
            count = len(self.snapshots.asked)
            self.finder.look_again()
            asked += [self.clock.seconds()] * (len(self.snapshots.asked) - count)
        return asked


@pytest.fixture
def looking() -> Looking:
    return Looking()


@pytest.mark.parametrize("late", [False, True])
def test_a_state_that_is_found_is_the_streams(looking: Looking, late: bool) -> None:
    """It is complete then, and is not looked for again."""
    looking.snapshots.late = late
    looking.snapshots.states = {"depth@A": book(7), "ticker@A": ticker(3)}
    for stream in (looking.depth, looking.ticker):
        looking.finder.look_for(stream)
        assert stream.is_sought == late
        assert late or looking.take() == [(stream.name, True)]
    looking.snapshots.answer()
    if late:
        assert looking.take() == [("depth@A", True), ("ticker@A", True)]
    assert looking.ticker.state is not None
    assert looking.depth.state is not None
    assert looking.ticker.state.snapshot() == ticker(3)
    assert looking.depth.state.is_complete
    assert looking.wait(200) == []


def test_what_has_no_state_or_a_complete_one_is_not_looked_for(looking: Looking) -> None:
    """Trades have none; a ticker that has come is newer than any other."""
    assert looking.ticker.state is not None
    looking.ticker.state.record(ticker(1))
    for stream in (make_stream("trade@A"), looking.ticker):
        looking.finder.look_for(stream)
        assert not stream.is_sought
    assert looking.wait(100) == []
    assert not looking.snapshots.asked
    assert not looking.tried


def test_what_is_not_there_is_looked_for_at_growing_intervals(looking: Looking) -> None:
    """After 5, 10, 20, 40 seconds, and once a minute; each time those who wait may go on."""
    looking.finder.look_for(looking.depth)
    assert looking.take() == [("depth@A", False)]
    assert looking.wait(220) == [5, 15, 35, 75, 135, 195]
    assert looking.take() == [("depth@A", False)] * 6
    looking.snapshots.states["depth@A"] = book(7)
    assert looking.wait(60) == [255]
    assert looking.take() == [("depth@A", True)]
    assert looking.wait(120) == []


def test_the_pause_begins_with_the_answer(looking: Looking) -> None:
    """A question that is under way is not asked again."""
    looking.snapshots.late = True
    looking.finder.look_for(looking.depth)
    assert looking.wait(100) == []
    looking.snapshots.answer()
    assert looking.wait(5) == [105]


def test_what_has_become_complete_by_itself_is_neither_asked_for_again_nor_found(looking: Looking) -> None:
    """A snapshot on the stream: who is in has got it, and nothing comes twice."""
    looking.finder.look_for(looking.depth)
    looking.take()
    assert looking.depth.state is not None
    looking.depth.state.record(b'{"e":"depth","a":[],"b":[],"U":1,"u":1,"snapshot":true}')
    assert looking.wait(10) == []
    assert looking.take() == [("depth@A", False)]
    assert looking.wait(100) == []


def test_a_seed_ahead_of_the_stream_is_found_when_the_stream_has_come_so_far(looking: Looking) -> None:
    """Once; and only if it was not the state before."""
    assert looking.depth.state is not None
    looking.depth.state.record(book(5))
    looking.snapshots.states["depth@A"] = book(7)
    looking.finder.look_for(looking.depth)
    assert looking.take() == [("depth@A", False)]
    assert not looking.depth.state.is_complete
    looking.depth.state.record(book(6))
    looking.depth.state.record(book(7))
    assert looking.depth.state.is_complete
    assert looking.finder.is_awaited(looking.depth)
    assert not looking.finder.is_awaited(looking.depth)
    assert looking.wait(100) == []
    assert not looking.tried
    looking.finder.look_for(looking.ticker)
    assert not looking.finder.is_awaited(looking.ticker)


def test_an_answer_to_a_state_that_is_complete_by_then_is_not_taken(looking: Looking) -> None:
    """The stream's own is newer; who waits goes on."""
    looking.snapshots.late = True
    looking.snapshots.states["ticker@A"] = ticker(3)
    looking.finder.look_for(looking.ticker)
    assert looking.ticker.state is not None
    looking.ticker.state.record(ticker(4))
    looking.snapshots.answer()
    assert looking.take() == [("ticker@A", False)]
    assert looking.ticker.state.snapshot() == ticker(4)
    assert looking.wait(100) == []


def test_an_answer_after_the_stream_was_lost_is_nobodys(looking: Looking) -> None:
    """Nor is it looked for again, until it flows again; then only the new answer counts."""
    looking.snapshots.late = True
    looking.snapshots.states["ticker@A"] = ticker(3)
    looking.finder.look_for(looking.ticker)
    looking.finder.forget(looking.ticker)
    assert not looking.ticker.is_sought
    looking.finder.look_for(looking.ticker)
    looking.snapshots.answer(1)
    assert looking.ticker.is_sought
    assert looking.take() == []
    looking.snapshots.answer(1)
    assert looking.take() == [("ticker@A", True)]
    looking.finder.look_for(looking.depth)
    looking.snapshots.answer()
    looking.take()
    looking.finder.forget(looking.depth)
    assert looking.wait(100) == []
    assert looking.take() == []


def test_a_stream_that_keeps_jumping_is_looked_for_once_a_second(looking: Looking) -> None:
    """And while an answer is under way not at all; its pauses begin anew."""
    for _ in range(3):
        looking.finder.look_for(looking.depth)
    assert looking.snapshots.asked == ["depth@A"]
    looking.clock.advance(1)
    looking.snapshots.late = True
    for _ in range(3):
        looking.finder.look_for(looking.depth)
        looking.clock.advance(2)
    assert looking.snapshots.asked == ["depth@A"] * 2
    assert looking.depth.is_sought
    looking.snapshots.answer()
    assert not looking.depth.is_sought
    assert looking.take() == [("depth@A", False)] * 2
    looking.snapshots.late = False
    assert looking.wait(16) == [looking.clock.seconds() - 11, looking.clock.seconds() - 1]


@pytest.mark.parametrize("state", [b"{", b'{"e":"depth"}', b"[]", b"\xff"])
def test_a_bad_state_is_none(looking: Looking, logged: LogCapture, state: bytes) -> None:
    """It is logged with what is wrong, and looked for again."""
    looking.snapshots.states["depth@A"] = state
    looking.finder.look_for(looking.depth)
    assert looking.take() == [("depth@A", False)]
    lines = [event for event in logged.events if str(event.get("log_format")).startswith("bad state")]
    assert [line["stream"] for line in lines] == ["depth@A"]
    assert looking.wait(5) == [5]


def test_bad_states_do_not_fill_the_log(looking: Looking, logged: LogCapture) -> None:
    """There may be one for each of thousands of streams."""
    for number in range(50):
        stream = make_stream(f"depth@M{number}")
        looking.snapshots.states[stream.name] = b"{"
        looking.finder.look_for(stream)
    assert len([text for text in logged.formats() if text.startswith("bad state")]) == 10


def test_a_state_that_does_not_fit_is_looked_for_again(looking: Looking) -> None:
    """The seed is older than the first update that came."""
    looking.snapshots.states["depth@A"] = book(7)
    assert looking.depth.state is not None
    looking.depth.state.record(book(10))
    looking.finder.look_for(looking.depth)
    assert looking.take() == [("depth@A", False)]
    looking.snapshots.states["depth@A"] = book(9)
    assert looking.wait(5) == [5]
    assert looking.take() == [("depth@A", True)]
