"""Streams whose offsets are their source's: where their past begins anew, beside what `test_resume` has."""

from __future__ import annotations

from unittest.mock import patch

from marketfeed.hub.stream import Group
from tests.conftest import LogCapture
from tests.fakes import FakeArchive
from tests.rooms import Client, Room, member, trade


def test_what_could_not_be_published_is_asked_of_the_archive(logged: LogCapture) -> None:
    """What the hub keeps of the stream begins behind it."""
    archive = FakeArchive()
    room = Room(archive)
    client = member(room, "trade@A")
    for number in range(1, 4):
        archive.add("trade@A", f"{number}-0", trade(number))
        with patch.object(Group, "framed", lambda *_: 1 // 0) if number == 2 else patch.dict({}):
            room.source.publish("trade@A", trade(number), offsets=[f"{number}-0"])
    assert [message[0] for message in client.take()] == ["trade@A", "gap", "trade@A"]
    for since, is_asked in (("1-0", True), ("2-0", False)):
        archive.asked.clear()
        late = Client(room).join("trade@A", since={"trade@A": since})
        assert late.recovered == {"trade@A": True}
        assert bool(archive.asked) == is_asked
    assert len(logged.flush_failures(ZeroDivisionError)) == 1
