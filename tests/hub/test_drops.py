"""Publications that do not go their way: counted, logged, and passed over or forwarded."""

from __future__ import annotations

from collections import Counter
from unittest.mock import patch

from twisted.logger import formatEvent

from marketfeed.hub.stream import Group
from marketfeed.wire.dialects import Shape
from tests.compiled import replaces_methods
from tests.conftest import LogCapture
from tests.rooms import Room, member, trade


def test_bad_publications_are_dropped_and_counted_by_reason(room: Room) -> None:
    """Strict: only what its kind requires is forwarded."""
    client = member(room, "trade@A")
    room.source.publish("trade@A", b"{", b"[]", b'{"e":"trade"}', trade(1), b'{"e":"ticker"}', b"\xff")
    assert client.take() == [("trade@A", 1)]
    assert room.hub.drops == Counter({"not-json": 1, "not-object": 1, "bad-field": 2, "not-utf8": 1})
    assert room.hub.counts.published == 1


def test_drops_are_logged_once_a_second_for_each_stream(room: Room, logged: LogCapture) -> None:
    """The line says what was wrong and how many there were; another stream has a line of its own."""
    member(room, "trade@A", "trade@B")

    def lines() -> list[tuple[str, int]]:
        events = [event for event in logged.events if str(event.get("log_format")).startswith("bad publication")]
        logged.events.clear()
        assert all(event["reason"] == "not-json" and event["what"] == "dropped" for event in events)
        return [(event["stream"], event["count"]) for event in events]

    room.source.publish("trade@A", *[b"{"] * 50)
    assert lines() == [("trade@A", 1)]
    room.source.publish("trade@B", b"{")
    assert lines() == [("trade@B", 1)]
    room.clock.advance(0.9)
    room.source.publish("trade@A", b"{")
    assert lines() == []
    room.clock.advance(0.1)
    assert lines() == [("trade@A", 50)]  # without waiting for the next
    room.source.publish("trade@A", b"{")
    room.hub.stopService()
    assert lines() == [("trade@A", 1)]


def test_drops_on_very_many_streams_are_bounded_too(room: Room, logged: LogCapture) -> None:
    """Twenty lines a second and one for all the rest, which counts them."""
    names = [f"trade@M{number}" for number in range(80)]
    member(room, *names)
    for second in range(3):
        logged.events.clear()
        for name in names * 2:
            room.source.publish(name, b"{")
        room.clock.advance(1)
        counts = [event["count"] for event in logged.events if event.get("reason") == "not-json"]
        assert sum(counts) == 160
        assert len(counts) <= (21 if second else 42)


def test_a_lenient_server_forwards_any_object_and_counts_all_the_same(logged: LogCapture) -> None:
    """`--validate warn`: defects are counted and logged; what is no JSON object is dropped even so."""
    room = Room(strict=False)
    client = member(room, "trade@A", shape=Shape.DATA)
    room.source.publish("trade@A", b'{"e":"new"}', b"[]")
    room.clock.advance(1)
    room.source.publish("trade@A", b"7")
    assert client.outbox.texts == [b'{"e":"new"}']
    assert room.hub.drops == Counter({"bad-field": 1, "not-object": 2})
    lines = [event["what"] for event in logged.events if str(event.get("log_format")).startswith("bad publication")]
    assert lines == ["forwarded", "dropped"]


@replaces_methods
def test_the_log_says_what_was_wrong_and_with_which_stream(logged: LogCapture) -> None:
    """One line for what is bad, and one for what failed, whichever came first."""
    room = Room()
    member(room, "trade@A", "trade@B")
    logged.events.clear()
    room.source.publish("trade@A", b"[]", b"[]")
    with patch.object(Group, "published", lambda *_: 1 // 0):
        room.source.publish("trade@A", trade(1), trade(2))
        room.source.publish("trade@B", trade(1))
    room.clock.advance(1)
    assert len(logged.failures()) == 2
    failed = "internal error in a publication on trade@A"
    assert [str(formatEvent(event)) for event in logged.events if event["log_level"].name != "debug"] == [
        "bad publication on trade@A, dropped: not-object: not a JSON object",
        failed,
        failed.replace("A", "B"),
        "bad publication on trade@A, dropped: not-object: not a JSON object",
        f"{failed}: ZeroDivisionError: integer division or modulo by zero",
    ]
    logged.flush_failures(ZeroDivisionError)


def test_the_log_says_which_stream_is_refused_and_why(room: Room, logged: LogCapture) -> None:
    """In the source's words."""
    member(room, "trade@A")
    room.source.refuse("trade@A", "no such channel")
    (event,) = [event for event in logged.events if event["log_level"].name == "error"]
    assert formatEvent(event) == "the source refuses trade@A: no such channel"


def test_the_log_of_debugging_says_which_streams_are_wanted(logged: LogCapture) -> None:
    """From when to when."""
    room = Room(linger=0)
    member(room, "trade@A").end()
    room.assert_empty()
    assert [formatEvent(event) for event in logged.events] == ["wanted: trade@A", "wanted no longer: trade@A"]
