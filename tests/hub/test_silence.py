"""An engine that has fallen silent: who is told, when it is over, and what is no sign of life."""

from __future__ import annotations

import msgspec
import pytest
from twisted.logger import formatEvent

from marketfeed.model.streams import BUILT_IN
from tests.conftest import LogCapture
from tests.rooms import EPOCH, LINGER, Client, Room, depth, member, ticker, trade

SILENCE = 10.0


@pytest.fixture
def room(room: Room) -> Room:
    """A hub that watches trades and depth messages."""
    for kind in BUILT_IN:
        if kind.name in ("trade", "depth"):
            room.kinds.add(msgspec.structs.replace(kind, silence=SILENCE))
    return room


def passes(room: Room, seconds: float) -> None:
    room.clock.pump([0.5] * round(seconds * 2))


def test_all_streams_of_the_kind_have_a_gap(room: Room, logged: LogCapture) -> None:
    """Since the last publication of any of them, in one event for each client; other kinds have none."""
    one, other = member(room, "trade@A", "trade@B", "ticker@A"), member(room, "trade@B")
    passes(room, 5)
    room.source.publish("trade@A", trade(1))
    since = room.now_ms
    assert one.take() == [("trade@A", 1)]
    passes(room, SILENCE - 0.5)
    assert one.take() == other.take() == []
    assert room.hub.overview.silent_kinds == {}
    passes(room, 1)
    assert one.take() == [("gap", ["trade@A", "trade@B"], "engine-silent", since, None)]
    assert other.take() == [("gap", ["trade@B"], "engine-silent", since, None)]
    assert room.hub.overview.silent_kinds == {"trade": since}
    (warning,) = [event for event in logged.events if event["log_level"].name == "warn"]
    assert formatEvent(warning) == "the engine is silent: nothing on any of 2 streams of the kind trade for 10 s"
    passes(room, 60)
    assert one.take() == other.take() == []


def test_the_next_publication_ends_it(room: Room, logged: LogCapture) -> None:
    """For all streams of the kind, before it goes on its way; then silence counts anew."""
    one, other = member(room, "trade@A", "trade@B"), member(room, "trade@B")
    since = room.now_ms
    passes(room, 20)
    one.take(), other.take()
    room.source.publish("trade@B", trade(7))
    gap = "engine-silent", since, room.now_ms
    assert one.take() == [("gap", ["trade@A", "trade@B"], *gap), ("trade@B", 7)]
    assert other.take() == [("gap", ["trade@B"], *gap), ("trade@B", 7)]
    assert room.hub.overview.silent_kinds == {}
    assert formatEvent(logged.events[-1]) == "the engine publishes trade again, after 20 s"
    since = room.now_ms
    passes(room, SILENCE + 1)
    assert other.take() == [("gap", ["trade@B"], "engine-silent", since, None)]


def test_without_a_declaration_nobody_is_silent() -> None:
    """However long it takes."""
    room = Room()
    client = member(room, "trade@A", "depth@A")
    passes(room, 3600)
    assert client.take() == []


def test_who_comes_later_is_told(room: Room) -> None:
    """Whether the stream is there already or is new: what is subscribed anew is no sign of life."""
    first = member(room, "trade@A")
    since = room.now_ms
    passes(room, 6)
    member(room, "trade@B")
    passes(room, 6)
    assert first.take() == [("gap", ["trade@A"], "engine-silent", since, None)]
    room.source.at_once = False
    late = Client(room).join("trade@A", "trade@C")
    room.source.confirm("trade@C")
    assert late.take() == [
        ["joined", "trade@A", "trade@C"],
        ("gap", ["trade@A", "trade@C"], "engine-silent", since, None),
    ]
    room.source.publish("trade@C", trade(1))
    assert first.take() == [("gap", ["trade@A"], "engine-silent", since, room.now_ms)]
    assert late.take()[1:] == [("trade@C", 1)]


def test_what_is_kept_is_given_out_all_the_same(room: Room) -> None:
    """Nothing is missing in the book."""
    member(room, "depth@A")
    room.source.publish("depth@A", depth(1, is_snapshot=True))
    passes(room, SILENCE + 1)
    late = Client(room).join("depth@A", wants_state=True)
    joined, state, gap = late.take()
    assert joined == ["joined", "depth@A"]
    assert state[0] == "depth@A"
    assert gap == ("gap", ["depth@A"], "engine-silent", EPOCH * 1000, None)


def test_a_bad_publication_is_no_sign_of_life(room: Room) -> None:
    """It is dropped, and the log has it."""
    client = member(room, "trade@A")
    passes(room, SILENCE + 1)
    client.take()
    room.source.publish("trade@A", b"{")
    assert client.take() == []
    assert room.hub.overview.silent_kinds


def test_a_link_that_is_lost_meanwhile(room: Room) -> None:
    """The gap has that reason from then on, and its beginning; it is over when the link is there again."""
    client = member(room, "trade@A")
    since = room.now_ms
    passes(room, SILENCE + 1)
    client.take()
    room.source.lose(room.now_ms)
    assert client.take() == [("gap", ["trade@A"], "source-down", since, None)]
    passes(room, 2)
    assert room.hub.overview.silent_kinds == {}
    room.source.reach()
    room.source.confirm()
    room.hub.flush()
    assert client.take() == [("gap", ["trade@A"], "source-down", since, room.now_ms)]
    since = room.now_ms
    passes(room, SILENCE + 1.5)
    ((_, streams, reason, begun, until),) = client.take()
    assert (streams, reason, until) == (["trade@A"], "engine-silent", None)
    assert since <= begun <= since + 1000


def test_a_link_that_is_back_at_once(room: Room) -> None:
    """The engine is as silent as before: one gap ends, another begins."""
    client = member(room, "trade@A")
    since = room.now_ms
    passes(room, SILENCE + 1)
    client.take()
    room.source.lose(room.now_ms)
    room.source.reach()
    room.source.confirm()
    assert client.take() == [
        ("gap", ["trade@A"], "source-down", since, None),
        ("gap", ["trade@A"], "source-down", since, room.now_ms),
        ("gap", ["trade@A"], "engine-silent", since, None),
    ]


def test_silence_counts_while_somebody_listens(room: Room) -> None:
    """From when the first stream of the kind flows."""
    client = member(room, "trade@A")
    passes(room, SILENCE + 1)
    room.end(client)
    passes(room, 60)
    assert room.hub.overview.silent_kinds == {}
    client = member(room, "trade@A")
    since = room.now_ms
    passes(room, SILENCE - 1)
    assert client.take() == []
    passes(room, 2)
    ((_, _, reason, begun, _),) = client.take()
    assert reason == "engine-silent"
    assert since <= begun <= since + 1000
    assert LINGER < SILENCE


def test_each_kind_by_itself(room: Room) -> None:
    """Trades come, depth messages do not; tickers are not watched."""
    client = member(room, "trade@A", "depth@A", "ticker@A")
    for number in range(1, 16):
        passes(room, 1)
        room.source.publish("trade@A", trade(number))
    room.source.publish("ticker@A", ticker(1))
    events = [each for each in client.take() if each[0] == "gap"]
    assert [(streams, reason) for _, streams, reason, *_ in events] == [(["depth@A"], "engine-silent")]
