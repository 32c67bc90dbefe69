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
    present = room.hub.overview.outages.present
    assert present == Outage((EPOCH + 8) * 1000, None, 3)
    room.clock.advance(2)
    room.source.lose()  # a further attempt in vain
    assert room.hub.overview.outages.present is present
    room.clock.advance(3)
    room.source.sink.reached()
    assert room.hub.overview.outages.present is None
    assert list(room.hub.overview.outages.recent) == [Outage((EPOCH + 8) * 1000, (EPOCH + 15) * 1000, 3)]
    room.end(*clients)


def test_only_the_last_hundred_are_kept() -> None:
    outages = Outages()
    for number in range(150):
        outages.lost(number, 0)
        outages.over(number)
        outages.over(number + 1)
    assert (len(outages.recent), outages.recent[0], outages.recent[-1].until) == (100, Outage(50, 50, 0), 149)
