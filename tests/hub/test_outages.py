"""When the source was out of reach, and who was told: as the hub has it."""

from __future__ import annotations

from marketfeed.hub.outages import Outage, Outages
from tests.rooms import EPOCH, Room, member


def test_the_hub_keeps_each_with_those_who_were_told() -> None:
    """Each client once, however many of its streams were lost."""
    room = Room()
    room.source.confirm()
    assert not room.hub.overview.outages.recent
    clients = [member(room, "trade@A", "trade@B"), member(room, "trade@A"), member(room, "ticker@C")]
    room.clock.advance(10)
    room.source.lose((EPOCH + 8) * 1000)
    (present,) = room.hub.overview.outages.present
    assert present == Outage("redis", (EPOCH + 8) * 1000, None, 3)
    room.clock.advance(2)
    room.source.lose()  # a further attempt in vain
    assert room.hub.overview.outages.present == [present]
    room.clock.advance(3)
    room.source.sink.reached("redis")
    assert not room.hub.overview.outages.present
    assert list(room.hub.overview.outages.recent) == [Outage("redis", (EPOCH + 8) * 1000, (EPOCH + 15) * 1000, 3)]
    room.end(*clients)


def test_only_the_last_hundred_are_kept() -> None:
    outages = Outages()
    for number in range(150):
        outages.lost("redis", number, 0)
        outages.over("redis", number)
        outages.over("redis", number + 1)
    assert (len(outages.recent), outages.recent[0], outages.recent[-1].until) == (100, Outage("redis", 50, 50, 0), 149)


def test_several_links_have_outages_of_their_own() -> None:
    outages = Outages()
    outages.lost("redis a", 1, 2)
    outages.lost("redis b", 2, 3)
    outages.lost("redis a", 1, 1)
    assert outages.present == [Outage("redis a", 1, None, 3), Outage("redis b", 2, None, 3)]
    outages.over("redis a", 5)
    assert outages.present == [Outage("redis b", 2, None, 3)]
    assert list(outages.recent) == [Outage("redis a", 1, 5, 3), Outage("redis b", 2, None, 3)]


def test_only_streams_that_are_named_are_lost_and_one_that_moves_is_no_outage() -> None:
    room = Room()
    room.source.confirm()
    first, second = member(room, "trade@A"), member(room, "trade@B")
    room.source.sink.lost(room.now_ms, ["trade@A", "trade@UNKNOWN"], "")
    assert (len(first.outbox.events), len(second.outbox.events)) == (1, 0)
    assert not room.hub.overview.outages.recent
    room.end(first, second)
