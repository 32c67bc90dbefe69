"""What a slow client is told of what is left out for it: a machine over a real outbox, against what has been left out.

The model knows which streams have had a publication replaced or merged from the counters of their kinds, and what the
client knows from what it has read.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from twisted.internet.task import Clock

from marketfeed.hub.groups import Group
from marketfeed.websocket.backlog import Thinned
from marketfeed.websocket.outbox import Outbox
from marketfeed.websocket.quality import QUALITY_SECONDS, Quality
from marketfeed.wire.dialects import event_text
from marketfeed.wire.frames import text_frame
from marketfeed.wire.messages import Quality as Event
from tests.books import decoded, update
from tests.fakes import AT, FakeTransport, make_group, payloads
from tests.strategies import machine_test

LIMIT = 400_000
NAMES = ("trade@A", "ticker@A", "ticker@B", "depth@A", "depth@B")


class Reader:
    """A client with an outbox, that reads as much as its socket has room for, and what it has been told."""

    def __init__(self, *, tls: bool = False, limit: int = LIMIT) -> None:
        self.clock = Clock()
        self.transport = FakeTransport(tls=tls)
        self.outbox = Outbox(self.transport, limit, self)
        self.quality = Quality(self.clock, self.outbox, self._frame)
        self.groups = {name: make_group(name) for name in NAMES}
        self.number = 0
        self.at = 0
        self.overflows = 0
        self.told: list[tuple[float, str, list[str]]] = []
        """When each event was put together, and what it said."""

    def _frame(self, streams: list[str], level: str) -> bytes:
        assert streams
        self.told.append((self.clock.seconds(), level, streams))
        return text_frame(event_text(Event(streams, level, 7), False))

    # What the outbox calls.

    def drained(self) -> None:
        """Nobody here asks."""

    def overflowed(self) -> None:
        self.overflows += 1

    def backlog_changed(self, waiting: int) -> None:
        if not waiting:
            self.quality.caught_up()

    def notice(self) -> bytes:
        return self.quality.due()

    # What the test calls.

    def publish(self, name: str, size: int = 0) -> None:
        self.number += 1
        group = self.groups[name]
        data = update(b=[["1", str(self.number)]], n=self.number, x="x" * size)
        frame = group.framed(data, AT)
        if self.outbox.direct:
            self.outbox.write(frame)
        else:
            assert self.outbox.wait(group, [frame])

    def stall(self) -> None:
        self.transport.socket.room = 0

    def read(self, room: int | None = None) -> list[dict[str, Any]]:
        """Read so many bytes, or everything; the messages that are whole since the last time."""
        self.transport.socket.room = room
        for _ in range(1000):
            if not self.transport.is_writing or self.transport.socket.room == 0:
                break
            self.transport.turn()
        received = bytes(self.transport.socket.received)
        whole = _whole(received, self.at)
        messages = [decoded(text) for text in payloads(received[self.at : whole])]
        self.at = whole
        return messages

    def end(self) -> None:
        self.quality.close()
        assert not self.clock.getDelayedCalls()


def _whole(data: bytes, at: int) -> int:
    """Where the last whole frame behind `at` ends."""
    while True:
        if len(data) < at + 2:
            return at
        size, header = data[at + 1], 2
        if size == 126:
            size, header = int.from_bytes(data[at + 2 : at + 4], "big"), 4
        elif size == 127:
            size, header = int.from_bytes(data[at + 2 : at + 10], "big"), 10
        if len(data) < at + header or len(data) < at + header + size:
            return at
        at += header + size


def thin(reader: Reader, name: str = "ticker@A") -> None:
    """Let something of a stream be left out. What comes before the rest is a large frame that is cut."""
    reader.stall()
    reader.publish("trade@A", 500)
    reader.publish("trade@A", 70_000)
    for _ in range(3):
        reader.publish(name)


def said(messages: list[dict[str, Any]]) -> list[Any]:
    return [(each["level"], each["streams"]) if each["e"] == "quality" else each["n"] for each in messages]


@pytest.mark.parametrize("name", ["ticker@A", "depth@A"])
def test_it_is_told_before_what_is_left(name: str) -> None:
    """At the next frame that leaves; and that it is live again, not before a second has passed."""
    reader = Reader()
    thin(reader, name)
    assert said(reader.read()) == ["1", ("thinned", [name]), "2", "5"]
    reader.clock.advance(QUALITY_SECONDS / 2)
    assert not reader.read()
    reader.clock.advance(QUALITY_SECONDS / 2)
    assert said(reader.read()) == [("live", [name])]
    reader.end()


def test_a_snapshot_that_discards_what_waits_leaves_something_out() -> None:
    """As a newer ticker does."""
    reader = Reader()
    thin(reader, "trade@A")
    group = reader.groups["depth@A"]
    for data in (update(U=1, u=1), update(U=2, u=2, snapshot=True)):
        assert reader.outbox.wait(group, [group.framed(data, AT)])
    assert ("thinned", ["depth@A"]) in [each for each in said_of(reader) if isinstance(each, tuple)]


def said_of(reader: Reader) -> list[Any]:
    return [(each["level"], each["streams"]) if each["e"] == "quality" else 0 for each in reader.read()]


def test_who_waits_without_a_loss_is_told_nothing() -> None:
    """Everything comes, only later."""
    reader = Reader()
    thin(reader, "trade@A")
    reader.publish("ticker@A")
    reader.publish("depth@A")
    assert all(each["e"] != "quality" for each in reader.read())
    reader.clock.advance(9)
    assert not reader.read()
    assert not reader.told
    reader.end()


def test_the_rest_of_a_frame_that_was_cut_is_never_parted_from_it() -> None:
    """What is to be told from the last time waits until that is gone."""
    reader = Reader()
    thin(reader)
    reader.read()
    thin(reader, "ticker@B")
    reader.read()
    assert [level for _, level, _ in reader.told] == ["thinned"]
    reader.clock.rightNow += QUALITY_SECONDS  # and the reactor is late
    reader.transport.socket.script.append(5)
    reader.publish("trade@A", 100)
    reader.stall()
    reader.publish("ticker@A")
    assert said(reader.read()) == ["11", ("thinned", ["ticker@B"]), "12"]


class Stub:
    """What `Quality` asks of an outbox."""

    hears_events = True
    has_caught_up = False
    room = 1000

    def __init__(self) -> None:
        self.thinned = Thinned()
        self.written: list[bytes] = []

    def write(self, frames: bytes) -> None:
        self.written.append(frames)


def test_one_in_a_second_while_it_reads_on() -> None:
    """What was left out since the last event is told together, and nothing is live before all is read."""
    clock, outbox = Clock(), Stub()
    quality = Quality(clock, outbox, lambda streams, level: f"{level} {streams}".encode())
    outbox.thinned.streams |= {"a": False, "b": False}
    assert quality.due() == b"thinned ['a', 'b']"
    outbox.thinned.streams["c"] = False
    clock.advance(QUALITY_SECONDS - 0.01)
    assert quality.due() == b""
    outbox.thinned.streams["d"] = False
    clock.advance(0.01)
    assert quality.due() == b"thinned ['c', 'd']"
    clock.advance(QUALITY_SECONDS)
    assert quality.due() == b""
    outbox.has_caught_up = True
    assert quality.due() == b"live ['a', 'b', 'c', 'd']"
    clock.advance(QUALITY_SECONDS)
    assert quality.due() == b""
    assert not outbox.written


def test_who_is_behind_again_hears_later_that_it_is_live() -> None:
    """The clock asks once a second, of those alone who are to be told."""
    clock, outbox = Clock(), Stub()
    quality = Quality(clock, outbox, lambda streams, level: level.encode())
    outbox.thinned.streams["a"] = False
    assert quality.due() == b"thinned"
    outbox.has_caught_up = True
    quality.caught_up()
    outbox.has_caught_up = False
    clock.pump([QUALITY_SECONDS] * 3)
    assert outbox.written == []
    outbox.has_caught_up = True
    clock.advance(QUALITY_SECONDS)
    assert outbox.written == [b"live"]
    assert not clock.getDelayedCalls()


@pytest.mark.parametrize("before", [True, False])
def test_who_does_not_hear_events_is_told_nothing(before: bool) -> None:
    """And what was left out for it then is not told later, when it does."""
    reader = Reader()
    reader.outbox.hears_events = not before
    thin(reader)
    reader.outbox.hears_events = False
    reader.read()
    reader.clock.advance(QUALITY_SECONDS)
    reader.outbox.hears_events = True
    reader.publish("ticker@A")
    reader.read()
    reader.clock.advance(QUALITY_SECONDS)
    assert not reader.told
    reader.end()


def test_what_was_left_is_not_heard_of() -> None:
    """Neither while it waits to be told, nor that it is live."""
    reader = Reader()
    thin(reader)
    reader.publish("ticker@B")
    reader.publish("ticker@B")
    reader.outbox.forget([reader.groups["ticker@A"]])
    assert said(reader.read()) == ["1", ("thinned", ["ticker@B"]), "2", "7"]
    reader.outbox.forget([reader.groups["ticker@B"]])
    reader.clock.advance(QUALITY_SECONDS)
    assert not reader.read()
    reader.end()


def test_where_there_is_no_room_it_is_told_later() -> None:
    """It never ends a client, nor takes the place of what it is to get."""
    reader = Reader(limit=2000)
    reader.transport.socket.script.append(40)
    reader.publish("trade@A")
    reader.stall()
    reader.publish("ticker@A")
    reader.publish("ticker@A")
    reader.publish("trade@A", reader.outbox.room - 65)
    assert reader.outbox.room < 20
    messages = said(reader.read())
    assert messages == ["1", "3", "4", ("thinned", ["ticker@A"])]
    assert not reader.overflows
    reader.end()


class QualityMachine(RuleBasedStateMachine):
    """Publications on five streams, a client that reads what it likes, and time that passes."""

    tls = False

    def __init__(self) -> None:
        super().__init__()
        self.reader = Reader(tls=self.tls)
        self.thinned: dict[str, bool] = {}
        """Streams of which something was left out since the client was told that they are live: whether it was told."""
        self.seen = 0

    def _group(self, name: str) -> Group:
        return self.reader.groups[name]

    def _left_out(self, name: str) -> int:
        return self._group(name).stream.counts.conflated

    @rule(name=st.sampled_from(NAMES), count=st.integers(1, 3), size=st.sampled_from([0, 0, 300, 50_000]))
    def publish(self, name: str, count: int, size: int) -> None:
        for _ in range(count):
            if self.reader.outbox.room < 110_000:
                return
            before = self._left_out(name)
            self.reader.publish(name, size)
            if self._left_out(name) > before:
                self.thinned.setdefault(name, False)
            self._follow()

    @rule(room=st.sampled_from([0, 1, 50, 500, 5000, 70_000, None]))
    def read(self, room: int | None) -> None:
        for message in self.reader.read(room):
            assert message["e"] in ("quality", "depth")
        self._follow()

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.5, 1.0, 3.0]))
    def wait(self, seconds: float) -> None:
        self.reader.clock.advance(seconds)
        self._follow()

    @rule(seconds=st.sampled_from([0.3, 1.0]))
    def be_late(self, seconds: float) -> None:
        """Time passes, and no timer is heard yet."""
        self.reader.clock.rightNow += seconds

    @rule(name=st.sampled_from(NAMES))
    def leave(self, name: str) -> None:
        self.reader.outbox.forget([self._group(name)])
        self.thinned.pop(name, None)

    def _follow(self) -> None:
        """What was told is so."""
        told = self.reader.told
        while self.seen < len(told):
            at, level, streams = told[self.seen]
            assert self.seen == 0 or at - told[self.seen - 1][0] >= QUALITY_SECONDS, "more than one in a second"
            self.seen += 1
            if level == "thinned":
                assert streams == [name for name, known in self.thinned.items() if not known]
                self.thinned.update(dict.fromkeys(streams, True))
            else:
                assert streams == list(self.thinned)
                assert all(self.thinned.values()), "live before it was told that it is not"
                self.thinned.clear()

    @invariant()
    def who_keeps_up_is_told_nothing(self) -> None:
        assert not self.reader.overflows
        if not self.thinned and self.reader.outbox.has_caught_up:
            before = len(self.reader.told)
            assert self.reader.quality.due() == b""
            assert len(self.reader.told) == before

    def teardown(self) -> None:
        """In the end everything has been read and said, and the client knows that it is live."""
        for _ in range(3):
            self.read(None)
            self.wait(QUALITY_SECONDS)
        self.read(None)
        assert self.reader.outbox.has_caught_up
        assert not self.thinned
        assert not self.reader.outbox.thinned.streams
        self.reader.clock.advance(QUALITY_SECONDS)
        self.reader.end()


class TLSQualityMachine(QualityMachine):
    """The same by records of TLS."""

    tls = True


@pytest.mark.parametrize("machine", [QualityMachine, TLSQualityMachine])
def test_what_is_told_is_what_is_left_out(machine: type[QualityMachine]) -> None:
    """At any speed of the client, in any order."""
    run_state_machine_as_test(machine, settings=machine_test(1.5, 40))
