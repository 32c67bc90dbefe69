"""What the log says, word for word, of publications that do not go their way, and of streams that are refused."""

from __future__ import annotations

from unittest.mock import patch

from twisted.logger import formatEvent

from marketfeed.hub.stream import Group
from tests.conftest import LogCapture
from tests.rooms import Room, member, trade


def test_the_log_says_what_was_wrong_and_with_which_stream(logged: LogCapture) -> None:
    """One line for what is bad, and one for what failed, whichever came first."""
    room = Room()
    member(room, "trade@A", "trade@B")
    logged.events.clear()
    room.source.publish("trade@A", b"[]", b"[]")
    with patch.object(Group, "framed", lambda *_: 1 // 0):
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
